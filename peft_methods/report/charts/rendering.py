"""Charts as files: PNG and SVG, the same bytes whenever they are drawn from the same records."""

from __future__ import annotations

import hashlib
import io
import re
from html import escape

from peft_methods.report.charts.base import Chart
from peft_methods.report.charts.canvas import FONT, GRID, INK, MUTED, look

FAMILIES = (
    f"'{FONT}', Verdana, sans-serif"  # as wide as the one that was measured with, or narrower
)
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
LONG = re.compile(r"-?\d+\.\d{3,}")
FOLLOWS = {
    INK: ("currentColor", "1"),
    MUTED: ("currentColor", "0.72"),
    GRID: ("currentColor", "0.18"),
}


def png(chart: Chart, *, dpi: int = 150) -> bytes:
    """The chart as a PNG on white, with title and description in its metadata."""
    with look():
        out = io.BytesIO()
        said = {"Software": None, "Title": chart.title, "Description": chart.description}
        chart.draw().savefig(out, format="png", dpi=dpi, metadata=said)
        return out.getvalue()


def svg(chart: Chart, *, inline: bool = False) -> str:
    """The chart as an SVG on white whose letters are outlines, so that it looks the same everywhere.

    `inline`: an <svg> element to stand in an HTML page, transparent, its text text, its text and axes in the page's colour,
    its ids its own as long as no two charts of a page have the same recipe and name.
    """
    with look(**{"svg.fonttype": "none" if inline else "path"}):
        out = io.BytesIO()
        chart.draw().savefig(out, format="svg", transparent=inline, metadata=NO_METADATA)
    text = _named(_packed(out.getvalue().decode("utf-8")), chart)
    return _in_a_page(text, chart) if inline else text


def _packed(text: str) -> str:
    """In fewer letters: no indentation, hundredths of a point, and the style of all lines on the root, where it harms no page."""
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = text.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    text = re.sub(
        r' d="[^"]*"', lambda found: " " + " ".join(found[0].split()).replace(' "', '"'), text
    )
    text = re.sub(
        r' (?:d|x|y)="[^"]*"|translate\([^)]*\)',
        lambda found: LONG.sub(_hundredths, found[0]),
        text,
    )
    return re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))


def _hundredths(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _named(text: str, chart: Chart) -> str:
    """With title and description, and only the ids that something refers to."""
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    said = f"<title>{escape(chart.title)}</title><desc>{escape(chart.description)}</desc>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[1] + said, text, count=1)


def _in_a_page(text: str, chart: Chart) -> str:
    key = hashlib.sha256(f"{chart.recipe}\n{chart.name}".encode("utf-8", "replace")).hexdigest()[:8]
    text = text[text.index("<svg ") :].replace("<svg ", '<svg role="img" ', 1)
    text = re.sub(r'( id="|url\(#|href="#)', lambda found: f"{found[1]}{chart.name}-{key}-", text)
    text = text.replace(f"'{FONT}'", FAMILIES)
    return re.sub(r"(fill|stroke): ?(#[0-9a-f]{6})", _following, text)


def _following(found: re.Match[str]) -> str:
    color, opacity = FOLLOWS.get(found[2], (found[2], "1"))
    return f"{found[1]}: {color}" + (f"; {found[1]}-opacity: {opacity}" if opacity != "1" else "")
