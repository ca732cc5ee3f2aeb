"""Rendering of charts as PNG and SVG. The same records always give the same bytes."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

from peft_methods.report.charts.canvas import FONT, GRID, INK, MUTED, chart_style


class Drawable(Protocol):
    """A chart: its identity, its texts, and a function that draws it."""

    @property
    def name(self) -> str:
        """The file stem."""

    @property
    def recipe(self) -> str:
        """The recipe's name."""

    @property
    def title(self) -> str:
        """The title."""

    @property
    def description(self) -> str:
        """The alternative text."""

    @property
    def draw(self) -> Callable[[], Any]:
        """Draw a new figure."""


# Fallback fonts are at most as wide as FONT, which text was measured with.
FAMILIES = f"'{FONT}', Verdana, sans-serif"
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
GLYPH = re.compile(r'(<use xlink:href="[^"]*") transform="translate\(([^ )]+) 0\)"')
IDS = re.compile(r'( id="|url\(#|href="#)([^")]+)')
CLASSES = re.compile(r'((?<=>|})\.(?=c\d+{)| class=")(c\d+)')
STYLE = re.compile(r' style="([^"]*)"')
SOLID = "stroke-dasharray: ; stroke-dashoffset: 0; "  # what a line is anyway
LONG_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
PAGE_COLORS = {  # colour of a chart -> (CSS colour, opacity) in a page
    INK: ("currentColor", "1"),
    MUTED: ("currentColor", "0.72"),
    GRID: ("currentColor", "0.18"),
}


def png(chart: Drawable, *, dpi: int = 150) -> bytes:
    """Render the chart as a PNG on white, with title and description in its metadata."""
    with chart_style():
        out = io.BytesIO()
        metadata = {"Software": None, "Title": chart.title, "Description": chart.description}
        chart.draw().savefig(out, format="png", dpi=dpi, metadata=metadata)
        return out.getvalue()


def svg(chart: Drawable, *, inline: bool = False) -> str:
    """Render the chart as an SVG on white, with text as outlines: it looks the same everywhere.

    With `inline`, return an <svg> element for embedding in an HTML page: transparent, with real
    text, text and axes in the page's colour. Its ids are unique as long as no two charts of the
    page have the same recipe and name.
    """
    with chart_style(**{"svg.fonttype": "none" if inline else "path"}):
        out = io.BytesIO()
        chart.draw().savefig(out, format="svg", transparent=inline, metadata=NO_METADATA)
    text = _without_plain_groups(_with_title(_minified(out.getvalue().decode("utf-8")), chart))
    text = _with_classes(text)
    return _for_page(text, chart) if inline else text


def _minified(text: str) -> str:
    """Shorten an SVG: no indentation, coordinates in hundredths of a point, no <style> element.

    The line style moves from <style> to attributes of the root, so it cannot affect a page.
    """
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = text.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    text = re.sub(r' d="([^"]*)"', lambda found: f' d="{_short_path(found[1])}"', text)
    text = re.sub(
        r' (?:d|x|y)="[^"]*"|translate\([^)]*\)',
        lambda found: LONG_DECIMALS.sub(_hundredths, found[0]),
        text,
    )
    text = text.replace(SOLID, "")
    text = GLYPH.sub(r'\1 x="\2"', text)  # the same place in fewer bytes
    return re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))


def _short_path(path: str) -> str:
    """Remove the spaces around the letters of a path."""
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", path).strip()


def _without_plain_groups(text: str) -> str:
    """Remove <g> elements without attributes, which change nothing."""
    is_plain: list[bool] = []

    def kept(found: re.Match[str]) -> str:
        tag = found[1]
        if tag == "</g>":
            return "" if is_plain.pop() else found[0]
        if tag.endswith("/>"):
            return ""
        is_plain.append(tag == "<g>")
        return "" if is_plain[-1] else found[0]

    return re.sub(r"(<g(?: [^>]*)?/?>|</g>)\n?", kept, text)


def _with_classes(text: str) -> str:
    """Write each style once, as a class, if elements share it."""
    counts = Counter(STYLE.findall(text))
    shared = [style for style, count in counts.items() if count > 1]
    classes = {style: f"c{number}" for number, style in enumerate(shared)}
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())

    def shortened(found: re.Match[str]) -> str:
        name = classes.get(found[1])
        return found[0] if name is None else f' class="{name}"'

    return STYLE.sub(shortened, text).replace("</desc>", f"</desc><style>{rules}</style>", 1)


def _hundredths(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _with_title(text: str, chart: Drawable) -> str:
    """Add title and description, shorten ids, and remove those that nothing refers to."""
    used = dict.fromkeys(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    short = {name: f"i{number}" for number, name in enumerate(used)}
    text = IDS.sub(lambda found: found[1] + short[found[2]], text)
    header = f"<title>{escape(chart.title)}</title><desc>{escape(chart.description)}</desc>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[1] + header, text, count=1)


def _for_page(text: str, chart: Drawable) -> str:
    """Adapt an SVG to an HTML page: unique ids and classes, fallback fonts, the page's colours."""
    digest = hashlib.sha256(f"{chart.recipe}\n{chart.name}".encode("utf-8", "replace"))
    key = f"k{digest.hexdigest()[:8]}"
    text = text[text.index("<svg ") :].replace("<svg ", '<svg role="img" ', 1)
    text = IDS.sub(lambda found: f"{found[1]}{key}-{found[2]}", text)
    text = CLASSES.sub(lambda found: f"{found[1]}{key}-{found[2]}", text)
    text = text.replace(f"'{FONT}'", FAMILIES)
    return re.sub(r"(fill|stroke): ?(#[0-9a-f]{6})", _page_color, text)


def _page_color(found: re.Match[str]) -> str:
    color, opacity = PAGE_COLORS.get(found[2], (found[2], "1"))
    return f"{found[1]}: {color}" + (f"; {found[1]}-opacity: {opacity}" if opacity != "1" else "")
