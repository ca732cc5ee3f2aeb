"""Drawing primitives of all charts: sizes in inches, one style, measured text.

The style does not depend on the user's matplotlibrc. Text is measured before it is placed. Figures
are created directly, never through pyplot, so no global state is left behind.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from peft_methods.utils.errors import PeftMethodsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# `rendering` replaces these three colours in inline SVG, so that they follow the page's colours.
INK = "#1b1b1a"  # text and axes
MUTED = "#666665"
GRID = "#d9d9d8"
FONT = "DejaVu Sans"  # shipped with matplotlib
TEXT, SMALL = 9.0, 7.5  # points
LINE = 1.25  # line height, as a multiple of the font size
PAD = 0.08  # inches between elements
RC_PARAMS: dict[str, Any] = {
    "font.family": [FONT],
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,  # a method's name may contain $
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titley": 1.0,  # a fixed place: matplotlib's search for a free one takes 1/3 of the time
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "lines.scale_dashes": False,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "svg.hashsalt": "peft-methods",
}
P = ParamSpec("P")
T = TypeVar("T")


class ChartError(PeftMethodsError):
    """Charts that cannot be drawn or written."""


@contextmanager
def chart_style(**more: Any) -> Iterator[None]:
    """Context manager: use matplotlib's defaults plus RC_PARAMS; ignore missing-glyph warnings."""
    try:
        import matplotlib
    except ImportError:
        raise ChartError("charts need matplotlib: pip install 'peft-methods[report]'.") from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        settings: Any = matplotlib.rcParams  # typed per key; the keys differ between versions
        matplotlib.rcdefaults()
        settings.update(RC_PARAMS | more)
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorator of drawing functions: draw with the style of all charts."""

    @functools.wraps(draw)
    def with_style(*args: P.args, **kwargs: P.kwargs) -> T:
        with chart_style():
            return draw(*args, **kwargs)

    return with_style


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_at(
    figure: Figure, left: float, top: float, width: float, height: float, **more: Any
) -> Axes:
    """Add axes; the position is in inches from the figure's left and upper edge."""
    whole_width, whole_height = figure.get_size_inches()
    box = (
        left / whole_width,
        1 - (top + height) / whole_height,
        width / whole_width,
        height / whole_height,
    )
    return figure.add_axes(box, **more)


def place_text(figure: Figure, x: float, y: float, text: str, **more: Any) -> None:
    """Add text; the position is in inches from the figure's left and upper edge."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, **more)


def text_width(text: str, size: float = TEXT) -> float:
    """Width of the longest line in the charts' font, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FONT, size=size)
    return (
        max(
            text_to_path.get_text_width_height_descent(line or " ", font, ismath=False)[0]
            for line in text.split("\n")
        )
        / 72
    )


def widest(texts: Iterable[str], size: float = TEXT) -> float:
    """Width of the widest text in inches; 0 without texts."""
    return max((text_width(text, size) for text in texts), default=0.0)


def text_height(text: str, size: float = TEXT) -> float:
    """Height of all lines in inches."""
    return (text.count("\n") + 1) * size * LINE / 72


def wrapped(text: str, width: float, size: float = SMALL) -> str:
    """Wrap text between words into lines of at most `width` inches."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def note_height(notes: Sequence[str], width: float) -> float:
    """Height in inches that `add_notes` needs."""
    return sum(text_height(wrapped(note, width), SMALL) for note in notes) + PAD * bool(notes)


def add_notes(figure: Figure, notes: Sequence[str]) -> None:
    """Add small print at the bottom of the figure: how to read it, and missing data."""
    width, height = figure.get_size_inches()
    text = "\n".join(wrapped(note, width - 2 * PAD) for note in notes)
    figure.text(
        PAD / width,
        PAD / 2 / height,
        text,
        size=SMALL,
        color=MUTED,
        va="bottom",
        linespacing=LINE / 1.2,
    )
