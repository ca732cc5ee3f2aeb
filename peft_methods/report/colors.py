"""How each method and each part of a whole is drawn, the same in every chart: colour, marker, hatching.

Methods have the colours of Okabe & Ito, "Color Universal Design" (2008), with a dark grey for black, which a dark page would
swallow. Parts of memory and time have those of Tol's "muted" scheme (SRON technical note, 2021), so that no part looks like a
method. Both can be told apart with any of the common colour-vision deficiencies; where a colour alone would have to tell,
a label, a marker or hatching says it too.
"""

from __future__ import annotations

import colorsys
import hashlib
from dataclasses import dataclass

from peft_methods.methods import METHODS


@dataclass(frozen=True)
class Style:
    """A colour as #rrggbb, and matplotlib's names of a marker and of a hatching ("" is none)."""

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
)
MARKERS = ("<", ">", "h", "H", "d", "8")


def style_of(method: str) -> Style:
    """The method's style; a name that is not known has one drawn from the name itself, so it is the same in every run."""
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
