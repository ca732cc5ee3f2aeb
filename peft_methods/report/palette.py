"""Colour, marker and hatching of each method and each stacked part, the same in every chart.

Methods use the palette of Okabe & Ito, "Color Universal Design" (2008), with dark grey instead of
black, which would be invisible on a dark page. Parts of memory and time use Tol's "muted" scheme
(SRON technical note, 2021), so no part looks like a method. Both palettes stay distinguishable with
the common colour-vision deficiencies. Colour is never the only cue: a label, a marker or hatching
repeats it.
"""

from __future__ import annotations

import colorsys
import hashlib
from dataclasses import dataclass

from peft_methods.methods.registry import METHODS


@dataclass(frozen=True)
class Style:
    """A colour as #rrggbb, with matplotlib's codes for marker and hatching ("" for no hatching)."""

    color: str
    marker: str = "s"
    hatch: str = ""


PARTS = (
    Style("#332288"),
    Style("#88ccee", hatch="//"),
    Style("#117733"),
    Style("#ddcc77", hatch="\\\\"),
    Style("#cc6677"),
    Style("#44aa99"),
    Style("#882255"),
    Style("#999933", hatch="//"),
    Style("#aa4499"),
    Style("#dddddd", hatch="\\\\"),
    Style("#661100"),
    Style("#6699cc", hatch="//"),
    Style("#888888", hatch="xx"),
)
MARKERS = ("<", ">", "h", "H", "d", "8")


def style_of(method: str) -> Style:
    """Return the method's style; for an unknown name the one derived from the name."""
    info = METHODS.info(method)
    drawn = _drawn_from(method)
    if info is None:
        return drawn
    return Style(info.color or drawn.color, info.marker or drawn.marker)


def _drawn_from(method: str) -> Style:
    hue, lightness, saturation, marker, *_ = hashlib.sha256(
        method.encode("utf-8", "replace")
    ).digest()
    shade = colorsys.hls_to_rgb(
        hue / 256, 0.35 + 0.3 * lightness / 256, 0.35 + 0.3 * saturation / 256
    )
    return Style(
        "#" + "".join(f"{round(255 * part):02x}" for part in shade), MARKERS[marker % len(MARKERS)]
    )
