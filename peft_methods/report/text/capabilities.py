"""The capability matrix as tables: methods by families, by tasks and by settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from peft_methods.capabilities.cells import CHECKS, Cell, Result
from peft_methods.capabilities.families import FAMILIES
from peft_methods.capabilities.matrix import Matrix
from peft_methods.capabilities.selection import Selection
from peft_methods.capabilities.upstream import Shown, fault_of, shown_status
from peft_methods.methods.registry import METHODS

SIGNS: Mapping[Shown, str] = {
    "failed": "FAIL",
    "upstream": "upstream",
    "passed": "✓",
    "unsupported": "no",
}  # the first that applies to any of several cells is shown
UNTESTED = "–"
LEGEND = (
    f"{SIGNS['passed']}: all checks of all tested combinations pass; {SIGNS['failed']}: some fail; "
    f"{SIGNS['upstream']}: a fault of a library breaks some; {SIGNS['unsupported']}: not "
    f"supported, by the method's own word; {UNTESTED}: not tested."
)
Table = tuple[list[str], list[list[str]]]  # headings and rows


@dataclass(frozen=True)
class View:
    """What is shown of a matrix: the selected cells. `engines` has those of a run on a GPU."""

    matrix: Matrix
    selection: Selection
    engines: Matrix | None = None

    @property
    def results(self) -> dict[Cell, Result]:
        """The selected results. Third parties' methods are among them while they are installed."""
        stored = self.matrix.results.items()
        return {cell: one for cell, one in stored if self.selection.has(cell)}

    def families(self, names: Sequence[str]) -> Table:
        """Return a row for each method, and a column for each of these families."""
        columns = {FAMILIES[name].title: _of("family", name) for name in names}
        return self._table(columns)

    def settings(self) -> Table:
        """Return a row for each method, and a column for each task and setting."""
        columns: dict[str, Callable[[Cell], bool]] = {}
        for task in self.selection.names()[2]:
            columns[task] = _of("task", task)
        columns["bf16"] = _of("precision", "bf16")
        columns["checkpointing"] = _of("checkpointing", True)
        headings, rows = self._table(columns)
        weights = [METHODS[row[0]].info.quantization or "fp32" for row in rows]
        rows = [[row[0], held, *row[1:]] for row, held in zip(rows, weights, strict=True)]
        headings = [headings[0], "weights", *headings[1:]]
        if self.engines is None:
            return headings, rows
        engines = {c: r for c, r in self.engines.results.items() if self.selection.has(c)}
        return [*headings, "engines agree (GPU)"], [
            [*row, self._sign({c: r for c, r in engines.items() if c.method == row[0]})]
            for row in rows
        ]

    def _table(self, columns: Mapping[str, Callable[[Cell], bool]]) -> Table:
        results, rows = self.results, []
        for method in self.selection.names()[0]:
            own = {cell: one for cell, one in results.items() if cell.method == method}
            signs = [
                self._sign({c: r for c, r in own.items() if has(c)}) for has in columns.values()
            ]
            rows.append([method, *signs])
        return ["method", *columns], rows

    def _sign(self, results: Mapping[Cell, Result]) -> str:
        """Return the sign of some cells together. Supported ones count more than others."""
        found = {shown_status(cell, result) for cell, result in results.items()}
        return next((sign for status, sign in SIGNS.items() if status in found), UNTESTED)

    def counts(self) -> str:
        """Return how many combinations were tested, and how they ended."""
        shown = [shown_status(cell, result) for cell, result in self.results.items()]
        numbers = {status: shown.count(status) for status in SIGNS}
        tested = len(shown) - numbers["unsupported"]
        return (
            f"{tested:,} combinations tested: {numbers['passed']:,} pass, "
            f"{numbers['failed']:,} fail, {numbers['upstream']:,} are broken upstream; "
            f"{numbers['unsupported']:,} more are not supported."
        )

    def failures(self) -> list[str]:
        """Return a line for each check that failed, in this matrix and with the engines."""
        both = [*self.results.items()]
        if self.engines is not None:
            both += [item for item in self.engines.results.items() if self.selection.has(item[0])]
        return [
            f"{cell.name}: {CHECKS[check]}: "
            + (f"no, known upstream: {fault}" if (fault := fault_of(cell, check)) else reason)
            for cell, result in both
            for check, reason in result.failed.items()
        ]

    def reasons(self) -> list[str]:
        """Return why combinations are not supported, or by one engine alone; equal ones once."""
        found: dict[str, dict[str, list[str]]] = {}
        engines = {} if self.engines is None else self.engines.results
        for cell, result in [*self.results.items(), *engines.items()]:
            reason = result.reason or result.unneeded.get("engines")
            if reason and self.selection.has(cell):
                families = found.setdefault(reason, {}).setdefault(cell.method, [])
                families.append(cell.family)
        return [
            "; ".join(f"{one} on {', '.join(dict.fromkeys(own))}" for one, own in methods.items())
            + f": {reason}"
            for reason, methods in found.items()
        ]

    def environment(self) -> str:
        """Return where and with which versions the matrix was measured."""
        found = environment_of(self.matrix)
        if self.engines is None:
            return found
        return f"{found}. Engines on a GPU: {environment_of(self.engines)}"


def _of(name: str, value: object) -> Callable[[Cell], bool]:
    return lambda cell: getattr(cell, name) == value


def environment_of(matrix: Matrix) -> str:
    """Return the device and the versions of a matrix."""
    found = matrix.environment
    packages = found.get("packages", {})
    versions = (f"{name} {packages.get(name)}" for name in ("torch", "transformers", "peft"))
    return f"{found.get('device_name')} ({found.get('device')}), {', '.join(versions)}"


def capability_text(view: View, width: int, advice: str, *, detailed: bool) -> str:
    """Format a matrix for a terminal of this width.

    `advice` says how to see more; `detailed` shows why combinations are not supported.
    """
    from tabulate import tabulate

    def text(table: Table) -> str:
        headings, rows = table
        return tabulate(rows, headings, tablefmt="simple", disable_numparse=True)

    parts = [text(view.families(names)) for names in _fitting(view, width, text)]
    parts.append(text(view.settings()))
    parts.append(f"{LEGEND}\n{view.counts()}\nMeasured on {view.environment()}.")
    if failures := view.failures():
        parts.append("\n".join(failures))
    if detailed and (reasons := view.reasons()):
        parts.append("\n".join(["Not supported:", *reasons]))
    return "\n\n".join([*parts, advice])


def _fitting(view: View, width: int, text: Callable[[Table], str]) -> Iterable[list[str]]:
    """Divide the families among tables that fit the width."""
    names: list[str] = []
    for name in view.selection.names()[1]:
        lines = text(view.families([*names, name])).splitlines()
        if names and max(map(len, lines)) > width:
            yield names
            names = []
        names = [*names, name]
    yield names
