"""A comparison as a two-column paper: sentences filled from the records, tables, charts, references, typeset as a PDF."""

from peft_methods.report.paper.document import write_paper
from peft_methods.report.paper.typst import PaperError, check_possible

__all__ = ["PaperError", "check_possible", "write_paper"]
