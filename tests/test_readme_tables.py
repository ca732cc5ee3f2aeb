"""Tables of stored baselines in the documentation show their figures and mark the best ones."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from peft_methods.analysis.baseline import read_baseline
from peft_methods.analysis.comparison import MetricSummary, Row
from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.metrics import MEMORY_PARTS, METRICS
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import DEFAULT_TASK
from peft_methods.report.text.costs import COST_COLUMNS
from peft_methods.runs.spec import run_specs
from peft_methods.tasks.registry import TASKS, with_task

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(r"<!-- baseline (\S+) -->\n(.*?)\n<!-- /baseline -->", re.DOTALL)
MARKED = {name: text for page in (README, *PAGES) for name, text in MARK.findall(page)}
# The columns of a separate table, which a page may leave out.
COST_HEADINGS = COST_COLUMNS | {
    part.replace("_", " ").capitalize(): f"{part}_bytes" for part in MEMORY_PARTS
}
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


def task_of(path: Path) -> str:
    (entry, *_) = read_baseline(path).entries.values()
    return entry.settings.get("task", DEFAULT_TASK)


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


def expected(rows: list[Row], task: str) -> Cells:
    digits = 2 if min(row.mean("train_seconds") for row in rows) < 1 else 1

    def put(
        heading: str,
        name: str,
        written: Callable[[Row], str],
        best: Callable[..., float] | None = None,
    ) -> None:
        means = {row.method: row.mean(name) for row in rows if name in row.metrics}
        highest = None if best is None or not means else best(means.values())
        found.update(
            {
                (row.title, heading): written(row) + r" \*" * (means[row.method] == highest)
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
    for metric in TASKS[task].metrics:
        is_share = metric.unit.name == "share"
        put(
            metric.title,
            metric.name,
            with_spread(metric.name, 100 if is_share else 1, 1 if is_share else 3),
            best=max if metric.higher_is_better else min,
        )
    has_head = any(row.mean("head_parameters") for row in rows)
    put(f"Trainable{' (method + head)' * has_head}", "method_parameters", _trainable)
    put("%", "trainable_share", lambda row: f"{100 * row.mean('trainable_share'):.2f}")
    put("Train time", "train_seconds", with_spread("train_seconds", 1, digits, " s"), best=min)
    put(
        "Samples/s",
        "samples_per_second",
        lambda row: f"{row.mean('samples_per_second'):,.1f}",
        best=max,
    )
    put(
        "Peak memory",
        "peak_memory_bytes",
        lambda row: f"{row.mean('peak_memory_bytes') / 2**20:,.0f} MiB",
        best=min,
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
    own, head = row.mean("method_parameters"), row.mean("head_parameters")
    return f"{own:,.0f} + {head:,.0f}" if head else f"{own:,.0f}"


def test_every_stored_baseline_has_a_table() -> None:
    folder = ROOT / "benchmarks" / "baselines"
    stored = {
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json")
    }
    assert set(MARKED) == stored


def command_above(page: str, name: str) -> list[str]:
    """Return the words of the last command before a baseline's table."""
    before = page.partition(f"<!-- baseline {name} -->")[0]
    return shlex.split(before.rpartition("```bash\n")[2].partition("```")[0])


def options_of(words: list[str]) -> dict[str, list[str]]:
    """Return the values of each option of a command, by its name."""
    found: dict[str, list[str]] = {}
    joined = " ".join(map(shlex.quote, words)).replace("=auto", " auto")
    for option, value in itertools.pairwise(shlex.split(joined)):
        if option.startswith("--peft-") and not value.startswith("-"):
            found.setdefault(option.removeprefix("--peft-"), []).append(value)
    return found


@pytest.mark.parametrize("name", sorted(set(MARKED) - {"nvidia-h200/embedded"}))
def test_the_command_above_a_table_makes_its_baseline(name: str) -> None:
    """Paths of models and data may differ, and what older versions called otherwise."""
    (page,) = (page for page in PAGES if f"<!-- baseline {name} -->" in page)
    given = options_of(command_above(page, name))
    one = {key: given[key][0] for key in ("model", "data", "weights") if key in given}
    usual = "imdb_roberta" if "gpu" in command_above(page, name) else "embedded"
    recipe = load_recipe(given.get("recipe", [usual])[0], given.get("set", []), **one)
    for entry in read_baseline(ROOT / "benchmarks" / "baselines" / f"{name}.json").entries.values():
        (run, *_) = run_specs(with_task(recipe), chosen_methods(recipe, [entry.method])[0], "cuda")
        differing = {
            key: (entry.settings.get(key), text)
            for key, text in run.flat().items()
            if not key.startswith("prerequisites.")
            and not key.endswith((".source", ".sources"))
            and key not in ("engine", "data.sizes")
            and entry.settings.get(key) != text
        }
        assert differing == {}


def test_pages_know_what_today_s_recipes_have_instead() -> None:
    remark = r"Recipe `(\w+)`[^<]*?`data\.test` was ([\d,]+), today ([\d,]+)\."
    told = [found for page in PAGES for found in re.findall(remark, page)]
    assert len(told) == 3
    for name, _, today in told:
        assert f"{load_recipe(name).data.test:,}" == today


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
    path = ROOT / "benchmarks" / "baselines" / f"{name}.json"
    stored = expected(rows_of(path), task_of(path))
    # Groups need predictions, which baselines do not hold.
    figures = {key: text for key, text in shown.items() if key[1] != "Group"}
    assert figures == {key: stored.get(key) for key in figures}
    assert {method for method, _ in shown} == {method for method, _ in stored}
    headings = {heading for _, heading in figures}
    optional = {metric.title for metric in TASKS[task_of(path)].metrics[1:]} | set(COST_HEADINGS)
    assert headings >= {heading for _, heading in stored} - optional
    assert headings.isdisjoint(COST_HEADINGS) or headings >= set(COST_HEADINGS)
