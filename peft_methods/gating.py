"""The gate within a pytest run: what each benchmark hears of it, what is said and decided at the end, and writing baselines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from peft_methods.gate import Gate, Judgement
    from peft_methods.records import Record

UNSAVED = "the baseline was not written: "
ENDED_EARLY = (
    "Nothing was judged and no baseline written: the run was ended before all was trained."
)
BAD = ("gate: ", UNSAVED)  # how a line begins that fails the run


def finish(
    session: pytest.Session, records: Iterable[Record], gate: Gate | None, places: dict[str, Path]
) -> list[str]:
    """At the end of a run: what only the end shows is judged, baselines are written; the lines that say so.

    A run whose tests passed fails all the same where a line is bad.
    """
    lines = gate_lines(gate, records) if gate is not None else []
    bad = sum(line.startswith(BAD) for line in lines)
    if places:
        lines += save_baselines(session.config, places, session.testsfailed or bad)
    if session.exitstatus == 0 and any(line.startswith(BAD) for line in lines):
        session.exitstatus = 1
    return lines


def judged_at_the_end(gate: Gate, records: Iterable[Record]) -> Judgement:
    """All that the gate has to say, each method's own judgement first."""
    from peft_methods.gate import together

    records = [record for record in records if not record.is_source]
    methods: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        methods.setdefault((record.recipe_name, record.method_name), []).append(record)
    return together(
        [*(gate.judge(of_one) for of_one in methods.values()), gate.judge_together(records)]
    )


def gate_lines(gate: Gate, records: Iterable[Record]) -> list[str]:
    """What stands under the table: against what was judged and how, notes (one line for all of whom the same is said), problems."""
    records = list(records)
    judgement, lines = judged_at_the_end(gate, records), []
    first = {record.recipe_name: record for record in reversed(records) if not record.is_source}
    for recipe, record in first.items():
        if recipe in gate.baselines:
            tolerances = ", ".join(map(str, gate.tolerances_for(record)))
            lines.append(
                f"{recipe}: judged against {gate.baselines[recipe]}; tolerances {tolerances}"
            )
    count = len(
        {(record.recipe_name, record.method_name) for record in records if not record.is_source}
    )
    lines += [f"{who}: {'; '.join(what)}" for who, what in _grouped(judgement.notes, count)]
    lines += [
        f"{who}: differs from the baseline: {'; '.join(what)}"
        for who, what in _grouped(judgement.differing, count)
    ]
    return [
        *lines,
        *(judgement.problems or ["Nothing is worse beyond its tolerance and what seeds explain."]),
    ]


def _grouped(said: Iterable[tuple[str, str]], count: int) -> list[tuple[str, list[str]]]:
    """(about whom, what) -> one entry for all that is said about the same methods; about all `count` of them: every method."""
    who_of: dict[str, list[str]] = {}
    for who, what in said:
        who_of.setdefault(what, []).append(who)
    grouped: dict[str, list[str]] = {}
    for what, names in who_of.items():
        grouped.setdefault("every method" if len(names) == count else ", ".join(names), []).append(
            what
        )
    return list(grouped.items())


def save_baselines(config: pytest.Config, places: dict[str, Path], failed: int) -> list[str]:
    """Write this run's figures to each place, and say so. A run in which anything failed is none to hold later runs to."""
    from peft_methods.baseline import write_baseline
    from peft_methods.store import StoreError

    if failed:
        return [f"{UNSAVED}{failed} failed, and a baseline is what later runs are held to."]
    document = _document(config)
    lines = []
    for path in dict.fromkeys(places.values()):
        recipes = {recipe for recipe, place in places.items() if place == path}
        kept = [one for one in document["benchmarks"] if one["extra_info"].get("recipe") in recipes]
        if not kept:
            lines.append(
                f"{UNSAVED}{path} would hold nothing, no benchmark of {', '.join(sorted(recipes))} gave figures."
            )
            continue
        try:
            write_baseline(path, {**document, "benchmarks": kept})
        except StoreError as error:
            lines.append(f"{UNSAVED}{error}")
        else:
            reused = sum(len(one["extra_info"].get("reused", ())) for one in kept)
            lines.append(
                f"baseline written: {path} ({len(kept)} methods{f', {reused} cells of an earlier run' if reused else ''})"
            )
    return lines


def _document(config: pytest.Config) -> dict[str, Any]:
    """This run as pytest-benchmark writes it with `--benchmark-json`, made by its own hooks."""
    session: Any = config._benchmarksession  # type: ignore[attr-defined]
    if not session.benchmarks:
        return {"benchmarks": []}
    document: dict[str, Any] = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=session.benchmarks,
        include_data=True,
        machine_info=session.get_machine_info(),
        commit_info=config.hook.pytest_benchmark_generate_commit_info(config=config),
    )
    return document
