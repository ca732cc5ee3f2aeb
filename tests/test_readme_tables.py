"""Tables of stored baselines in the documentation show their figures and mark the best ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from peft_methods.analysis.baseline import read_baseline
from peft_methods.analysis.comparison import MetricSummary, Row
from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.metrics import MEMORY_PARTS, METRICS
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.text.costs import COST_COLUMNS
from peft_methods.runs.spec import run_specs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(r"<!-- baseline (\S+) -->\n(.*?)\n<!-- /baseline -->", re.DOTALL)
MARKED = {name: text for page in (README, *PAGES) for name, text in MARK.findall(page)}
# The columns of a separate table, which a page may leave out.
COST_HEADINGS = COST_COLUMNS | {
    part.replace("_", " ").capitalize(): f"{part}_bytes" for part in MEMORY_PARTS
}
BEST_OF: dict[str, Callable[..., float]] = {
    "accuracy": max, "macro_f1": max, "train_seconds": min, "samples_per_second": max,
    "peak_memory_bytes": min,
}  # fmt: skip
Cells = dict[tuple[str, str], str]  # (method, heading) -> text


def rows_of(path: Path) -> list[Row]:
    entries = read_baseline(path).entries
    known = {
        key: {name: entry.values(name) for name in entry.metrics} for key, entry in entries.items()
    }
    figures = {
        key: {
            name: MetricSummary(fmean(v), stdev(v) if len(v) > 1 else None, len(v))
            for name, v in metrics.items()
            if v
        }
        for key, metrics in known.items()
    }
    return [
        Row(recipe, method, figures[recipe, method], entries[recipe, method].seeds, ())
        for recipe, method in entries
    ]


def cells_of(markdown: str) -> Cells:
    """Return every cell of every table in a Markdown text."""
    found: Cells = {}
    headings: list[str] = []
    for line in markdown.splitlines():
        texts = (
            [text.strip() for text in line.strip("|").split("|")] if line.startswith("|") else []
        )
        if texts and texts[0] == "Method":
            headings = texts[1:]
        elif texts and not set(texts[0]) <= {":", "-"}:
            found |= {
                (texts[0], heading): text for heading, text in zip(headings, texts[1:], strict=True)
            }
    return found


def expected(rows: list[Row]) -> Cells:
    digits = 2 if min(row.mean("train_seconds") for row in rows) < 1 else 1

    def put(heading: str, name: str, written: Callable[[Row], str]) -> None:
        means = {row.method: row.mean(name) for row in rows if name in row.metrics}
        best = BEST_OF[name](means.values()) if name in BEST_OF and means else None
        found.update(
            {
                (row.title, heading): written(row) + r" \*" * (means[row.method] == best)
                for row in rows
                if name in row.metrics
            }
        )

    def with_spread(name: str, scale: float, digits: int, unit: str = "") -> Callable[[Row], str]:
        def written(row: Row) -> str:
            figure = row.metrics[name]
            spread = "" if figure.deviation is None else f" ± {scale * figure.deviation:.{digits}f}"
            return f"{scale * figure.mean:.{digits}f}{spread}{unit}"

        return written

    found = costs(rows)
    put("Accuracy", "accuracy", with_spread("accuracy", 100, 1))
    put("Macro F1", "macro_f1", with_spread("macro_f1", 100, 1))
    put("Trainable (method + head)", "method_parameters", _trainable)
    put("%", "trainable_share", lambda row: f"{100 * row.mean('trainable_share'):.2f}")
    put("Train time", "train_seconds", with_spread("train_seconds", 1, digits, " s"))
    put("Samples/s", "samples_per_second", lambda row: f"{row.mean('samples_per_second'):,.1f}")
    put(
        "Peak memory",
        "peak_memory_bytes",
        lambda row: f"{row.mean('peak_memory_bytes') / 2**20:,.0f} MiB",
    )
    return found


def costs(rows: list[Row]) -> Cells:
    """Return the cells of the second table, in which a missing value is a dash."""
    found = {}
    for row in rows:
        for heading, name in COST_HEADINGS.items():
            held = "engine_reserved_bytes" if heading == "Reserved" else name
            figure = row.metrics.get(held) or row.metrics.get(name)
            text = "–" if figure is None else METRICS[name].format(figure.mean)
            found[row.title, heading] = text
    return found


def _trainable(row: Row) -> str:
    return f"{row.mean('method_parameters'):,.0f} + {row.mean('head_parameters'):,.0f}"


def test_every_stored_baseline_has_a_table() -> None:
    folder = ROOT / "benchmarks" / "baselines"
    stored = {
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json")
    }
    assert set(MARKED) == stored


@pytest.mark.parametrize("name", MARKED)
def test_baselines_of_an_older_recipe_are_called_so(name: str) -> None:
    """Sources and the engine are those of the command that the page shows."""
    recipe_name, random, _ = name.partition("/")[2].partition("-random-weights")
    recipe = load_recipe(recipe_name, ["model.weights=random"] if random else [])
    changed = set()
    for entry in read_baseline(ROOT / "benchmarks" / "baselines" / f"{name}.json").entries.values():
        (today, *_) = run_specs(recipe, chosen_methods(recipe, [entry.method])[0], "cuda")
        now = today.flat()
        changed |= {
            (key, entry.settings.get(key), text)
            for key, text in now.items()
            if not key.startswith("prerequisites.")
            and not key.endswith((".source", ".sources"))
            and key != "engine"
            and entry.settings.get(key) != text
        }
    for page in PAGES:
        before, mark, _ = page.partition(f"<!-- baseline {name} -->")
        if mark:
            section = " ".join(before.rpartition("\n## ")[2].split())
            assert ("of an older recipe" in section) == bool(changed)
            for key, then, today_text in changed:
                assert f"`{key}` was {int(then or 0):,}, today {int(today_text):,}" in section


def test_readme_shows_the_table_that_the_documentation_explains() -> None:
    reading = (ROOT / "docs" / "start" / "reading.md").read_text(encoding="utf-8")
    explained = cells_of(reading.partition("## The columns")[0])
    shown = cells_of(README.partition("## Try it")[0])
    assert len(shown) > 30
    assert shown.items() <= explained.items()


def test_quoted_setup_counts_as_the_code_does() -> None:
    """The code says '1 thread'; a quote of an older version said '1 threads'."""
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?<![\d.,])1 (?:threads|cores|seeds|rows|epochs|trials)\b", text)


@pytest.mark.parametrize("name", MARKED)
def test_tables_match_the_stored_baseline(name: str) -> None:
    shown = cells_of(MARKED[name])
    stored = expected(rows_of(ROOT / "benchmarks" / "baselines" / f"{name}.json"))
    # Groups need predictions, which baselines do not hold.
    figures = {key: text for key, text in shown.items() if key[1] != "Group"}
    assert figures == {key: stored.get(key) for key in figures}
    assert {method for method, _ in shown} == {method for method, _ in stored}
    headings = {heading for _, heading in figures}
    assert headings >= {heading for _, heading in stored if heading not in COST_HEADINGS}
    assert headings.isdisjoint(COST_HEADINGS) or headings >= set(COST_HEADINGS)
