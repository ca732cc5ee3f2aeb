"""Progress while runs train: in a terminal, in a narrow one, and in a file."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from progress_builders import groups_of, ok
from terminal_builders import Screen, Terminal

from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import load_recipe
from peft_methods.report.text.dry_run import plan_text
from peft_methods.runs.cost_model import expected_seconds, total_seconds
from peft_methods.runs.events import Event
from peft_methods.runs.plan import RunGroup, longest_first
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.display import CLEAR, LiveLines, can_be_live
from peft_methods.runs.progress.live import Live, fitted, text_of
from peft_methods.runs.progress.plan_line import order_of
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.progress.time_left import TimeLeft
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.utils.units import format_duration

PREPARATION = PreparedRecipe(
    {"class_counts": {"train": (80, 80), "validation": (15, 15), "test": (25, 25)}}, {}, 0.01, 1.0
)


class RecordingDisplay:
    """A display that records its input."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lasting = columns, list[str]()
        self.live: tuple[str, ...] = ()

    def say(self, line: str, *, routine: bool = False) -> None:
        self.lasting.append(line)

    def show(self, live: Live) -> None:
        self.draw(text_of(live, self.columns))

    def draw(self, lines: Any) -> None:
        self.live = tuple(lines)

    def hand_over(self) -> None:
        self.live = ()


def runs(tiny_recipe: Path, method: str = "full") -> list[RunSpec]:
    recipe = load_recipe(str(tiny_recipe))
    return run_specs(recipe, chosen_methods(recipe, [method])[0], "cpu")


def sized(columns: int, lines: int = 24) -> Any:
    return lambda: os.terminal_size((columns, lines))


def finished(run: RunSpec) -> Record:
    metrics = {
        "accuracy": 0.9,
        "train_seconds": 61.0,
        "samples_per_second": 37.4,
        "peak_memory_bytes": 2.0**28,
    }
    return Record(
        run,
        "ok",
        "i",
        metrics=metrics,
        epochs=({"epoch": 1.0, "train_loss": 0.61}, {"epoch": 2.0, "train_loss": 0.41}),
    )


STEP = {
    "epoch": 2,
    "epochs": 2,
    "step": 30,
    "steps": 40,
    "train_seconds": 0.5,
    "samples_per_second": 37.41,
    "peak_memory_bytes": 2**28,
}


def test_live_lines_are_drawn_below_permanent_lines() -> None:
    screen = Screen()
    screen.write("$ run\n")
    display = LiveLines(screen.write, sized(20))
    display.draw(["2 running", "cell a", "cell b"])
    assert str(screen) == "$ run\n2 running\ncell a\ncell b"
    display.say("[1/3] cell a: ok")
    assert str(screen) == "$ run\n[1/3] cell a: ok\n2 running\ncell a\ncell b"
    display.draw(["1 running", "x" * 30])
    assert str(screen) == f"$ run\n[1/3] cell a: ok\n1 running\n{'x' * 19}"
    display.hand_over()
    screen.write("$ ")
    assert str(screen) == "$ run\n[1/3] cell a: ok\n$ "


def test_live_lines_are_cut_to_the_height_of_the_screen() -> None:
    screen = Screen()
    display = LiveLines(screen.write, sized(20, lines=4))
    for _ in range(3):
        display.draw([f"line {number}" for number in range(50)])
    assert str(screen) == "line 0\nline 1\nline 2"


def test_live_lines_are_cleared_after_the_terminal_gets_narrower() -> None:
    written: list[str] = []
    columns = [80]
    display = LiveLines(written.append, lambda: os.terminal_size((columns[0], 24)))
    display.draw(["a" * 79, "b" * 79])
    columns[0] = 40
    display.draw(["a" * 79, "b" * 79])
    assert written[-1] == f"{CLEAR}{'a' * 39}\n{'b' * 39}\x1b[1A\r"


def test_progress_shows_active_and_finished_runs_in_a_terminal(tiny_recipe: Path) -> None:
    display, (first, second), now = RecordingDisplay(79), runs(tiny_recipe), [0.0]
    progress = Progress(display, workers=2, clock=lambda: now[0])
    progress.plan([first, second], PREPARATION)
    progress(Event(first))
    progress(Event(second))
    assert display.lasting == []
    progress(Event(second, news={"activity": "loading the model"}))
    now[0] = 1.0
    progress(Event(first, news=STEP | {"train_loss": 0.5123}))
    head, one, two = display.live
    assert re.fullmatch(r"0 of 2 runs done · 2 active · \d+ s left", head)
    assert one == "tiny-full-seed0  epoch 2/2  step 30/40  37.4/s  loss 0.512  256 MiB"
    assert two == "tiny-full-seed1  loading the model"
    earlier, *_ = runs(tiny_recipe, "lora")
    progress(Event(earlier, record=replace(finished(earlier), reused=True)))
    with progress.showing():
        progress(Event(first, record=finished(first)))
        assert len(display.live) == 2
        assert display.live[0].startswith("1 of 2 runs done (1 more reused) · 1 active")
    assert display.live == ()
    assert re.fullmatch(
        r"\[1/2, \d+ s left\] tiny-full-seed0: accuracy 0.900, loss 0.410, 37.4/s, 256.0 MiB, "
        "trained 1 min 01 s",
        display.lasting[-1],
    )
    progress(Event(second, record=record_without_result(second, "failed", "why")))
    assert display.lasting[-1] == "[2/2] tiny-full-seed1: failed: why"


@pytest.mark.parametrize(
    ("seconds", "ending"), [(0.268, ", trained 0.27 s"), (17.52, ", trained 17.5 s"), (None, "")]
)
def test_progress_shows_the_training_time_if_known(
    seconds: float | None, ending: str, tiny_recipe: Path
) -> None:
    display, (run, _) = RecordingDisplay(79), runs(tiny_recipe)
    progress = Progress(display, workers=1, clock=lambda: 0.0)
    progress.plan([run], PREPARATION)
    record = finished(run)
    progress(
        Event(run, record=replace(record, metrics={**record.metrics, "train_seconds": seconds}))
    )
    assert display.lasting[-1].endswith(f"256.0 MiB{ending}")


def test_time_left_is_corrected_by_finished_runs(tiny_recipe: Path) -> None:
    display, (first, second), now = RecordingDisplay(79), runs(tiny_recipe), [0.0]
    progress = Progress(display, workers=1, clock=lambda: now[0])
    assert expected_seconds(first, PREPARATION) == pytest.approx(
        1 + 0.01 * (2 * (160 * 3 + 30) + 50)
    )
    progress.plan([first, second], PREPARATION)
    progress(Event(first))
    now[0] = 2 * expected_seconds(first, PREPARATION)
    progress(Event(first, record=finished(first)))
    assert display.lasting[-1].startswith(
        f"[1/2, {format_duration(now[0])} left] tiny-full-seed0: accuracy"
    )


def test_the_expected_time_is_that_of_the_rows_that_exist(tiny_recipe: Path) -> None:
    for settings in ([], ["data.train=9000", "data.test=9000", "data.sizes=at_most"]):
        recipe = load_recipe(str(tiny_recipe), settings)
        (method,) = chosen_methods(recipe, ["full"])
        (run, _) = run_specs(recipe, method, "cpu")
        assert expected_seconds(run, PREPARATION) == pytest.approx(
            1 + 0.01 * (2 * (160 * 3 + 30) + 50)
        )
        data = replace(recipe.data, source="other", train=40, validation=10, test=0)
        source = replace(run, recipe=replace(recipe, data=data), role="prerequisite")
        assert expected_seconds(source, PREPARATION) == pytest.approx(
            1 + 0.01 * 2 * (40 * 3 + 10)
        )  # its own rows, not those of the recipe that was prepared


def test_the_total_time_is_at_least_that_of_the_longest_run(tiny_recipe: Path) -> None:
    (first, second), preparations = runs(tiny_recipe), {"tiny": PREPARATION}
    alone = expected_seconds(first, PREPARATION)
    assert total_seconds([first, second], preparations, 1) == pytest.approx(2 * alone)
    assert total_seconds([first, second], preparations, 2) == pytest.approx(alone)
    assert total_seconds([first], preparations, 2) == pytest.approx(alone)
    assert total_seconds([first], preparations, 2, [first.key]) == 0
    waiting = replace(second, prerequisites=(first,))
    assert total_seconds([waiting], preparations, 4) == pytest.approx(2 * alone)
    assert total_seconds([], preparations, 4) == 0


def test_time_left_uses_steps_and_runs_of_the_same_method(tiny_recipe: Path) -> None:
    (slow, other), (quick, _), now = runs(tiny_recipe, "full"), runs(tiny_recipe, "lora"), [0.0]
    time_left = TimeLeft(workers=1, clock=lambda: now[0])
    time_left.plan([slow, other, quick], PREPARATION)
    alone = expected_seconds(quick, PREPARATION)
    assert time_left.seconds() == pytest.approx(2 * expected_seconds(slow, PREPARATION) + alone)
    time_left.start(slow.key)
    now[0] = 30.0
    time_left.update(slow.key, {"step": 10, "steps": 40, "train_seconds": 20.0})  # 30 + 60 in all
    pace = 90 / expected_seconds(slow, PREPARATION)
    assert time_left.seconds() == pytest.approx(60 + 90 + alone * pace)
    time_left.end(slow.key, ok=False)
    assert time_left.seconds() == pytest.approx(expected_seconds(other, PREPARATION) + alone)
    time_left.start(quick.key)
    now[0] += 10.0
    time_left.end(quick.key, ok=True)
    assert time_left.seconds() == pytest.approx(10 / alone * expected_seconds(other, PREPARATION))


def test_time_left_is_at_least_that_of_the_longest_active_run(tiny_recipe: Path) -> None:
    (run, _), now = runs(tiny_recipe), [0.0]
    time_left = TimeLeft(workers=4, clock=lambda: now[0])
    time_left.plan([run], PREPARATION)
    time_left.start(run.key)
    now[0] = 40.0
    time_left.update(run.key, {"step": 20, "steps": 40, "train_seconds": 30.0})
    assert time_left.seconds() == 30.0


def test_time_left_is_at_least_that_of_the_longest_waiting_run(tiny_recipe: Path) -> None:
    (run, _), now = runs(tiny_recipe), [0.0]
    time_left = TimeLeft(workers=4, clock=lambda: now[0])
    time_left.plan([run], PREPARATION)
    assert time_left.seconds() == pytest.approx(expected_seconds(run, PREPARATION))


def test_a_plan_of_one_run_has_one_at_a_time(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))
    (method,), (run, _) = chosen_methods(recipe, ["lora"]), runs(tiny_recipe)
    text = plan_text([RunGroup(recipe, method, (run,))], {"tiny": PREPARATION}, {}, 4)
    assert "1 run, 1 at a time" in text


def test_progress_writes_a_line_per_start_and_end_to_a_file(tiny_recipe: Path) -> None:
    display, (first, _) = RecordingDisplay(0), runs(tiny_recipe)
    progress = Progress(display, workers=1, clock=lambda: 0.0)
    progress.plan([first], PREPARATION)
    progress(Event(first))
    progress(Event(first, news=STEP))
    progress(Event(first, record=finished(first)))
    started, ended = display.lasting
    assert re.fullmatch(r"\[0/1, \d+ s left\] tiny-full-seed0: started", started)
    assert ended.startswith("[1/1] tiny-full-seed0: accuracy 0.900")
    assert display.live == ()


@pytest.mark.parametrize(("columns", "live", "lasting"), [(79, 2, 0), (0, 0, 1)])
def test_estimates_are_one_line(columns: int, live: int, lasting: int) -> None:
    display, seen = RecordingDisplay(columns), list[tuple[str, ...]]()
    progress = Progress(display, workers=1, clock=lambda: 0.0)
    for ended, name in enumerate(["tiny-full", "tiny-lora"]):
        progress.show_estimates(ended, 2, name)
        seen += [display.live] if display.live else []
    assert len(seen) == live
    if live:
        assert seen[-1] == ("estimating method 2 of 2: tiny-lora (Ctrl-C leaves the rest out)",)
    assert len(display.lasting) == lasting
    if lasting:
        assert "estimating 2 methods" in display.lasting[0]


def test_progress_shows_how_many_runs_wait_for_a_machine(tiny_recipe: Path) -> None:
    display, (first, second) = RecordingDisplay(79), runs(tiny_recipe)
    progress = Progress(display, workers=2, clock=lambda: 0.0)
    progress.show_preparation(first.recipe, "slurm")
    assert display.live == (
        "tiny: reading data and model through slurm, where this may wait its turn",
    )
    progress.plan([first, second], PREPARATION)
    progress(Event(first, waits=True))
    progress(Event(second, waits=True))
    assert display.live[0].startswith("0 of 2 runs done · 0 active · 2 waiting for a machine · ")
    progress(Event(first))
    assert display.live[0].startswith("0 of 2 runs done · 1 active · 1 waiting for a machine · ")
    progress(Event(second, record=record_without_result(second, "failed", "why")))
    assert "waiting" not in display.live[0]


def test_progress_writes_to_a_file_that_a_run_waits(tiny_recipe: Path) -> None:
    display, (first, _) = RecordingDisplay(0), runs(tiny_recipe)
    progress = Progress(display, workers=1, clock=lambda: 0.0)
    progress.plan([first], PREPARATION)
    progress(Event(first, waits=True))
    (line,) = display.lasting
    assert line.endswith("tiny-full-seed0: waits for a machine")


def test_fitted_keeps_the_most_important_parts_in_a_narrow_terminal() -> None:
    parts = ["epoch 1/2", "step 3/20", "37.4/s"]
    assert fitted("tiny-lora-seed0", parts, 45) == "tiny-lora-seed0  epoch 1/2  step 3/20  37.4/s"
    assert fitted("tiny-lora-seed0", parts, 39) == "tiny-lora-seed0  epoch 1/2  step 3/20"
    assert (
        fitted("embedded-adapter_fusion-seed10", parts, 39)
        == "embedded-adap…_fusion-seed10  epoch 1/2"
    )


@given(
    st.text(st.characters(categories=["L", "N"]), max_size=60),
    st.lists(st.text("ab", min_size=1, max_size=9), max_size=5),
    st.integers(1, 90),
)
def test_fitted_line_is_never_wider_than_the_terminal(
    name: str, parts: list[str], width: int
) -> None:
    assert len(fitted(name, parts, width)) <= width


def test_display_is_not_live_in_ci_even_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert can_be_live(terminal=True)
    assert not can_be_live(terminal=False)
    monkeypatch.setenv("CI", "true")
    assert not can_be_live(terminal=True)


LIVE_TEST = """
import pytest
from peft_methods.cli.terminal import progress_display

@pytest.mark.parametrize("number", [1, 2])
def test_it(request, number):
    display = progress_display(request.config)
    if display.columns:
        assert display.columns == 59
        display.draw(["head", "cell"])
    display.say(f"lasting {number}")
    display.hand_over()
"""


@pytest.mark.parametrize(
    ("arguments", "environment", "wanted"),
    [
        ([], {}, "test_it.py \nlasting 1\ntest_it.py .\nlasting 2\ntest_it.py ."),
        (["-v"], {}, "test_it.py::test_it[1] \nlasting 1\ntest_it.py::test_it[1] PASSED"),
        ([], {"TERM": "dumb"}, "test_it.py \nlasting 1\n.\n"),
    ],
    ids=["by letters", "by names", "without live lines"],
)
def test_live_lines_do_not_break_the_lines_of_pytest(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], wanted: str
) -> None:
    (tmp_path / "test_it.py").write_text(LIVE_TEST, encoding="utf-8")
    (tmp_path / "pytest.ini").touch()
    with Terminal(tmp_path, arguments, environment) as terminal:
        assert terminal.finish() == 0
    screen = str(terminal.screen)
    assert wanted in screen, screen
    assert "\x1b" not in screen
    assert "\nhead" not in screen


def test_many_active_runs_are_shown_and_counted(tiny_recipe: Path) -> None:
    display, (run, _) = RecordingDisplay(80), runs(tiny_recipe)
    progress = Progress(display, workers=20, clock=lambda: 0.0)
    active = [replace(run, seed=seed) for seed in range(20)]
    progress.plan(active, PREPARATION)
    for one in active:
        progress(Event(one))
    assert len(display.live) == 18
    assert display.live[-1] == "and 4 more"


def test_time_left_counts_the_gpus_that_are_left(tiny_recipe: Path) -> None:
    display, (run, _) = RecordingDisplay(80), runs(tiny_recipe)
    progress = Progress(display, workers=2, clock=lambda: 0.0)
    progress.plan([replace(run, seed=seed) for seed in range(4)], PREPARATION)
    before = progress._time.seconds()
    progress(Event(run, failed="its GPU failed", workers=1))
    assert progress._time.seconds() == pytest.approx(2 * before)


def test_remarks_come_before_anything_is_trained() -> None:
    display = RecordingDisplay(0)
    Progress(display, workers=1).announce(["GPU-a is left out"])
    assert display.lasting == ["peft-methods: GPU-a is left out"]


def test_session_of_several_methods_begins_with_its_plan(tiny_recipe: Path) -> None:
    display, groups = RecordingDisplay(0), groups_of(tiny_recipe, "lora", "ia3", "head_only")
    groups = longest_first(groups, {"tiny": PREPARATION}, 2)
    progress = Progress(display, workers=2, clock=lambda: 0.0)
    first = groups[0].runs[0]
    progress(Event(first, record=replace(ok(first, 0.9), reused=True)))
    for group in groups:
        progress.plan(group.runs, PREPARATION)
    display.lasting.clear()
    progress.announce_plan(groups)
    assert display.lasting == [
        "peft-methods: 5 runs (1 more reused) of 3 methods, 2 at a time, about 18 s, corrected as "
        "runs finish",
        "peft-methods: the longest first: LoRA, IA3, Head only",
    ]
    display.lasting.clear()
    progress.announce_plan(groups, gpus=4)
    assert "about 18 s (0.02 GPU hours), corrected" in display.lasting[0]
    display.lasting.clear()
    progress.announce_tuning(9, groups)
    assert display.lasting == [
        "peft-methods: tuning comes first, with 9 trials for each of 3 methods; the plan of the "
        "runs follows."
    ]
    display.lasting.clear()
    progress.announce_plan(groups[:1])
    progress.announce_tuning(9, groups[:1])
    assert not display.lasting


def test_plan_of_many_methods_names_the_first_and_the_last(tiny_recipe: Path) -> None:
    names = ("full", "lora", "qlora", "ia3", "adapter", "bitfit", "head_only")
    groups = groups_of(tiny_recipe, *names)
    named = "Full fine-tuning, Head only, BitFit, LoRA, …, Bottleneck adapter"
    assert order_of(groups) == named
