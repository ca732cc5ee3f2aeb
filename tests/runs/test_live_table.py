"""The comparison as it fills: in terminals of every size, in a notebook, and after an interrupt."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from progress_builders import PREPARATION, fill, groups_of, ok
from terminal_builders import Screen, Terminal

from builders import BENCHMARK
from peft_methods.runs.events import Event
from peft_methods.runs.plan import RunGroup
from peft_methods.runs.progress.display import LiveLines
from peft_methods.runs.progress.live import Live, TableRow, text_of
from peft_methods.runs.progress.notebook import NotebookTable
from peft_methods.runs.progress.progress import Progress
from peft_methods.runs.record import record_without_result


def in_terminal(
    groups: Sequence[RunGroup], width: int = 79, height: int = 30
) -> tuple[Progress, Screen]:
    screen, now = Screen(), iter(range(10**6))
    display = LiveLines(screen.write, lambda: os.terminal_size((width + 1, height)))
    progress = Progress(display, workers=2, clock=lambda: float(next(now)), groups=groups)
    progress.plan([run for group in groups for run in group.runs], PREPARATION)
    return progress, screen


def test_the_table_fills_while_runs_end(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full", "lora")
    progress, screen = in_terminal(groups)
    first, _ = groups[0].runs
    progress(Event(first))
    assert "Full fine-tuning   0/2         –           –            –" in str(screen)
    fill(progress, groups)
    done, head, *rows, active = str(screen).splitlines()[-5:]
    assert done.startswith("3 of 4 runs done · 1 active · ")
    assert done.endswith(" left")
    assert [head, *rows] == [
        "Method                     Runs    Accuracy  Train time  Peak memory",
        "Full fine-tuning            2/2  85.0 ± 7.1      13.0 s      310 MiB",
        "LoRA              1/2, 1 failed           –           –            –",
    ]
    assert active == "tiny-lora-seed1  starting"


def test_reused_and_refused_runs_are_in_the_table(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full", "lora")
    progress, screen = in_terminal(groups)
    for run in groups[1].runs:
        progress.without_result(record_without_result(run, "skipped", "does not fit"))
    for run in groups[0].runs:
        progress(Event(run, record=replace(ok(run, 0.9), reused=True)))
    progress.leave()
    assert str(screen).splitlines()[-2:] == [
        "Full fine-tuning             2/2  90.0 ± 0.0      12.5 s      300 MiB",
        "LoRA              2/2, 2 skipped           –           –            –",
    ]


def test_runs_that_tune_or_come_before_others_are_not_in_the_table(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full")
    progress, screen = in_terminal(groups)
    run = groups[0].runs[0]
    progress(Event(replace(run, role="trial", trial="trial1")))
    progress(Event(replace(run, role="trial", trial="trial1"), record=ok(run, 0.9)))
    progress(Event(replace(run, role="prerequisite")))
    assert "Full fine-tuning   0/2         –           –            –" in str(screen)


def test_added_seeds_are_expected_too(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full")
    progress, screen = in_terminal(groups)
    progress.expect([groups[0].with_seeds(5)])
    progress(Event(groups[0].runs[0]))
    assert "Full fine-tuning   0/5 " in str(screen)


def test_without_quality_there_is_no_column_for_it(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full", settings=["model.weights=random"])
    progress, screen = in_terminal(groups)
    progress(Event(groups[0].runs[0]))
    assert "Method            Runs  Train time  Peak memory" in str(screen)


def test_several_recipes_are_named_and_their_metrics_too(
    tiny_recipe: Path, tagged_recipe: Path
) -> None:
    groups = [*groups_of(tiny_recipe, "full"), *groups_of(tagged_recipe, "full")]
    progress, screen = in_terminal(groups, 100)
    for group, metric in zip(groups, ("accuracy", "entity_f1"), strict=True):
        run = group.runs[0]
        record = ok(run, 0.9)
        progress(Event(run))
        progress(Event(run, record=replace(record, metrics={**record.metrics, metric: 0.75})))
    rows = str(screen).splitlines()[-3:]
    assert "Score" in rows[0]
    assert rows[1].startswith("tiny: Full fine-tuning     1/2   75.0 accuracy")
    assert rows[2].startswith("tagged: Full fine-tuning   1/1  75.0 entity F1")


def live_of(methods: int, active: int) -> Live:
    rows = [
        TableRow((f"Method {n}", f"{n}/9", "85.0 ± 7.1", "13.0 s", "310 MiB"), n % 7)
        for n in range(methods)
    ]
    return Live(
        "3 of 4 runs done",
        ("1 active", "2 min left"),
        ("Method", "Runs", "Accuracy", "Train time", "Peak memory"),
        tuple(rows),
        tuple((f"recipe-method-seed{n}", ("epoch 1/2", "step 3/20")) for n in range(active)),
    )


@given(st.integers(0, 30), st.integers(0, 16), st.integers(1, 120), st.integers(1, 40))
def test_the_state_fits_every_screen(methods: int, active: int, width: int, height: int) -> None:
    lines = text_of(live_of(methods, active), width, height)
    assert 1 <= len(lines) <= height
    assert max(map(len, lines)) <= width
    if height >= 1 + methods + 1 + active:
        assert len(lines) == 1 + (1 + methods if methods else 0) + active


def test_columns_are_left_out_from_the_last_and_the_newest_rows_are_kept() -> None:
    wide, middle, narrow = (text_of(live_of(3, 1), width) for width in (80, 40, 14))
    assert wide[1] == "Method    Runs    Accuracy  Train time  Peak memory"
    assert middle[1] == "Method    Runs    Accuracy  Train time"
    assert narrow[1] == "Method    Runs"
    low = [line.split("  ")[0] for line in text_of(live_of(20, 6), 80, 12)]
    shown = (4, 5, 6, 12, 13, 19)
    assert low[1:9] == ["Method", *(f"Method {n}" for n in shown), "and 14 more methods"]
    assert [line.split("-")[-1] for line in low[9:]] == ["seed0", "seed1", "seed2"]


# the end


def interrupted(progress: Progress, action: Callable[[], None]) -> None:
    with progress.showing():
        action()
        raise KeyboardInterrupt


def test_an_interrupt_leaves_the_table_once(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full", "lora")
    progress, screen = in_terminal(groups)
    with pytest.raises(KeyboardInterrupt):
        interrupted(progress, lambda: fill(progress, groups))
    left = str(screen)
    assert "tiny-lora-seed1  starting" not in left
    assert left.splitlines()[-4:] == [
        "3 of 4 runs done",
        "Method                     Runs    Accuracy  Train time  Peak memory",
        "Full fine-tuning            2/2  85.0 ± 7.1      13.0 s      310 MiB",
        "LoRA              1/2, 1 failed           –           –            –",
    ]
    progress.leave()
    assert str(screen) == left
    last = groups[1].runs[1]
    progress(Event(last, record=ok(last, 0.7)))
    progress.leave()
    assert "LoRA              2/2, 1 failed        70.0      12.5 s      300 MiB" in str(screen)


def test_an_interrupt_before_any_result_leaves_nothing(tiny_recipe: Path) -> None:
    groups = groups_of(tiny_recipe, "full")
    progress, screen = in_terminal(groups)
    with pytest.raises(KeyboardInterrupt):
        interrupted(progress, lambda: progress(Event(groups[0].runs[0])))
    assert str(screen) == ""


SESSION = """
import sys, time
sys.path[:0] = {paths!r}
from progress_builders import PREPARATION, fill, groups_of
from peft_methods.cli.terminal import progress_display
from peft_methods.runs.progress.progress import Progress

def test_it(request):
    groups = groups_of({recipe!r}, "full", "lora")
    progress = Progress(progress_display(request.config), workers=2, groups=groups)
    progress.plan([run for group in groups for run in group.runs], PREPARATION)
    with progress.showing():
        fill(progress, groups)
        for _ in range({waits}):
            time.sleep(0.05)
"""


def session(folder: Path, recipe: Path, *arguments: str, waits: int = 0, **how: Any) -> Terminal:
    paths = [str(Path(__file__).parent.parent)]
    text = SESSION.format(paths=paths, recipe=str(recipe), waits=waits)
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    (folder / "pytest.ini").touch()
    return Terminal(folder, arguments, {}, **how)


@pytest.mark.parametrize(
    ("arguments", "columns", "wanted"),
    [
        (["-s", "--color=no"], 56, "Full fine-tuning            2/2  85.0 ± 7.1      13.0 s"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                (
                    ["-v"],
                    80,
                    "Full fine-tuning            2/2  85.0 ± 7.1      13.0 s      310 MiB",
                ),
                ([], 40, "Full fine-tuning            2/2"),
                (["-q"], 80, ""),
                (["-p", "xdist.plugin", "-n", "1"], 80, ""),
            )
        ),
    ],
    ids=["not captured", "by names", "narrow", "quiet", "xdist"],
)
def test_the_table_in_a_terminal_of_pytest(
    arguments: list[str], columns: int, wanted: str, tmp_path: Path, tiny_recipe: Path
) -> None:
    with session(tmp_path, tiny_recipe, *arguments, size=(columns, 24)) as terminal:
        assert terminal.finish() == 0
    drawn = terminal.written
    assert (f"\n{wanted}\r\n" in drawn) if wanted else "Full fine-tuning" not in drawn, drawn
    assert not re.search(r"\x1b\[[\d;]*m.*(Method|LoRA)", drawn), "no colours"
    assert "Full fine-tuning" not in str(terminal.screen), "the session ended as it should"


def test_ctrl_c_in_a_terminal_leaves_the_finished_part(tmp_path: Path, tiny_recipe: Path) -> None:
    with session(tmp_path, tiny_recipe, waits=1000, size=(80, 24)) as terminal:
        terminal.until("1/2, 1 failed")
        terminal.type("\x03")
        assert terminal.finish() == pytest.ExitCode.INTERRUPTED
    screen = str(terminal.screen)
    assert (
        "3 of 4 runs done\n"
        "Method                     Runs    Accuracy  Train time  Peak memory\n"
        "Full fine-tuning            2/2  85.0 ± 7.1      13.0 s      310 MiB\n"
        "LoRA              1/2, 1 failed           –           –            –\n"
    ) in screen, screen
    assert "tiny-lora-seed1  starting" not in screen


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["accuracy 0.", "tiny-lora-seed1"])
def test_two_interrupts_of_a_real_session_leave_the_finished_part(
    moment: str, tmp_path: Path, tiny_recipe: Path
) -> None:
    (tmp_path / "test_finetune.py").write_text(BENCHMARK.read_text(encoding="utf-8"))
    (tmp_path / "pytest.ini").touch()
    options = ["--peft-method=lora", "--peft-seeds=60", "--peft-workers=1"]
    arguments = [f"--peft-recipe={tiny_recipe}", *options]
    with Terminal(tmp_path, arguments, {}, size=(80, 24)) as terminal:
        terminal.until("accuracy 0.")
        terminal.until(moment)
        for _ in range(2):
            terminal.type("\x03")
            time.sleep(0.05)
        assert terminal.finish() == pytest.ExitCode.INTERRUPTED
    screen = str(terminal.screen)
    assert re.search(r"\d+ of 60 runs done\nMethod  Runs", screen), screen
    assert re.search(r"\nLoRA    +\d+/60  +\d", screen), screen


# notebooks


def test_a_notebook_has_one_table_that_is_updated(tiny_recipe: Path) -> None:
    groups, bundles = groups_of(tiny_recipe, "full", "lora"), list[dict[str, str]]()
    created: list[int] = []

    def create(bundle: dict[str, str]) -> Any:
        created.append(1)
        bundles.append(bundle)
        return bundles.append

    progress = Progress(
        NotebookTable(create), workers=2, clock=iter(range(999)).__next__, groups=groups
    )
    progress.plan([run for group in groups for run in group.runs], PREPARATION)
    progress.show_activity("tiny: reading data and model")
    with progress.showing():
        fill(progress, groups)
        assert "tiny-lora-seed1  starting" in bundles[-1]["text/html"]
    assert len(created) == 1
    assert "tiny: reading data and model" in bundles[0]["text/plain"]
    html, markdown = bundles[-1]["text/html"], bundles[-1]["text/markdown"]
    assert "<td>Full fine-tuning</td><td>2/2</td><td>85.0 ± 7.1</td>" in html
    assert "<td>LoRA</td><td>1/2, 1 failed</td>" in html
    assert "tiny-lora-seed0: failed: no &lt;good&gt;|reason" in html
    assert "starting" not in html, "no run is active any more"
    assert "accuracy 0.900" not in html, "the table has the ends that are as expected"
    assert "| Full fine-tuning | 2/2 | 85.0 ± 7.1 | 13.0 s | 310 MiB |" in markdown
    assert "failed: no &lt;good>\\|reason" in markdown


NOTEBOOK = """
from peft_methods.api import compare
done = compare({recipe!r}, methods=["head_only", "ia3"], seeds=2, settings=["budget.epochs=1"])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Jupyter's own packages
def test_a_real_notebook_shows_the_table_while_it_trains(tiny_recipe: Path, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(NOTEBOOK.format(recipe=str(tiny_recipe)))]
    )
    updates: list[str] = []

    class Watching(NotebookClient):
        def process_message(self, message: Any, *arguments: Any) -> Any:
            if message["msg_type"] in {"display_data", "update_display_data"}:
                updates.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, *arguments)

    resources = {"metadata": {"path": str(tmp_path)}}
    Watching(notebook, timeout=280, resources=resources).execute()
    (output,) = (one for one in notebook.cells[0].outputs if one.output_type == "display_data")
    assert "4 of 4 runs done" in output.data["text/html"]
    assert "<td>IA3</td><td>2/2</td>" in output.data["text/html"]
    assert any("active" in one and "0/2" in one for one in updates)
    assert not any("accuracy 0." in str(one) for one in notebook.cells[0].outputs)
