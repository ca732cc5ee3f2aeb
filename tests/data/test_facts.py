"""Facts about the data that the checks use, and the core share of a thread."""

from __future__ import annotations

import time
from pathlib import Path

from builders import TASK, make_rows, write_csv
from peft_methods.data import splits
from peft_methods.data.facts import DataFacts
from peft_methods.profiling.memory import ResidentMemory
from peft_methods.profiling.phases import PhaseMeter, ThreadTime
from peft_methods.recipes.schema import DataSpec


def facts_of(folder: Path) -> DataFacts:
    return splits.load(DataSpec(source=str(folder), train=40, validation=10, test=10), TASK).facts


def test_load_mixes_a_sorted_source_and_keeps_its_class_shares(tmp_path: Path) -> None:
    rows = sorted(make_rows(200), key=lambda row: str(row["label"]))
    facts = facts_of(write_csv(tmp_path, train=rows[30:170], test=[*rows[:30], *rows[170:]]))
    assert facts.source_counts == {"train": (70, 70), "validation": (70, 70), "test": (30, 30)}
    assert facts.class_counts["train"] == (20, 20)
    assert facts.label_runs["train"] > 2
    assert facts.source_label_runs == {"train": 2, "validation": 2, "test": 2}
    assert facts.contradictory == 0


def test_load_counts_a_contradictory_text_once_despite_case_and_spaces(tmp_path: Path) -> None:
    rows = make_rows(100)
    train = [
        *rows[:80],
        {**rows[0], "label": 1 - int(str(rows[0]["label"]))},
        {"text": f" {str(rows[1]['text']).upper()}", "label": 0},
    ]
    facts = facts_of(write_csv(tmp_path, train=train, test=rows[80:]))
    assert (facts.texts, facts.contradictory) == (100, 2 if rows[1]["label"] == 1 else 1)


def test_thread_time_is_near_zero_while_the_thread_waits() -> None:
    meter = PhaseMeter(ResidentMemory(), sensors={"busy": ThreadTime()})
    meter.enter("load")
    time.sleep(0.2)
    meter.enter("train")
    sum(range(10_000))
    meter.enter(None)
    waited = meter.total("busy", "load")
    assert waited is not None
    assert waited < 0.1
    assert 0 <= (meter.total("busy", "train") or 0.0) <= meter.seconds("train") + 0.05
