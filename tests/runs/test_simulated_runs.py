"""The scheduler's invariants, on a simulated cluster whose runs fail in every way."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_record
from peft_methods.runs.events import Event
from peft_methods.runs.prepared import PreparedRecipe
from peft_methods.runs.progress.display import Lines
from peft_methods.runs.progress.progress import MOST_LINES, Progress
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from simulated_runs import FATES, MAY_PASS, Cluster, SimulatedRun, simulated, spec

TEMPLATE = make_record().spec
HOSTS, GPUS = 2, 4
PREPARED = PreparedRecipe(
    {"class_counts": {"train": (80, 80), "validation": (15, 15), "test": (25, 25)}}, {}, 0.01, 1.0
)


@st.composite
def workloads(draw: st.DrawFn) -> list[SimulatedRun]:
    """Runs with prerequisites among earlier ones, of any need that a host meets."""
    found: list[SimulatedRun] = []
    for number in range(draw(st.integers(1, 14))):
        places = st.sets(st.integers(0, max(0, number - 1)), max_size=min(2, number))
        needed = [found[place].spec for place in sorted(draw(places))]
        found.append(
            SimulatedRun(
                spec(number, TEMPLATE, needed, draw(st.integers(1, GPUS))),
                draw(st.sampled_from([0.5, 1.0, 3.0, 7.0])),
                tuple(draw(st.lists(st.sampled_from(FATES), min_size=1, max_size=3))),
            )
        )
    return found


class Log:
    """What a scheduler's watcher sees."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()
        self.ends: list[str] = []

    def __call__(self, event: Event) -> None:
        if event.record is not None:
            self.records[event.run.key] += 1
            self.ends.append(event.run.key)
        self.retried[event.run.key] += bool(event.failed)


def drive(
    runs: list[SimulatedRun], *, retries: int = 1, prefetch: int = 0
) -> tuple[Cluster, Log, list[Record]]:
    """Run everything; return the cluster, what happened, and the records."""
    by_seed = {run.spec.seed: run for run in runs}
    cluster, log = Cluster(HOSTS, GPUS, by_seed, prefetch_limit=prefetch), Log()
    with TemporaryDirectory() as folder:
        scheduler = simulated(Path(folder), cluster, retries=retries, timeout=30.0)
        scheduler.watch(log)
        wanted: list[RunSpec] = [run.spec for run in runs]
        scheduler.submit(wanted)
        records = scheduler.wait(wanted)
        assert scheduler.warnings == []
        scheduler.close()
    return cluster, log, records


@settings(max_examples=60, deadline=None)
@given(workloads(), st.integers(0, 2), st.sampled_from([0, 3]))
def test_every_run_ends_once_after_its_prerequisites_and_within_its_retries(
    runs: list[SimulatedRun], retries: int, prefetch: int
) -> None:
    cluster, log, records = drive(runs, retries=retries, prefetch=prefetch)
    assert [record.spec.seed for record in records] == [run.spec.seed for run in runs]
    assert set(log.records.values()) == {1}
    assert all(count <= retries for count in log.retried.values())
    assert max((start.gpus_in_use for start in cluster.started), default=0) <= HOSTS * GPUS
    status = {record.seed: record.status for record in records}
    for run, record in zip(runs, records, strict=True):
        failed = [one for one in run.spec.prerequisites if status[one.seed] != "ok"]
        starts = sum(start.seed == run.spec.seed for start in cluster.started)
        if failed:
            assert record.status == "failed"
            assert "its prerequisite run" in record.message
            assert starts == 0
            continue
        if record.status != "ok" and set(run.fates) <= set(MAY_PASS):
            assert log.retried[run.spec.key] == retries
        assert 1 <= starts <= (1 + ("engine" in run.fates)) * (1 + log.retried[run.spec.key])


@given(st.lists(st.integers(1, GPUS), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_runs_with_equal_needs_start_in_the_order_in_which_they_were_submitted(
    needs: list[int],
) -> None:
    runs = [SimulatedRun(spec(number, TEMPLATE, gpus=gpus)) for number, gpus in enumerate(needs)]
    cluster, _, _ = drive(runs)
    for gpus in set(needs):
        seeds = [start.seed for start in cluster.started if needs[start.seed] == gpus]
        assert seeds == [run.spec.seed for run in runs if run.gpus == gpus]


def test_retried_run_starts_after_all_others() -> None:
    runs = [
        SimulatedRun(spec(0, TEMPLATE, gpus=GPUS), fates=("killed", "ok")),
        *(SimulatedRun(spec(number, TEMPLATE, gpus=GPUS)) for number in range(1, 6)),
    ]
    cluster, _, records = drive(runs)
    assert [record.status for record in records] == ["ok"] * 6
    assert records[0].attempts == ()  # a worker writes them: the job had them
    assert [start.seed for start in cluster.started] == [0, 1, 2, 3, 4, 5, 0]


def test_run_that_needs_a_whole_host_is_not_starved_by_small_ones() -> None:
    """It becomes ready when every GPU is in use, and small runs end one after the other."""
    first = SimulatedRun(spec(0, TEMPLATE), seconds=0.5)
    big = SimulatedRun(spec(1, TEMPLATE, [first.spec], GPUS))
    small = [
        SimulatedRun(spec(number, TEMPLATE), seconds=1 + number % 7 / 7) for number in range(2, 400)
    ]
    cluster, _, records = drive([first, big, *small])
    assert {record.status for record in records} == {"ok"}
    place = [start.seed for start in cluster.started].index(big.spec.seed)
    assert place <= 3 * HOSTS * GPUS


def test_hanging_run_ends_with_a_timeout_and_frees_its_place() -> None:
    runs = [
        SimulatedRun(spec(number, TEMPLATE, gpus=GPUS), fates=("hanging",)) for number in range(3)
    ]
    cluster, _, records = drive(runs)
    assert [record.status for record in records] == ["timeout"] * 3
    assert cluster.started[2].time == pytest.approx(30, abs=1.1)
    assert cluster.time == pytest.approx(60, abs=2.2)


def test_failed_prerequisite_ends_everything_that_depends_on_it() -> None:
    first = SimulatedRun(spec(0, TEMPLATE), fates=("failed",))
    second = SimulatedRun(spec(1, TEMPLATE, [first.spec]))
    third = SimulatedRun(spec(2, TEMPLATE, [second.spec]))
    _, log, records = drive([third, second, first])
    assert [record.status for record in records] == ["failed"] * 3
    assert log.ends == [run.spec.key for run in (first, second, third)]


def test_many_runs_write_few_lines_a_second_and_count_the_rest() -> None:
    runs = [
        SimulatedRun(spec(number, TEMPLATE), seconds=0.5, fates=("failed",) if number == 7 else ())
        for number in range(200)
    ]
    runs = [replace(run, fates=run.fates or ("ok",)) for run in runs]
    lines: list[str] = []
    cluster = Cluster(HOSTS, GPUS, {run.spec.seed: run for run in runs})
    with TemporaryDirectory() as folder:
        scheduler = simulated(Path(folder), cluster)
        progress = Progress(Lines(lines.append), workers=8, clock=lambda: cluster.time)
        scheduler.watch(progress)
        progress.plan([run.spec for run in runs], PREPARED)
        scheduler.submit([run.spec for run in runs])
        with progress.showing():
            scheduler.wait([run.spec for run in runs])
        scheduler.close()
    about_runs = [line for line in lines if "more line" not in line]
    counts = [int(found[1]) for line in lines if (found := re.search(r"(\d+) more line", line))]
    assert len(about_runs) <= MOST_LINES * (cluster.time + 1)
    assert len(about_runs) + sum(counts) == 2 * len(runs)
    assert lines[-1].startswith("[200/200]")
