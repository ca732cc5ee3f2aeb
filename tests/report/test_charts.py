"""Charts match the records, have no overlapping text, and are byte-identical for equal records."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from builders import CORE, make_record, missing, random_record, with_accuracy, with_changed_specs
from chart_builders import KNOWN, comparison_of, register, with_mishaps
from peft_methods.analysis.comparison import Comparison
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.charts import charts_of, save_charts
from peft_methods.report.charts.base import Chart
from peft_methods.report.charts.canvas import ChartError
from peft_methods.report.charts.placing import Box, box_around, place_labels
from peft_methods.report.charts.rendering import png, svg
from peft_methods.report.palette import FAMILY_STYLES, PARTS, Style, style_of
from peft_methods.runs.record import Record
from peft_methods.runs.spec import run_specs

RECIPE = "embedded"
COSTS = {"train-time", "parameters", "peak-memory", "memory-breakdown", "time-breakdown"}
ALL = {
    *COSTS,
    "accuracy",
    "accuracy-against-memory",
    "accuracy-against-time",
    "losses",
    "accuracies",
    "tuning",
}
SEVERAL = {"accuracy", "time-breakdown", "losses", "confusion-lora"}
LAYOUTS = (
    "accuracy",
    "train-time",
    "parameters",
    "accuracy-against-time",
    "tuning",
    "time-breakdown",
    "confusion-full",
)


def charts(comparison: Comparison) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts_of(comparison, RECIPE)}


def changed(comparison: Comparison, change: Callable[[Record], dict[str, Any]]) -> Comparison:
    records = tuple(replace(record, **change(record)) for record in comparison.records)
    return Comparison(records, predictions=comparison.predictions)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Chart], list[tuple[str, Bbox]]]:
    """A function that lists a chart's texts and their boxes in pixels; the figure's box is last."""

    def texts_of(chart: Chart) -> list[tuple[str, Bbox]]:
        found = []
        draw = Text.draw

        def record_and_draw(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
            if self.get_text().strip() and self.get_visible():
                found.append((self.get_text(), Text.get_window_extent(self, renderer)))
            draw(self, renderer, *args, **kwargs)

        figure = chart.draw()
        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", record_and_draw)
            figure.canvas.draw()
        return [*found, ("the figure", figure.bbox)]

    return texts_of


@pytest.mark.parametrize(
    ("count", "names"),
    [(3, LAYOUTS), (8, LAYOUTS), (40, ("accuracy", "accuracy-against-time", "tuning"))],
)
def test_chart_texts_do_not_overlap_and_are_not_cut_off(
    count: int,
    names: tuple[str, ...],
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = register(monkeypatch, count)
    comparison = comparison_of(methods, seeds=2 if count > 8 else 3)
    found = charts(with_mishaps(comparison, methods[4], methods[5]) if count > 3 else comparison)
    for name in names:
        *written, (_, whole) = texts(found[name])
        assert len(written) > 3
        for text, box in written:
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1, f"{name}: {text!r} leaves the figure"
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1, f"{name}: {text!r} leaves the figure"
        for (one, a), (other, b) in itertools.combinations(written, 2):
            across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 1 or up < 1, f"{name}: {one!r} and {other!r} overlap"


@pytest.mark.slow
def test_charts_of_sixty_methods_are_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 methods with 3 seeds of 4 epochs: no more than 200 kB each."""
    found = charts(comparison_of(register(monkeypatch, 60, "LoRA variant")))
    sizes = {one: len(svg(found[one]).encode()) for one in found if "confusion" not in one}
    assert {name: size for name, size in sizes.items() if size > 200_000} == {}


def test_the_best_of_many_close_methods_are_named(
    texts: Callable[[Chart], list[tuple[str, Bbox]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of 39 methods differ by a few per cent, and one takes ten times as long."""
    methods = register(monkeypatch, 40, "LoRA variant")

    def close(record: Record) -> dict[str, Any]:
        place = methods.index(record.method_name)
        seconds = 50.0 if place == 0 else 5.0 + place / 200
        accuracy = 0.93 + place / 10_000
        return {"metrics": record.metrics | {"train_seconds": seconds, "accuracy": accuracy}}

    found = charts(changed(comparison_of(methods, seeds=1), close))
    written = {text for text, _ in texts(found["accuracy-against-time"])}
    assert "M39" in written, "the best"
    assert {"5", "10", "50"} <= written, "ticks between the powers of ten"


def test_charts_of_complete_records_include_every_chart() -> None:
    assert set(charts(comparison_of(KNOWN))) == ALL | {f"confusion-{method}" for method in KNOWN}


def test_charts_are_byte_identical_for_equal_records_under_any_matplotlib_settings() -> None:
    first, second = (charts(comparison_of(KNOWN[:3])) for _ in range(2))
    for name in ("accuracy-against-time", "time-breakdown"):
        before = svg(first[name]), svg(first[name], inline=True), png(first[name])
        with matplotlib.rc_context(
            {"font.size": 20, "axes.grid": True, "svg.hashsalt": None, "text.parse_math": True}
        ):
            assert (svg(second[name]), svg(second[name], inline=True), png(second[name])) == before


def test_tuning_chart_says_that_settings_were_kept() -> None:
    """The best trial's settings may not have been confirmed."""
    made = comparison_of(("lora",))
    records = tuple(
        replace(record, tuning={**(record.tuning or {}), "chosen": {"learning_rate": 1e-3}})
        for record in made.records
    )
    text = charts(replace(made, records=records))["tuning"].description
    assert re.search(
        r"LoRA 6 trials, rate 0\.001 kept, validation \d\d\.\d %, best trial 75\.0 %", text
    ), text


def test_chart_descriptions_match_the_records() -> None:
    comparison = with_mishaps(comparison_of(KNOWN), "qlora", "ia3")
    found = charts(comparison)
    rows = {row.method: row for row in comparison.rows()}
    best = max(rows.values(), key=lambda row: row.metrics["accuracy"].mean if row.metrics else 0)
    low, high = comparison.rankings[RECIPE].intervals[best.method]
    assert found["accuracy"].description.startswith(
        f"Highest mean: {best.title}, {100 * best.mean('accuracy'):.1f} % "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %); lowest: "
    )
    assert found["accuracy"].description.endswith(
        "Always predicting the most frequent class: 50.0 %. QLoRA: skipped."
    )
    assert (
        "Least: Full fine-tuning, 13.0 ± 1.0 s; most: AdapterFusion, 34.0 ± 1.0 s. QLoRA: skipped."
        in found["train-time"].description
    )
    assert (
        "Least: Head only, 148,610; most: Full fine-tuning, 22,148,610."
        in found["parameters"].description
    )
    assert (
        "LoRA 6 trials, rate 0.001 → 0.003, validation 73.0 % → 75.0 %"
        in found["tuning"].description
    )
    assert "Bottleneck adapter: 2,345.0 MiB" in found["memory-breakdown"].description
    confusion = np.sum(
        [
            r.quality["confusion"]
            for r in comparison.records
            if r.method_name == "lora" and r.quality
        ],
        axis=0,
    )
    assert (
        f"Most frequent error: positive predicted as negative, {confusion[1, 0]:,} of 750."
        in found["confusion-lora"].description
    )


def test_charts_state_missing_values_and_do_not_draw_them(
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
) -> None:
    whole = with_mishaps(comparison_of(KNOWN), "qlora", "ia3")
    without = changed(
        whole,
        lambda r: (
            {"metrics": {**r.metrics, "peak_memory_bytes": None}} if r.method_name == "lora" else {}
        ),
    )
    found = charts(without)
    written = [text for text, _ in texts(found["peak-memory"])]
    assert "–" in written
    assert "– skipped" in written
    assert "IA3\n2 of 3 seeds" in written
    bars = found["peak-memory"].draw().axes[0].patches
    assert len(bars) == len(KNOWN) - 2
    assert all(bar.get_width() > 0 for bar in bars)
    assert (
        "Not shown because a value is missing: LoRA."
        in found["accuracy-against-memory"].description
    )
    assert "nan" not in "".join(
        svg(chart, inline=True) for name, chart in found.items() if name in LAYOUTS
    )


def test_charts_of_one_seed_state_that_there_is_no_interval(
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
) -> None:
    found = charts(comparison_of(KNOWN[:3], seeds=1))
    assert (
        "One seed: no interval over seeds is drawn, and methods cannot be told apart. "
        "Their intervals in the table cover one trained model each."
    ) in found["accuracy"].description
    assert "interval " not in found["accuracy"].description.split("One seed")[0]
    assert "One seed: no spread." in found["train-time"].description
    assert not any("±" in text for text, _ in texts(found["train-time"]))
    assert not found["accuracy"].draw().axes[0].collections


def test_quality_chart_without_predictions_has_no_intervals() -> None:
    bare = Comparison(comparison_of(KNOWN[:3]).records)
    assert charts(bare)["accuracy"].description.endswith("No intervals: no predictions were kept.")


def test_charts_omit_quality_for_random_weights_and_are_empty_without_results() -> None:
    records = tuple(random_record(method, seed) for method in ("full", "lora") for seed in (0, 1))
    assert set(charts(Comparison(records))) == {"train-time", "peak-memory"}
    assert charts(Comparison((missing("lora", "failed", "why"),))) == {}


def test_charts_show_macro_f1_if_the_recipe_selects_by_it() -> None:
    comparison = with_changed_specs(comparison_of(KNOWN[:3]), ("data.select_by", "macro_f1"))
    found = charts(comparison)
    assert found["accuracy"].title == "Macro F1 on the test set, %, with 95 % intervals"
    assert found["accuracies"].title == "Macro F1, %, by epoch"
    assert "most frequent class" not in found["accuracy"].description


def course_of(**metrics: str) -> Chart | None:
    """The chart by epoch of a language model whose epochs are selected by one of two metrics."""
    recipe = load_recipe("e2e_nlg", [f"data.{name}={metric}" for name, metric in metrics.items()])
    (run, *_) = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cuda")
    made = make_record(
        spec=run,
        metrics={"bleu": 0.5, "token_loss": 1.4, "perplexity": 4.1, "train_seconds": 1.0},
        epochs=(
            {"epoch": 1.0, "train_loss": 1.5, "validation_loss": 1.4, "selection": 4.2},
            {"epoch": 2.0, "train_loss": 1.2, "validation_loss": 1.3, "selection": 3.7},
        ),
    )
    found = {chart.name: chart for chart in charts_of(Comparison((made,)), "e2e_nlg")}
    return found.get("accuracies")


def test_courses_are_of_the_metric_that_selects_the_epoch() -> None:
    perplexity = course_of(select_by="perplexity", rank_by="bleu")
    assert perplexity is not None
    assert perplexity.title == "Perplexity, by epoch"
    assert perplexity.description.endswith("validation: LoRA 3.700.")
    assert course_of(select_by="token_loss", rank_by="bleu") is None  # the chart of the losses


def test_losses_chart_skips_non_finite_values() -> None:
    record = with_accuracy("lora", 0.5)[0]
    epochs = (
        {"epoch": 1, "train_loss": 0.7, "validation_loss": float("inf")},
        {"epoch": 2, "train_loss": float("nan")},
    )
    chart = charts(Comparison((replace(record, epochs=epochs),)))["losses"]
    assert chart.description.endswith("LoRA 0.700.")
    assert "One seed." in svg(chart, inline=True)


def test_confusion_chart_of_many_classes_shows_colours_without_numbers(
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
) -> None:
    classes = [f"class {number}" for number in range(25)]
    written = [
        text
        for text, _ in texts(charts(comparison_of(KNOWN[:1], classes=classes))["confusion-full"])
    ]
    assert not any("%" in text for text in written)
    assert sum(text.startswith("class") for text in written) == 50


def test_inline_svgs_have_unique_ids_and_follow_the_page_colours() -> None:
    first = comparison_of(KNOWN[1:4])
    second = with_changed_specs(comparison_of(KNOWN[1:4]), ("name", "other"))
    both = Comparison((*first.records, *second.records), predictions=first.predictions)
    pages = [
        svg(one, inline=True)
        for recipe in (RECIPE, "other")
        for one in charts_of(both, recipe)
        if one.name in SEVERAL
    ]
    ids: list[str] = []
    for page in pages:
        root = ElementTree.fromstring(page)
        assert page.startswith("<svg ")
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        used = set(re.findall(r"(?:url\(|href=.)#([^)\"]+)", page))
        assert used <= set(own)
        ids += own
        assert "currentColor" in page
        assert not {"#1b1b1a", "#666665", "#d9d9d8"} & set(page.replace(";", " ").split())
        selectors = re.findall(r"[^{}]+(?={)", page.partition("<style>")[2].partition("<")[0])
        assert all(re.fullmatch(r"\.k[0-9a-f]{8}-c\d+", one) for one in selectors)
        ids += [one[1:] for one in selectors]
    assert len(ids) == len(set(ids))
    assert "Head only</text>" in pages[0]
    assert max(map(len, pages)) < 60_000


HOSTILE = "<script>alert(1)</script> $x^2$ & \x00\x1b\ud800 評"


def test_foreign_names_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = replace(METHODS["full"].info, title=HOSTILE)
    monkeypatch.setattr(METHODS["full"], "info", hostile)
    comparison = comparison_of(KNOWN[:3], classes=(HOSTILE, "../other"))
    for name in ("confusion-full", "accuracy"):
        chart = charts(comparison)[name]
        for text in (svg(chart), svg(chart, inline=True)):
            ElementTree.fromstring(text)
            assert "<script>" not in text
        assert png(chart).startswith(b"\x89PNG")


def test_save_charts_names_files_after_recipe_and_chart(tmp_path: Path) -> None:
    comparison = Comparison(tuple(with_accuracy("lora", 0.8, 0.9)))
    paths = save_charts(comparison, tmp_path / "charts")
    found = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert {
        "charts/embedded/accuracy.svg",
        "charts/embedded/accuracy.png",
        "charts/embedded/train-time.svg",
    } <= found
    before = {path: path.read_bytes() for path in paths}
    assert {
        path: path.read_bytes() for path in save_charts(comparison, tmp_path / "charts")
    } == before
    ElementTree.parse(paths[0])
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ChartError, match=r"cannot be written: .*Choose another folder\."):
        save_charts(comparison, tmp_path / "file")


def test_charts_without_matplotlib_raise_one_line_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    chart = charts(comparison_of(KNOWN[:3]))["accuracy"]
    for draw in (chart.draw, lambda: svg(chart), lambda: png(chart)):
        with pytest.raises(
            ChartError, match=r"^charts need matplotlib: pip install 'peft-methods\[report\]'\.$"
        ):
            draw()


DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)  # Machado et al. 2009


def lab(color: str, sight: Any) -> Any:
    """CIELAB of a colour under this colour vision, given as a matrix on linear RGB."""
    channels = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(sight) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ seen / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


STYLES = tuple(style_of(name) for name in CORE)
FAMILIES = tuple(FAMILY_STYLES.values())


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPIA], ids=["full", "deuteranopia"])
@pytest.mark.parametrize("styles", [STYLES, PARTS, FAMILIES], ids=["methods", "parts", "families"])
def test_colours_can_be_told_apart(styles: tuple[Style, ...], sight: Any) -> None:
    for one, other in itertools.combinations(styles, 2):
        distance = np.linalg.norm(lab(one.color, sight) - lab(other.color, sight))
        # 2.3 is the just noticeable difference.
        assert distance > (15 if one.hatch == other.hatch else 5), (one, other)


def test_every_registered_method_has_its_own_style() -> None:
    styles = [style_of(name) for name in METHODS]
    assert len({(style.color, style.marker) for style in styles}) == len(METHODS)
    assert len({style.marker for style in STYLES}) == len(CORE)


def test_an_unknown_method_keeps_its_style() -> None:
    style = style_of("a_method_of_tomorrow")
    assert style == style_of("a_method_of_tomorrow")
    assert style.color not in {style.color for style in STYLES}


places = st.tuples(st.floats(0.1, 3.9), st.floats(0.1, 2.9))


@given(st.lists(places, min_size=1, max_size=14), st.floats(0.1, 1.2))
def test_place_labels_returns_labels_without_overlaps_or_none(
    points: list[tuple[float, float]], width: float
) -> None:
    bounds, marks = Box(0, 0, 4, 3), [box_around(x, y, 0.05) for x, y in points]
    labels = place_labels(points, [(width, 0.12)] * len(points), marks, bounds)
    if labels is None:
        assert len(points) > 1
        return
    boxes = [label.box for label in labels]
    assert all(box.within(bounds) for box in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.overlaps(mark) for box in boxes for mark in marks)
