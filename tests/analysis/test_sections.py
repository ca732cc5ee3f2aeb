"""Grouping records of many sessions into sections: runs of one row differ only in the seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import CPU_AND_WEIGHTS, changed_record, unregistered
from peft_methods.analysis.sections import Section, group_records
from peft_methods.runs.record import Record


def named(sections: list[Section]) -> dict[str, list[str]]:
    return {
        one.name: [f"{r.method_name}{r.seed}" for r in one.comparison.records] for one in sections
    }


def test_gather_makes_one_section_of_one_session_in_registry_order() -> None:
    records = [
        changed_record(method, seed) for method in ("lora", "full", "ia3") for seed in (1, 0)
    ]
    (section,) = group_records(records)
    assert named([section]) == {"embedded": ["full0", "full1", "lora0", "lora1", "ia30", "ia31"]}
    assert section.differences == ()


def test_gather_separates_different_settings_and_lists_them() -> None:
    epochs = [(("budget", "epochs"), 4)]
    old = [changed_record(method, finished=1.0) for method in ("full", "lora")]
    new = [
        changed_record(method, torch="2.13.0", changed=epochs, finished=2.0)
        for method in ("full", "lora")
    ]
    first, second = group_records([*new, *old])
    assert (first.name, second.name) == ("embedded", "embedded (2)")
    assert second.differences == ("budget.epochs 2 → 4", "torch 2.11.0 → 2.13.0")


def test_gather_separates_another_rank_into_another_section() -> None:
    records = [
        changed_record("full"),
        changed_record("lora"),
        changed_record("lora", changed=[(("method", "rank"), 4)], finished=2.0),
    ]
    sections = group_records(records)
    assert named(sections) == {"embedded": ["full0", "lora0"], "embedded (2)": ["lora0"]}
    assert sections[1].differences == ("lora.rank 8 → 4",)


def test_gather_accepts_4_bit_weights_but_separates_other_weights() -> None:
    four_bit = changed_record(
        "qlora",
        environment={**CPU_AND_WEIGHTS, "packages": {"torch": "2.11.0"}, "weights_sha256": "q"},
    )
    assert len(group_records([changed_record("full"), four_bit])) == 1
    other = changed_record(
        "full",
        finished=2.0,
        environment={**CPU_AND_WEIGHTS, "packages": {"torch": "2.11.0"}, "weights_sha256": "other"},
    )
    assert group_records([changed_record("full"), other])[1].differences == ("weights w → other",)


def test_gather_keeps_the_newest_finished_record_of_a_run() -> None:
    crashed = changed_record(
        "lora", finished=3.0, status="crashed", environment={}, data={}, fingerprint="crashed"
    )
    older, newer = changed_record("lora", finished=1.0), changed_record("lora", finished=2.0)
    (section,) = group_records([newer, crashed, older])
    assert section.comparison.records == (newer,)


def test_gather_puts_a_run_that_never_started_with_its_session() -> None:
    before, after = (
        changed_record("full", finished=1.0),
        changed_record("full", torch="2.13.0", finished=100.0),
    )
    failed = changed_record(
        "lora", finished=99.0, status="failed", environment={}, data={}, message="no"
    )
    assert named(group_records([failed, before, after])) == {
        "embedded": ["full0"],
        "embedded (2)": ["full0", "lora0"],
    }


def test_gather_keeps_a_run_that_fell_back_with_its_session() -> None:
    finished = changed_record("full")
    finished = replace(finished, spec=replace(finished.spec, engine="cuda_graphs"))
    fell_back = changed_record("lora")
    spec = replace(fell_back.spec, engine="trainer", fallback_from="cuda_graphs")
    fell_back = replace(fell_back, spec=spec)
    assert len(group_records([finished, fell_back])) == 1


def test_gather_keeps_prerequisite_runs_with_their_runs_and_drops_trials() -> None:
    fusion = changed_record("adapter_fusion")
    source = replace(
        changed_record("adapter"), spec=fusion.spec.prerequisites[0], fingerprint="source"
    )
    trial = replace(
        changed_record("lora"),
        spec=replace(changed_record("lora").spec, role="trial"),
        fingerprint="trial",
    )
    first, second = group_records(
        [fusion, source, trial, changed_record("full", torch="2.13.0", finished=2.0)]
    )
    assert first.comparison.records == (fusion, source)
    assert not any(record.role != "main" for record in second.comparison.records)


def test_gather_keeps_the_row_of_an_unregistered_method() -> None:
    record = changed_record("lora")
    other = replace(record, spec=unregistered("<b>", record.spec), fingerprint="unregistered")
    (section,) = group_records([other, changed_record("full")])
    assert [row.title for row in section.comparison.rows()] == ["Full fine-tuning", "<b>"]


records_of_runs = st.builds(
    changed_record,
    st.sampled_from(["full", "lora", "qlora"]),
    st.integers(0, 2),
    torch=st.sampled_from(["2.11.0", "2.13.0"]),
    changed=st.sampled_from(
        [(), ((("budget", "epochs"), 4),), ((("method", "learning_rate"), 0.5),)]
    ),
    finished=st.floats(1, 9),
    status=st.sampled_from(["ok", "failed"]),
)


@settings(max_examples=40)
@given(st.lists(records_of_runs, max_size=12), st.randoms())
def test_gather_keeps_exactly_one_record_of_every_run(records: list[Record], random: Any) -> None:
    sections = group_records(records)
    shown = [record for section in sections for record in section.comparison.records]

    def run(record: Record) -> tuple[str, str]:
        return str(record.spec), record.environment["packages"]["torch"]

    assert sorted(map(run, shown)) == sorted(set(map(run, records)))
    for section in sections:
        rows = [(record.method_name, record.seed) for record in section.comparison.records]
        assert len(rows) == len(set(rows))
        assert (
            len(
                {
                    (str(r.spec.recipe_settings()), r.environment["packages"]["torch"])
                    for r in section.comparison.records
                }
            )
            == 1
        )
    random.shuffle(records)
    assert [one.comparison.records for one in group_records(records)] == [
        one.comparison.records for one in sections
    ]
