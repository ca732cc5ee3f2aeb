"""A comparison as a two-column paper, typeset as a PDF.

Its sentences, tables, charts and references are filled in from the records.
"""

from peft_methods.report.paper.document import write_paper
from peft_methods.report.paper.typst import PaperError, check_possible

__all__ = ["PaperError", "check_possible", "write_paper"]
