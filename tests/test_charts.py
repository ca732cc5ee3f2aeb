"""Charts show what the records say, nothing covers anything, and the same records give the same bytes."""

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

from builders import missing, random_record, with_accuracy
from chart_builders import KNOWN, comparison_of, register, with_mishaps
from peft_methods.comparing import Comparison
from peft_methods.methods import METHODS
from peft_methods.records import Record
from peft_methods.report.charts import Chart, ChartError, charts_of, png, save_charts, svg
from peft_methods.report.charts.placing import Box, around, place
from peft_methods.report.colors import PARTS, Style, style_of

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
    """What a chart writes and where, in pixels; the last is the sheet itself."""

    def written(chart: Chart) -> list[tuple[str, Bbox]]:
        found = []
        draw = Text.draw

        def told(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
            if self.get_text().strip() and self.get_visible():
                found.append((self.get_text(), Text.get_window_extent(self, renderer)))
            draw(self, renderer, *args, **kwargs)

        figure = chart.draw()
        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", told)
            figure.canvas.draw()
        return [*found, ("the sheet", figure.bbox)]

    return written


@pytest.mark.parametrize(
    ("count", "names"),
    [(3, LAYOUTS), (8, LAYOUTS), (40, ("accuracy", "accuracy-against-time", "tuning"))],
)
def test_no_text_covers_another_or_is_cut_off(
    count: int,
    names: tuple[str, ...],
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = register(monkeypatch, count)
    comparison = comparison_of(methods, seeds=2 if count > 8 else 3)
    found = charts(with_mishaps(comparison, methods[4], methods[5]) if count > 3 else comparison)
    for name in names:
        *written, (_, sheet) = texts(found[name])
        assert len(written) > 3
        for text, box in written:
            assert sheet.x0 <= box.x0 < box.x1 <= sheet.x1, f"{name}: {text!r} leaves the sheet"
            assert sheet.y0 <= box.y0 < box.y1 <= sheet.y1, f"{name}: {text!r} leaves the sheet"
        for (one, a), (other, b) in itertools.combinations(written, 2):
            across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 1 or up < 1, f"{name}: {one!r} and {other!r} overlap"


def test_everything_that_can_be_shown_is() -> None:
    assert set(charts(comparison_of(KNOWN))) == ALL | {f"confusion-{method}" for method in KNOWN}


def test_the_same_records_give_the_same_bytes_whatever_the_users_settings() -> None:
    first, second = (charts(comparison_of(KNOWN[:3])) for _ in range(2))
    for name in ("accuracy-against-time", "time-breakdown"):
        before = svg(first[name]), svg(first[name], inline=True), png(first[name])
        with matplotlib.rc_context(
            {"font.size": 20, "axes.grid": True, "svg.hashsalt": None, "text.parse_math": True}
        ):
            assert (svg(second[name]), svg(second[name], inline=True), png(second[name])) == before


def test_descriptions_say_the_records_figures() -> None:
    comparison = with_mishaps(comparison_of(KNOWN), "qlora", "ia3")
    found = charts(comparison)
    rows = {row.method: row for row in comparison.rows()}
    best = max(rows.values(), key=lambda row: row.figures["accuracy"].mean if row.figures else 0)
    low, high = comparison.standings[RECIPE].intervals[best.method]
    said = f"Highest mean: {best.title}, {100 * best.mean('accuracy'):.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %); lowest: "
    assert found["accuracy"].description.startswith(said)
    assert found["accuracy"].description.endswith(
        "Always answering the most frequent class: 50.0 %. QLoRA: skipped."
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
        f"Most frequent mistake: positive taken for negative, {confusion[1, 0]:,} of 750."
        in found["confusion-lora"].description
    )


def test_what_is_missing_is_said_and_never_drawn(
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
    assert "Not shown, for want of a figure: LoRA." in found["accuracy-against-memory"].description
    assert "nan" not in "".join(
        svg(chart, inline=True) for name, chart in found.items() if name in LAYOUTS
    )


def test_one_seed_has_no_interval_and_it_is_said(
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
) -> None:
    found = charts(comparison_of(KNOWN[:3], seeds=1))
    assert "One seed: no interval, and no telling apart." in found["accuracy"].description
    assert "interval " not in found["accuracy"].description.split("One seed")[0]
    assert "One seed: no spread." in found["train-time"].description
    assert not any("±" in text for text, _ in texts(found["train-time"]))
    assert not found["accuracy"].draw().axes[0].collections


def test_without_predictions_there_are_no_intervals() -> None:
    bare = Comparison(comparison_of(KNOWN[:3]).records)
    assert charts(bare)["accuracy"].description.endswith("No intervals: no predictions were kept.")


def test_nothing_of_quality_is_drawn_for_random_weights_and_nothing_at_all_for_nothing() -> None:
    records = tuple(random_record(method, seed) for method in ("full", "lora") for seed in (0, 1))
    assert set(charts(Comparison(records))) == {"train-time", "peak-memory"}
    assert charts(Comparison((missing("lora", "failed", "why"),))) == {}


def test_a_recipe_that_selects_by_macro_f1_is_charted_by_it() -> None:
    comparison = comparison_of(KNOWN[:3])
    for record in comparison.records:
        record.cell["recipe"]["data"]["select_by"] = "macro_f1"
    found = charts(comparison)
    assert found["accuracy"].title == "Macro F1 on the test set, %, with 95 % intervals"
    assert found["accuracies"].title == "Macro F1, %, by epoch"
    assert "most frequent class" not in found["accuracy"].description


def test_a_loss_that_is_no_number_leaves_the_others_drawn() -> None:
    spoilt = with_accuracy("lora", 0.5)[0]
    epochs = (
        {"epoch": 1, "train_loss": 0.7, "validation_loss": float("inf")},
        {"epoch": 2, "train_loss": float("nan")},
    )
    chart = charts(Comparison((replace(spoilt, epochs=epochs),)))["losses"]
    assert chart.description.endswith("LoRA 0.700.")
    assert "One seed." in svg(chart, inline=True)


def test_matrices_of_many_classes_are_colour_alone(
    texts: Callable[[Chart], list[tuple[str, Bbox]]],
) -> None:
    classes = [f"class {number}" for number in range(25)]
    written = [
        text
        for text, _ in texts(charts(comparison_of(KNOWN[:1], classes=classes))["confusion-full"])
    ]
    assert not any("%" in text for text in written)
    assert sum(text.startswith("class") for text in written) == 50


def test_several_charts_can_stand_in_one_page_and_follow_its_colours() -> None:
    first, second = comparison_of(KNOWN[1:4]), comparison_of(KNOWN[1:4])
    for record in second.records:
        record.cell["recipe"]["name"] = "other"
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
        here = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        used = set(re.findall(r"(?:url\(|href=.)#([^)\"]+)", page))
        assert used <= set(here)
        ids += here
        assert "currentColor" in page
        assert not {"#1b1b1a", "#666665", "#d9d9d8"} & set(page.replace(";", " ").split())
        assert "<style" not in page
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


def test_files_are_named_after_recipe_and_chart(tmp_path: Path) -> None:
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


def test_without_matplotlib_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """CIELAB of a colour as these eyes see it."""
    channels = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(sight) @ linear, 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ seen / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


STYLES = tuple(style_of(name) for name in METHODS)


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPIA], ids=["full", "deuteranopia"])
@pytest.mark.parametrize("styles", [STYLES, PARTS], ids=["methods", "parts"])
def test_colours_can_be_told_apart(styles: tuple[Style, ...], sight: Any) -> None:
    for one, other in itertools.combinations(styles, 2):
        distance = np.linalg.norm(lab(one.color, sight) - lab(other.color, sight))
        assert distance > (15 if one.hatch == other.hatch else 5), (
            one,
            other,
        )  # 2.3 is what can just be noticed


def test_every_registered_method_has_its_own_style_and_an_unknown_one_keeps_its() -> None:
    assert len({style.marker for style in STYLES}) == len(METHODS)
    assert (
        style_of("prefix_tuning")
        == style_of("prefix_tuning")
        == Style(style_of("prefix_tuning").color, style_of("prefix_tuning").marker)
    )
    assert style_of("prefix_tuning").color not in {style.color for style in STYLES}


places = st.tuples(st.floats(0.1, 3.9), st.floats(0.1, 2.9))


@given(st.lists(places, min_size=1, max_size=14), st.floats(0.1, 1.2))
def test_labels_lie_free_and_within_or_nowhere(
    points: list[tuple[float, float]], width: float
) -> None:
    room, marks = Box(0, 0, 4, 3), [around(x, y, 0.05) for x, y in points]
    placed = place(points, [(width, 0.12)] * len(points), marks, room)
    if placed is None:
        assert len(points) > 1
        return
    boxes = [one.box for one in placed]
    assert all(box.within(room) for box in boxes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.overlaps(mark) for box in boxes for mark in marks)
