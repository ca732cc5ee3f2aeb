"""What a task remarks on the data is shown, and quality is named as the task names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builders import make_record
from peft_methods.api import PrintableComparison
from peft_methods.report.paper.setup import setup
from peft_methods.report.paper.study import studies_of
from peft_methods.report.text.notes import notes, remarks_on_data
from peft_methods.runs.record import Record

NOTE = "The tags are IO; they were converted to BIO."


def tagged_record(method: str) -> Record:
    """A record of token classification."""
    plain = make_record(method)
    recipe = replace(
        plain.spec.recipe,
        task="token_classification",
        data=replace(plain.spec.recipe.data, select_by="entity_f1"),
    )
    figures: dict[str, Any] = {
        name: value for name, value in plain.metrics.items() if name not in {"accuracy", "macro_f1"}
    }
    counts = {"train": [300, 100, 0], "validation": [60, 15, 0], "test": [100, 400, 0]}
    return replace(
        plain,
        spec=replace(plain.spec, recipe=recipe),
        metrics={**figures, "entity_f1": 0.61 if method == "full" else 0.5},
        data={
            **plain.data,
            "majority": None,
            "trivial_baseline": {"entity_f1": 0.0},
            "class_counts": counts,
            "source_counts": {split: [10_000, 100, 0] for split in counts},
            "label_names": ["O", "B-PER", "I-PER"],
            "notes": [NOTE],
        },
    )


def test_the_table_has_the_remarks_once_and_names_the_metric() -> None:
    comparison = PrintableComparison((tagged_record("full"), tagged_record("lora")))
    lines = [note.text for note in notes(comparison)]
    assert lines.count(f"Data: {NOTE}") == 1
    assert lines[0].startswith("Entity F1 in %, mean ± standard deviation")
    assert "Accuracy" not in "".join(lines)
    assert remarks_on_data([make_record()]) == []


def test_rules_on_classes_do_not_fire_for_rows_without_a_class() -> None:
    comparison = PrintableComparison((tagged_record("full"), tagged_record("lora")))
    assert not {one.rule for one in comparison.findings()} & {
        "V101",
        "V102",
        "V105",
        "V108",
        "V301",
    }


def test_the_paper_has_the_remarks_and_no_rows_per_class() -> None:
    comparison = PrintableComparison((tagged_record("full"), tagged_record("lora")))
    text = "\n".join(setup(studies_of(comparison, {})))
    assert "The tags are IO" in text
    assert "with three labels (O, B-PER, and I-PER)" in text
    assert "Rows per class" not in text
