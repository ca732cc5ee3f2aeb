"""Each rule finds its planted fault and nothing else, in real records and in a sound table."""

from __future__ import annotations

import copy
import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit_faults import ROW_FAULTS

from builders import TABLES, make_record, on_a_gpu
from peft_methods.analysis import checks
from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.external.audit import DEFAULTS, audit_rows, check_table
from peft_methods.analysis.external.tables import read_tables
from peft_methods.api import compare
from peft_methods.runs.record import Record

# Metrics that depend on how busy the machine is.
TIMING = {"train_seconds": 1.0, "step_p95_seconds": 0.02, "busy_share": 1.0}
GPU = {
    "other_processes": [],
    "throttle_reasons": ["power cap"],
    "memory_total_bytes": 80 * 2**30,
    "sm_clock_mhz": 1980,
}


def on(state: dict[str, Any]) -> dict[str, Any]:
    """Return the GPU readings of a record, with this state after the run."""
    return {"before": GPU, "after": {**GPU, **state}}


# Facts about generated texts.
WRITTEN = {"mean_tokens": 9.0, "stopped": 1.0, "answered": 1.0, "empty": 0.0, "rows": 50.0}
DIVERGED = (0.693, 0.685, 1.9, 2.4)


def wrote(loss: float, exact_match: float) -> list[tuple[str, str, Any]]:
    """Changes that turn LoRA into a language model; untrained its loss was 2, its score 0.1."""
    return [
        ("lora", "spec.recipe.task", "causal_lm"),
        ("lora", "spec.recipe.data.rank_by", "exact_match"),
        ("lora", "spec.recipe.expect.margin_over_majority", 0.0),
        ("lora", "data.trivial_baseline", {"token_loss": 2.0, "exact_match": 0.1}),
        ("lora", "metrics.token_loss", loss),
        ("lora", "metrics.exact_match", exact_match),
    ]


# Rule -> changes in real records: (method, dotted path, value), for all seeds. `method/0` changes
# seed 0 only.
FAULTS: dict[str, list[tuple[str, str, Any]]] = {
    "V101": [("lora", "data.class_counts.test", [50, 0])],
    "V102": [
        ("lora", "data.class_counts", {"train": [80, 70, 10], "test": [25, 25, 0]}),
        ("lora", "data.source_counts", {}),
    ],
    "V103": [("lora", "data.removed.train_also_in_test", 2)],
    "V104": [("lora", "data.overlap.test.within", 0.53)],
    "V105": [("lora", "data.source_counts.train", [200, 40])],
    "V106": [("lora", "data.contradictory", 5)],
    "V107": [("lora", "data.truncated.train", 0.5)],
    "V108": [("lora", "data.source_label_runs.train", 2)],
    "V109": [
        ("lora", "spec.recipe.data.sizes", "at_most"),
        ("lora", "data.drawn_from.test", "train"),
    ],
    "V110": [("lora", "data.merged_labels", {"spam": ["Spam"]})],
    "V201": [("lora", "evidence.frozen_changed", ["bert.x"])],
    "V202": [("lora", "evidence.unmoved", ["lora_A"])],
    "V203": [("lora", "evidence.expected_trainable", 1)],
    "V204": [("lora", f"epochs.{e}.train_loss", loss) for e, loss in enumerate(DIVERGED)],
    "V205": [("qlora", "evidence.head_quantized", 1)],
    "V206": [("lora", "metrics.method_parameters", 0)],
    "V207": [("qlora", "evidence.quantized", 0)],
    "V208": [
        *(("full", f"epochs.{epoch}.validation_loss", 0.5) for epoch in range(4)),
        *(("full", f"epochs.{epoch}.validation_accuracy", 0.9) for epoch in range(4)),
        ("full", "metrics.validation_accuracy", 0.9),
    ],
    "V301": [("lora", "data.majority", 1.0)],
    "V302": [("lora", "epochs.0.validation_loss", float("nan"))],
    "V303": [("lora", "metrics.accuracy", 1.0)],
    "V304": [("lora", "metrics.validation_accuracy", 0.123)],
    "V305": [("lora", "spec.recipe.expect.margin_over_majority", 0.01)],
    "V306": [("full", f"epochs.{epoch}.validation_loss", 9.0 - epoch) for epoch in range(4)],
    "V401": [("lora", "environment.gpu", on({"other_processes": [4711]}))],
    "V402": [("lora", "environment.gpu", on({"throttle_reasons": ["hardware thermal"]}))],
    "V403": [
        ("lora", "environment.gpu", on({})),
        ("lora", "metrics.train_reserved_bytes", 78.0 * 2**30),
    ],
    "V404": [("lora", "metrics.unattributed_bytes", 2.0**30)],
    "V405": [("lora", "environment.engine_note", "no graph could be captured")],
    "V406": [
        ("lora", "environment.memory_kind", "resident set above the level before, never reset")
    ],
    "V407": [("lora", "environment.memory_before_bytes", 2**30)],
    "V408": [("full/0", "metrics.train_seconds", 0.5)],
    "V409": [("lora", "epochs.0.peak_memory_bytes", 2.0**40)],
    "V410": [("lora", "metrics.step_p95_seconds", 0.001)],
    "V411": [("lora", "metrics.busy_share", 0.3)],
    "V412": [
        ("lora", "environment.gpu", on({})),
        ("qlora", "environment.gpu", on({"sm_clock_mhz": 1200})),
    ],
    "V413": [
        (method, "environment.engine_note", "it captures encoders alone")
        for method in ("full", "qlora", "lora")
    ],
    "V426": [
        ("lora", "spec.device", "cuda"),
        ("lora", "predicted", {f"{name}_memory_bytes": 2**40 for name in ("low", "peak", "high")}),
    ],
    "V414": [
        ("lora", "environment.isolation", {
            "repeated": {"run": "lora-seed1", "differences": ["a loss", "a peak"]},
        }),
    ],
    "V415": [("lora", "environment.isolation", {"left_behind": ["a hook"]})],
    "V416": [("lora", "metrics.scaling_efficiency", 1.6)],
    "V501": [("lora", "spec.recipe.model.weights", "random")],
    "V502": [("lora", "spec.recipe.budget.batch_size", 4)],
    "V503": [("lora", "data.fingerprint", "another")],
    "V504": [("lora", "spec.method.learning_rate", 4e-3)],
    "V505": [("lora", "environment.packages.torch", "2.6.0")],
    "V508": [("lora/1", "environment.device_name", "NVIDIA H100")],
    "V506": [("qlora", "metrics.train_seconds", 0.3)],
    "V507": [("lora", "spec.recipe.budget.vary", ["initialisation"])],
    "V601": [("lora", "quality.generation", {**WRITTEN, "stopped": 0.1})],
    "V602": [
        *((one, "spec.recipe.data.answer_pattern", "(.+)") for one in ("full", "qlora", "lora")),
        ("lora", "quality.generation", {**WRITTEN, "answered": 0.2}),
    ],
    "V603": [("lora", "quality.generation", {**WRITTEN, "empty": 0.6})],
    "V604": wrote(loss=1.5, exact_match=0.0),
}  # fmt: skip

# Rule -> changes in the sound table: (method, column, text).
TABLE_FAULTS: dict[str, list[tuple[str, str, str]]] = {
    "V203": [("IA3", "trainable_parameters", "1.30M")],
    "V204": [("LoRA", "train_losses", "0.69;0.70;0.69")],
    "V205": [("QLoRA", "trainable_parameters", "296,450")],
    "V206": [("LoRA", "trainable_parameters", "592,130")],
    "V208": [
        ("LoRA", "validation_losses", "0.1711;0.1712;0.1711"),
        ("LoRA", "validation_accuracies", "0.9460;0.9460;0.9460"),
    ],
    "V209": [("LoRA", "learning_rates", "1e-3;3e-3")],
    "V210": [("LoRA", "validation_accuracies", "0.91;0.92;0.9460")],
    "V302": [("LoRA", "train_losses", "0.2;nan;nan")],
    "V303": [("Adapters", "accuracy", "1.0")],
    "V304": [("LoRA", "validation_accuracy", "0.94")],
    "V305": [("LoRA", "accuracy", "0.9511")],
    "V306": [("LoRA", "accuracy", "0.85")],
    "V406": [("QLoRA", "peak_memory_mb", "12000.5")],
    "V408": [("LoRA", "train_seconds", "1503.9 ± 400")],
    "V409": [("IA3", "max_memory_mb", "9999")],
    "V502": [("LoRA", "epochs", "2")],
    "V503": [("LoRA", "data", "sst2")],
    "V504": [("LoRA", "learning_rate", "2e-5"), ("LoRA", "learning_rates", "")],
    "V505": [("LoRA", "torch", "2.6.0")],
    "V506": [("QLoRA", "train_seconds", "300")],
}


def test_planted_faults_cover_every_rule() -> None:
    assert {*FAULTS, *TABLE_FAULTS, *ROW_FAULTS} == set(RULES)


@pytest.fixture(scope="session")
def sound(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    """Real records of three methods with two seeds each, and the times of an idle machine."""
    results = tmp_path_factory.mktemp("sound")
    comparison = compare(
        str(tiny_recipe),
        methods=["full", "lora", "qlora"],
        settings=["budget.epochs=4"],
        results=results,
        progress=False,
    )
    assert [record.status for record in comparison.records] == ["ok"] * 6
    return tuple(
        changed(record, [(f"metrics.{name}", value) for name, value in TIMING.items()])
        for record in comparison.records
    )


def changed(record: Record, changes: Sequence[tuple[str, Any]]) -> Record:
    """Return a copy of the record with the values at the dotted paths replaced."""
    values = copy.deepcopy(record.to_json())
    for path, value in changes:
        *parents, last = path.split(".")
        place: Any = values
        for step in parents:
            place = place[int(step) if step.isdecimal() else step]
        place[int(last) if last.isdecimal() else last] = value
    return Record.from_json(values)


def test_rules_find_nothing_in_sound_records(sound: tuple[Record, ...]) -> None:
    """Except that four epochs on toy sentences still improve and are perfect on fifty rows."""
    assert {finding.rule for finding in checks.run_checks(sound)} <= {"V210", "V303"}


def test_real_records_hold_the_values_that_rules_need(sound: tuple[Record, ...]) -> None:
    for record in sound:
        evidence = record.evidence
        assert evidence.head_parameters == record.metrics["head_parameters"]
        assert ((evidence.quantized or 0) > 0, evidence.head_quantized) == (
            record.method_name == "qlora",
            0,
        )
        assert record.data["source_counts"] == {
            "train": (120, 120),
            "validation": (120, 120),
            "test": (30, 30),
        }
        assert (record.data["texts"], record.data["contradictory"]) == (300, 0)
        assert record.environment["memory_before_bytes"] is None  # there is no GPU


def is_explained(finding: Finding) -> bool:
    """Whether one of the rule's own texts for `explain`, if it has any, is this evidence."""
    texts = RULES[finding.rule].evidence
    patterns = [".+".join(map(re.escape, text.split("…"))) for text in texts]
    return not texts or any(re.search(pattern, finding.evidence) for pattern in patterns)


@pytest.mark.parametrize("rule", list(FAULTS))
def test_rule_finds_only_its_own_fault_in_real_records(
    rule: str, sound: tuple[Record, ...]
) -> None:
    wanted: dict[str, list[tuple[str, Any]]] = {}
    for target, path, value in FAULTS[rule]:
        wanted.setdefault(target, []).append((path, value))
    faulty = [
        changed(r, wanted.get(f"{r.method_name}/{r.seed}", []) + wanted.get(r.method_name, []))
        for r in sound
    ]
    findings = checks.run_checks(faulty)
    assert all(map(is_explained, findings))
    found = {(f.rule, f.subject) for f in findings} - {
        (f.rule, f.subject) for f in checks.run_checks(sound)
    }
    assert {rule for rule, _ in found} - {"V303", "V210"} | {rule} == {rule}
    assert all(FAULTS[rule][-1][0].split("/")[0] in subject for _, subject in found)
    assert rule in {rule for rule, _ in found}


def with_fault(rule: str, path: Path) -> tuple[ResultRow, ...]:
    """Return the rows of the sound table with the rule's fault planted."""
    with (TABLES / "sound.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for method, column, text in TABLE_FAULTS[rule]:
        next(row for row in rows if row["method"] == method)[column] = text
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return read_tables(path)[0].rows


@pytest.mark.parametrize("rule", list(TABLE_FAULTS))
def test_rule_is_silent_and_not_applied_without_a_field_that_it_needs(
    rule: str, tmp_path: Path
) -> None:
    rows = with_fault(rule, tmp_path / "faulty.csv")
    assert rule in audit_rows(rows).applied
    derived = {"method", "architectures", "total_parameters"}  # from names and counts
    for fields in itertools.product(*RULES[rule].needs):
        if derived.isdisjoint(fields):
            blank = {name: DEFAULTS[name] for name in fields}
            audit = audit_rows([replace(row, **blank) for row in rows])
            assert rule not in {finding.rule for finding in audit.findings}
            assert rule not in audit.applied


@pytest.mark.parametrize("rule", list(TABLE_FAULTS))
def test_rule_finds_only_its_own_fault_in_a_table(rule: str, tmp_path: Path) -> None:
    rows = with_fault(rule, tmp_path / "faulty.csv")
    found = check_table(rows)
    assert [finding.rule for finding in found] == [rule]
    assert "→" in str(found[0])
    assert is_explained(found[0])
    assert check_table(rows, [rule]) == []


def overlapping(**shares: float) -> list[str]:
    data = {
        "majority": 0.5,
        "removed": {"train_part_of_validation": 9},
        "overlap": {"validation": {"within": 0.0, "around": 0.0, **shares}},
    }
    return [str(finding) for finding in checks.run_checks([make_record(data=data)])]


def test_v104_reports_overlap_above_one_percent() -> None:
    assert overlapping(within=0.01, around=0.01) == []
    (finding,) = overlapping(around=0.02)
    assert finding.startswith(
        "V104 warning embedded-lora-seed0: 0.0% of the validation texts lie within a train text, "
        "2.0% contain a train text"
    )


def found_on(*accuracies: float) -> list[tuple[str, str]]:
    records = [
        make_record(seed=seed, metrics={"accuracy": accuracy})
        for seed, accuracy in enumerate(accuracies)
    ]
    return [(finding.rule, finding.subject) for finding in checks.run_checks(records)]


def test_v301_checks_the_margin_for_every_seed() -> None:
    assert found_on(0.75, 0.7) == []
    assert found_on(0.75, 0.51) == [("V301", "embedded-lora-seed1")]
    assert found_on(0.5) == [("V301", "embedded-lora-seed0")]


def test_v408_shows_a_spread_below_one_second() -> None:
    records = [
        make_record(seed=seed, metrics={"train_seconds": seconds})
        for seed, seconds in enumerate((0.21, 0.29))
    ]
    (found,) = (finding for finding in checks.run_checks(records) if finding.rule == "V408")
    assert found.evidence == "0.25 ± 0.06 s over the seeds, a deviation of 23%"


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_v302_names_the_first_of_several_non_finite_losses(loss: float) -> None:
    epochs = tuple(
        {"epoch": epoch, "train_loss": 0.5 if epoch == 1 else loss, "validation_loss": loss}
        for epoch in (1, 2, 3)
    )
    (found,) = checks.run_checks([make_record(epochs=epochs)])
    assert (found.rule, found.evidence) == ("V302", f"validation_loss of epoch 1 is {loss}")


def test_v302_reports_a_test_set_that_was_not_scored() -> None:
    """Even if every loss was finite, and only the logits of a test row overflow."""
    (found,) = checks.run_checks([make_record(metrics={"accuracy": None})])
    assert (found.rule, found.evidence) == (
        "V302",
        "its logits for the test rows are not finite, so it was not scored",
    )


def test_v402_reports_seconds_of_thermal_slowdown() -> None:
    found = checks.run_checks([make_record(**on_a_gpu(metrics={"thermal_slowdown_seconds": 2.0}))])
    assert [finding.rule for finding in found] == ["V402"]
    assert "2.0 s" in found[0].evidence


def test_v301_exempts_head_only() -> None:
    assert (
        checks.run_checks([make_record(), make_record("head_only", metrics={"accuracy": 0.4})])
        == []
    )


def test_v406_reports_equal_peaks_of_two_methods_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,memory_mb\nLoRA,2413.7\nIA3,2413.7\nBitFit,2413\n", encoding="utf-8"
    )
    (found,) = check_table(read_tables(tmp_path / "t.csv")[0].rows)
    assert (found.rule, found.subject) == ("V406", "LoRA, IA3")
    # Three equal digits may be chance.
    (tmp_path / "t.csv").write_text("method,memory_gb\nLoRA,3.24\nIA3,3.24\n", encoding="utf-8")
    assert check_table(read_tables(tmp_path / "t.csv")[0].rows) == []


def test_v410_compares_the_training_time_of_a_table_with_its_step_times(tmp_path: Path) -> None:
    text = "method,train time,step time,epochs,steps per epoch\nLoRA,10 min,100 ms,3,{}\n"
    for steps, rules in ((2000, []), (1000, ["V410"])):
        (tmp_path / "t.csv").write_text(text.format(steps), encoding="utf-8")
        assert [
            finding.rule for finding in check_table(read_tables(tmp_path / "t.csv")[0].rows)
        ] == rules


def test_v101_checks_the_class_counts_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "method,accuracy,train_class_counts\nLoRA,0.9,500;0\n", encoding="utf-8"
    )
    assert [finding.rule for finding in check_table(read_tables(tmp_path / "t.csv")[0].rows)] == [
        "V101"
    ]


def test_v405_reports_the_share_of_a_methods_runs_that_fell_back(
    sound: tuple[Record, ...],
) -> None:
    """With no other method, too: its mean time is of two engines."""
    first, *others = (record for record in sound if record.method_name == "lora")
    note = {**first.environment, "engine_note": "no graph could be captured"}
    found = checks.run_checks([replace(first, environment=note), *others])
    (finding,) = [one for one in found if one.rule in {"V405", "V413"}]
    assert finding.rule == "V405"
    assert "50% of its runs: no graph could be captured" in finding.evidence


def test_silenced_rule_finds_nothing(sound: tuple[Record, ...]) -> None:
    faulty = [changed(record, [("metrics.accuracy", 0.4)]) for record in sound]
    assert "V301" in {finding.rule for finding in checks.run_checks(faulty)}
    assert "V301" not in {finding.rule for finding in checks.run_checks(faulty, ["V301"])}
