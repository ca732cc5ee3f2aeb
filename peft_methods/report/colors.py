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


@dataclass(frozen=True)
class Style:
    """A colour as #rrggbb, with matplotlib's codes for marker and hatching ("" for no hatching)."""

    color: str
    marker: str = "s"
    hatch: str = ""


STYLES = {
    "full": Style("#5b5b5b", "s"),
    "head_only": Style("#f0e442", "v"),
    "bitfit": Style("#009e73", "^"),
    "lora": Style("#0072b2", "o"),
    "qlora": Style("#56b4e9", "D"),
    "ia3": Style("#d55e00", "P"),
    "adapter": Style("#e69f00", "X"),
    "adapter_fusion": Style("#cc79a7", "p"),
}
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
    """Return the method's style. For an unknown name, derive a stable style from its SHA-256."""
    if method in STYLES:
        return STYLES[method]
    hue, lightness, saturation, marker, *_ = hashlib.sha256(
        method.encode("utf-8", "replace")
    ).digest()
    shade = colorsys.hls_to_rgb(
        hue / 256, 0.35 + 0.3 * lightness / 256, 0.35 + 0.3 * saturation / 256
    )
    return Style(
        "#" + "".join(f"{round(255 * part):02x}" for part in shade), MARKERS[marker % len(MARKERS)]
    )
