"""The environment of the HTML templates: escaping, and the functions that they call."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.analysis.comparison import title_of
from peft_methods.report.palette import style_of
from peft_methods.report.text.left_out import silenced_line
from peft_methods.report.text.ranking import RANKING_NOTE
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from jinja2 import Environment


TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Return the environment, which escapes every text that is not marked as trusted."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers: dict[str, Any] = {
        "title_of": title_of,
        "how_to_read": RANKING_NOTE,
        "trusted": Markup,
        "color_of": lambda method: style_of(method).color,
        "counted": counted,
        "silenced_line": silenced_line,
    }
    made.globals.update(helpers)
    return made
