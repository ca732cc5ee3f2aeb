"""Records of many runs in sections: in a row nothing differs but the seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import CPU_AND_WEIGHTS as CPU
from builders import changed_record as record_of
from peft_methods.gathering import Section, gather
from peft_methods.records import Record


def named(sections: list[Section]) -> dict[str, list[str]]:
    return {
        one.name: [f"{r.method_name}{r.seed}" for r in one.comparison.records] for one in sections
    }


def test_one_run_is_one_section_in_the_order_of_the_registry() -> None:
    records = [record_of(method, seed) for method in ("lora", "full", "ia3") for seed in (1, 0)]
    (section,) = gather(records)
    assert named([section]) == {"embedded": ["full0", "full1", "lora0", "lora1", "ia30", "ia31"]}
    assert section.apart == ()


def test_what_differs_stands_apart_and_is_said() -> None:
    epochs = [(("budget", "epochs"), 4)]
    old = [record_of(method, finished=1.0) for method in ("full", "lora")]
    new = [
        record_of(method, torch="2.13.0", changed=epochs, finished=2.0)
        for method in ("full", "lora")
    ]
    first, second = gather([*new, *old])
    assert (first.name, second.name) == ("embedded", "embedded (2)")
    assert second.apart == ("budget.epochs 2 → 4", "torch 2.11.0 → 2.13.0")


def test_another_rank_is_another_row_in_another_section() -> None:
    records = [
        record_of("full"),
        record_of("lora"),
        record_of("lora", changed=[(("method", "rank"), 4)], finished=2.0),
    ]
    sections = gather(records)
    assert named(sections) == {"embedded": ["full0", "lora0"], "embedded (2)": ["lora0"]}
    assert sections[1].apart == ("lora.rank 8 → 4",)


def test_four_bit_weights_are_no_other_setting_but_other_weights_are() -> None:
    four_bit = record_of(
        "qlora", environment={**CPU, "packages": {"torch": "2.11.0"}, "weights_sha256": "q"}
    )
    assert len(gather([record_of("full"), four_bit])) == 1
    other = record_of(
        "full",
        finished=2.0,
        environment={**CPU, "packages": {"torch": "2.11.0"}, "weights_sha256": "other"},
    )
    assert gather([record_of("full"), other])[1].apart == ("weights w → other",)


def test_of_two_records_of_a_cell_the_finished_one_counts_and_then_the_newer() -> None:
    crashed = record_of(
        "lora", finished=3.0, status="crashed", environment={}, data={}, identity="crashed"
    )
    older, newer = record_of("lora", finished=1.0), record_of("lora", finished=2.0)
    (section,) = gather([newer, crashed, older])
    assert section.comparison.records == (newer,)


def test_a_cell_that_never_ran_stands_with_the_run_that_it_was_part_of() -> None:
    before, after = (
        record_of("full", finished=1.0),
        record_of("full", torch="2.13.0", finished=100.0),
    )
    failed = record_of(
        "lora", finished=99.0, status="failed", environment={}, data={}, message="no"
    )
    assert named(gather([failed, before, after])) == {
        "embedded": ["full0"],
        "embedded (2)": ["full0", "lora0"],
    }


def test_a_cell_that_the_other_engine_took_over_stays_with_its_run() -> None:
    graphed = record_of("full")
    graphed = replace(graphed, cell={**graphed.cell, "engine": "graphed"})
    fallen = record_of("lora")
    fallen = replace(fallen, environment={**fallen.environment, "engine_note": "no graph of that"})
    assert len(gather([graphed, fallen])) == 1


def test_sources_go_where_their_cells_go_and_trials_nowhere() -> None:
    fusion = record_of("adapter_fusion")
    source = replace(
        record_of("adapter"), cell=fusion.cell["stages"][0], is_source=True, identity="source"
    )
    trial = replace(
        record_of("lora"),
        cell={**record_of("lora").cell, "trial": True},
        is_source=True,
        identity="trial",
    )
    first, second = gather([fusion, source, trial, record_of("full", torch="2.13.0", finished=2.0)])
    assert first.comparison.records == (fusion, source)
    assert not any(record.is_source for record in second.comparison.records)


def test_a_method_that_is_not_registered_here_keeps_its_row() -> None:
    strange = record_of("lora")
    strange = replace(
        strange,
        cell={**strange.cell, "method": {"name": "<b>", "learning_rate": 0.1}},
        identity="strange",
    )
    (section,) = gather([strange, record_of("full")])
    assert [row.title for row in section.comparison.rows()] == ["Full fine-tuning", "<b>"]


cells = st.builds(
    record_of,
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
@given(st.lists(cells, max_size=12), st.randoms())
def test_every_record_stands_once_or_gave_way_to_one_of_its_cell(
    records: list[Record], random: Any
) -> None:
    sections = gather(records)
    shown = [record for section in sections for record in section.comparison.records]
    cell = lambda record: (str(record.cell), record.environment["packages"]["torch"])
    assert sorted(map(cell, shown)) == sorted(set(map(cell, records)))
    for section in sections:
        rows = [(record.method_name, record.seed) for record in section.comparison.records]
        assert len(rows) == len(set(rows))
        assert (
            len(
                {
                    (str(r.cell["recipe"]), r.environment["packages"]["torch"])
                    for r in section.comparison.records
                }
            )
            == 1
        )
    random.shuffle(records)
    assert [one.comparison.records for one in gather(records)] == [
        one.comparison.records for one in sections
    ]
