"""Progress in a notebook: one output that is updated, as HTML, Markdown and text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, TextIO

from peft_methods.runs.progress.display import Display, display_on
from peft_methods.runs.progress.live import Live, text_of
from peft_methods.utils.sanitize import visible

WIDTH = 100  # characters of the text
Update = Callable[[dict[str, str]], None]


class NotebookTable:
    """A display whose table is an output of the cell. Lines that the table does not show stay.

    `create` shows a bundle of formats by MIME type and returns a function that replaces it.
    """

    columns = WIDTH

    def __init__(self, create: Callable[[dict[str, str]], Update]) -> None:
        self._create = create
        self._update: Update | None = None
        self._live, self._lines = Live(""), list[str]()

    def say(self, line: str, *, routine: bool = False) -> None:
        """Keep a line below the table, unless the table has what it says."""
        if not routine:
            self._lines.append(line)
            self._render(self._live)

    def show(self, live: Live) -> None:
        """Update the table and the active runs."""
        self._live = live
        self._render(live)

    def draw(self, lines: Sequence[str]) -> None:
        """Show an activity; without any, leave the table without active runs."""
        self._render(Live("\n".join(lines)) if lines else self._live.without_runs())

    def hand_over(self) -> None:
        """Leave the table without active runs."""
        self.draw(())

    def _render(self, live: Live) -> None:
        bundle = {
            "text/html": html_of(live, self._lines),
            "text/markdown": markdown_of(live, self._lines),
            "text/plain": "\n".join([*text_of(live, WIDTH), *self._lines]),
        }
        if self._update is None:
            self._update = self._create(bundle)
        else:
            self._update(bundle)


def html_of(live: Live, lines: Sequence[str]) -> str:
    """Format the state as HTML. Names and messages are escaped."""
    parts = [f"<p>{_text(' · '.join([live.done, *live.head]))}</p>"]
    if live.rows:
        head = "".join(f"<th>{_text(one)}</th>" for one in live.headings)
        rows = "".join(
            "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row.cells) + "</tr>"
            for row in live.rows
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    parts += [f"<div>{_text('  '.join([name, *state]))}</div>" for name, state in live.active]
    parts += [f"<div>and {live.more} more</div>"] * (live.more > 0)
    parts += [f"<div>{_text(line)}</div>" for line in lines]
    return "".join(parts)


def markdown_of(live: Live, lines: Sequence[str]) -> str:
    """Format the state as Markdown."""
    parts = [" · ".join([live.done, *live.head])]
    if live.rows:
        cells = [live.headings, ["---"] * len(live.headings), *(row.cells for row in live.rows)]
        parts.append("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in cells))
    runs = ["  ".join([name, *state]) for name, state in live.active]
    return "\n\n".join([*parts, *map(_cell, (*runs, *lines))])


def _text(text: str) -> str:
    return escape(visible(text))


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("<", "&lt;")


def display_here(stream: TextIO) -> Display:
    """Return a display for a notebook if this is one, else one that writes to `stream`."""
    shell = _notebook_shell()
    return NotebookTable(_output) if shell is not None else display_on(stream)


def _notebook_shell() -> Any:
    """Return IPython's shell if its front end is a notebook; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def _output(bundle: dict[str, str]) -> Update:
    """Show an output of the present cell. Return a function that replaces it."""
    from IPython.display import display

    show: Any = display
    handle = show(bundle, raw=True, display_id=True)
    return lambda changed: handle.update(changed, raw=True)
