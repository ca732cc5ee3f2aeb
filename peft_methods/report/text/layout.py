"""The form of a text table: its columns, its width, and how parts of it stand out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate

from peft_methods.utils.sanitize import visible

Emphasis = Literal["plain", "title", "best", "error", "warning", "note"]
Paint = Callable[[str, Emphasis], str]
WIDTH_OF_A_LOG = 100  # characters, where the output is no terminal
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|s|ms|J|MiB|GiB|points?)(?!\w))")


def unpainted(text: str, emphasis: Emphasis) -> str:
    """Return the text as it is."""
    return text


@dataclass(frozen=True)
class Layout:
    """How a comparison is written as text.

    `columns` are names of columns of the first table; without any it has the usual ones. With a
    `width`, tables are at most that many characters wide: columns that the user did not choose are
    left out or abbreviated. `is_wrapped` breaks lines of prose at `width` too. `how_to_choose` says
    how to choose columns. `paint` adds colours.
    """

    columns: tuple[str, ...] = ()
    width: int | None = None
    is_wrapped: bool = False
    how_to_choose: str = ""
    style: str = "simple"
    escape: Callable[[str], str] = visible
    paint: Paint = unpainted

    def fits(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> bool:
        """Whether a table is narrow enough."""
        if self.width is None:
            return True
        return max(map(len, self.table(headings, lines).splitlines())) <= self.width

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
        """Format a table. The first column is left-aligned, the others right-aligned.

        Headings have several lines only where the width is limited.
        """
        if self.width is None:
            headings = [heading.replace("\n", " ") for heading in headings]
        return tabulate(
            lines,
            headers=headings,
            tablefmt=self.style,
            disable_numparse=True,
            colalign=("left", *["right"] * (len(headings) - 1)),
        )

    def tables(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
        """Format a table in as many parts as its width needs, each with the first column."""
        parts: list[list[int]] = [[]]
        for column in range(1, len(headings)):
            wider = [0, *parts[-1], column]
            if parts[-1] and not self.fits(*_selected(wider, headings, lines)):
                parts.append([])
            parts[-1].append(column)
        return [self.table(*_selected([0, *part], headings, lines)) for part in parts]

    def prose(self, text: str, emphasis: Emphasis = "plain", subject: str = "") -> str:
        """Format a line of prose: escaped, wrapped, and with its subject painted.

        Without a subject the whole line is painted.
        """
        shown = self.escape(text)
        if self.is_wrapped and self.width is not None:
            wrapper = textwrap.TextWrapper(
                self.width,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            shown = wrapper.fill(BEFORE_UNIT.sub("\u00a0", shown)).replace("\u00a0", " ")
        if subject and shown.startswith(subject):
            return self.paint(subject, emphasis) + shown[len(subject) :]
        return "\n".join(self.paint(line, emphasis) for line in shown.split("\n"))


def _selected(
    columns: Sequence[int], headings: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    return [headings[at] for at in columns], [[line[at] for at in columns] for line in lines]
