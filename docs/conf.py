"""Settings of the documentation: Sphinx reads them. Build it with `tox -e docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import peft_methods
from reference_docs import fill  # found through the lines above

project = "peft-methods"
version = release = peft_methods.__version__
author = "the authors of peft-methods"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "reference_docs"]
html_theme = "furo"
html_title = "peft-methods"
html_show_copyright = False
html_copy_source = False
add_module_names = False
python_maximum_signature_line_length = 88


def fill_marks(app: Any, name: str, source: list[str]) -> None:
    """Put the generated text in place of the marks of a page."""
    source[0] = fill(source[0])


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", fill_marks)
