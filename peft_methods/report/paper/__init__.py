"""A comparison as a two-column paper, typeset as a PDF.

Its sentences, tables, charts and references are filled in from the records.
"""

from __future__ import annotations

__all__ = ["PaperError", "check_possible", "write_paper"]
