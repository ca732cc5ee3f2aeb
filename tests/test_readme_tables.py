"""The README's tables of stored baselines have the baselines' figures."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean, stdev

import pytest

from peft_methods.baseline import read_baseline
from peft_methods.comparing import Figure, Row
from peft_methods.report.costs import cost_table

ROOT = Path(__file__).parent.parent
BASELINES = sorted((ROOT / "benchmarks" / "baselines").rglob("*.json"))
Cells = dict[tuple[str, str], str]  # (method, heading) -> text, without the mark of the best


def rows_of(path: Path) -> list[Row]:
    entries = read_baseline(path).entries
    known = {key: {name: entry.values(name) for name in entry.metrics} for key, entry in entries.items()}
    figures = {
        key: {name: Figure(fmean(v), stdev(v) if len(v) > 1 else None, len(v)) for name, v in metrics.items() if v}
        for key, metrics in known.items()
    }
    return [Row(recipe, method, figures[recipe, method], entries[recipe, method].seeds, ()) for recipe, method in entries]


def cells_of(markdown: str) -> Cells:
    """Every cell of every table in a text."""
    found: Cells = {}
    headings: list[str] = []
    for line in markdown.splitlines():
        texts = [text.strip().removesuffix(r"\*").strip() for text in line.strip("|").split("|")] if line.startswith("|") else []
        if texts and texts[0] == "Method":
            headings = texts[1:]
        elif texts and not set(texts[0]) <= {":", "-"}:
            found |= {(texts[0], heading): text for heading, text in zip(headings, texts[1:], strict=True)}
    return found


def expected(rows: list[Row]) -> Cells:
    tenths = 2 if min(row.mean("train_seconds") for row in rows) < 1 else 1

    def with_spread(figure: Figure, scale: float, digits: int) -> str:
        spread = "" if figure.deviation is None else f" ± {scale * figure.deviation:.{digits}f}"
        return f"{scale * figure.mean:.{digits}f}{spread}"

    found = cells_of(cost_table(rows, "pipe"))
    for row in rows:
        for heading, name in (("Accuracy", "accuracy"), ("Macro F1", "macro_f1")):
            if name in row.figures:
                found[row.title, heading] = with_spread(row.figures[name], 100, 1)
        found[row.title, "Trainable (method + head)"] = f"{row.mean('method_parameters'):,.0f} + {row.mean('head_parameters'):,.0f}"
        found[row.title, "%"] = f"{100 * row.mean('trainable_share'):.2f}"
        found[row.title, "Train time"] = with_spread(row.figures["train_seconds"], 1, tenths) + " s"
        found[row.title, "Samples/s"] = f"{row.mean('samples_per_second'):,.1f}"
        found[row.title, "Peak memory"] = f"{row.mean('peak_memory_bytes') / 2**20:,.0f} MiB"
    return found


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_the_readmes_tables_are_those_of_the_stored_baseline(path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    mark = re.escape(f"baseline {path.parent.name}/{path.stem}")
    found = re.search(rf"<!-- {mark} -->\n(.*?)\n<!-- /baseline -->", readme, re.DOTALL)
    assert found is not None, f"the README has no tables of {path}"
    told = cells_of(found[1])
    stored = expected(rows_of(path))
    told_figures = {key: text for key, text in told.items() if key[1] != "Group"}  # groups need the predictions, which no baseline holds
    assert {key: stored.get(key) for key in told_figures} == told_figures
    assert {method for method, _ in told} == {method for method, _ in stored}
