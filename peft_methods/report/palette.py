"""Colour, marker and hatching of each method and each stacked part, the same in every chart.

Methods use the palette of Okabe & Ito, "Color Universal Design" (2008), with dark grey instead of
black, which would be invisible on a dark page. Parts of memory and time use Tol's "muted" scheme
(SRON technical note, 2021), so no part looks like a method. Both palettes stay distinguishable with
the common colour-vision deficiencies. Colour is never the only cue: a label, a marker or hatching
repeats it.

A method without a colour of its own has one of its family's shades, and a marker that no method of
that shade has. A long chart therefore shows families by colour, and names its methods.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

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
# By family, and for its methods without a colour of their own: of Okabe & Ito's palette and Tol's.
FAMILY_STYLES = {
    "selective": Style("#117733", "s"),
    "low_rank": Style("#0072b2", "o"),
    "scaling": Style("#d55e00", "P"),
    "adapters": Style("#e69f00", "X"),
    "prompts": Style("#aa4499", "^"),
    "orthogonal": Style("#661100", "D"),
    "spectral": Style("#44aa99", "v"),
}
# Lightness that a family's methods take in turn: the share of white, below 0 of black.
SHADES = (0.0, 0.4, -0.3, 0.65)
MARKERS = ("<", ">", "h", "H", "d", "8", "o", "s", "^", "v", "D", "p", "P", "X", "*")


def style_of(method: str) -> Style:
    """Return the method's style; for an unknown name or family one derived from the name."""
    info = METHODS.info(method)
    if info is None:
        return _drawn_from(method)
    shade = _of_family(info.family).get(method) or _drawn_from(method)
    return Style(info.color or shade.color, info.marker or shade.marker)


def family_style(family: str) -> Style:
    """Return the style that stands for all methods of a family."""
    return FAMILY_STYLES.get(family) or _drawn_from(family)


@cache
def _of_family(family: str) -> dict[str, Style]:
    """Return the styles of a family's methods without a colour of their own."""
    names = [
        name
        for name in METHODS
        if METHODS[name].info.family == family and not METHODS[name].info.color
    ]
    if family not in FAMILY_STYLES:
        return {}
    return {
        name: Style(
            _shade(FAMILY_STYLES[family].color, SHADES[number % len(SHADES)]),
            MARKERS[number % len(MARKERS)],
        )
        for number, name in enumerate(names)
    }


def _shade(color: str, share: float) -> str:
    """Mix a colour with this share of white, or of black if it is negative."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    other = 1.0 if share > 0 else 0.0
    return _as_hex([part + abs(share) * (other - part) for part in parts])


def _as_hex(parts: Sequence[float]) -> str:
    """Write red, green and blue, from 0 to 1, as #rrggbb."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _drawn_from(method: str) -> Style:
    hue, lightness, saturation, marker, *_ = hashlib.sha256(
        method.encode("utf-8", "replace")
    ).digest()
    shade = colorsys.hls_to_rgb(
        hue / 256, 0.35 + 0.3 * lightness / 256, 0.35 + 0.3 * saturation / 256
    )
    return Style(_as_hex(shade), MARKERS[marker % len(MARKERS)])
