"""What a recorded program needs on a GPU: its events, replayed through a model of the allocator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from peft_methods.estimation.memory.allocator import CachingAllocator
from peft_methods.estimation.memory.program import RecordedProgram
from peft_methods.profiling.peak_memory import Event, Owners, blocks_at_peak, bytes_by_part


@dataclass(frozen=True)
class Level:
    """The peaks of a phase in bytes: of live blocks, of what was asked for, and of segments."""

    allocated: int
    requested: int
    reserved: int


@dataclass(frozen=True)
class SimulatedMemory:
    """The peaks of "load", "train" and "evaluate", and the parts of that of "train"."""

    phases: Mapping[str, Level]
    parts: Mapping[str, int]


def simulate(program: RecordedProgram, limit: int | None = None) -> SimulatedMemory:
    """Replay a program: load, a step that creates optimizer state, a second one, an evaluation.

    The second step is the first without the blocks that stay. Raises `OutOfFakeMemory` if `limit`
    bytes do not hold the segments.
    """
    events, starts = program.recording.events, program.starts
    loaded, held = events[: starts["hold"]], events[starts["hold"] : starts["step"]]
    step = events[starts["step"] : starts["evaluate"]]
    again = list(_again(step, program.owners))
    allocator, places = CachingAllocator(limit), dict[int, int]()
    phases = {"load": _run([*loaded, *held], allocator, places)}
    allocator.reset_peaks()
    _run(step, allocator, places)
    phases["train"] = _run(again, allocator, places)
    allocator.release_cached()  # as torch does where memory is short
    allocator.reset_peaks()
    phases["evaluate"] = _run(events[starts["evaluate"] :], allocator, places)
    return SimulatedMemory(phases, _parts(program, again))


def _run(events: Sequence[Event], allocator: CachingAllocator, places: dict[int, int]) -> Level:
    """Allocate and free. Return the peaks since they were last reset."""
    for event in events:
        if event.size:
            places[event.address] = allocator.allocate(event.size)
        elif event.address in places:
            allocator.free(places.pop(event.address))
    return Level(allocator.peak_allocated, allocator.peak_requested, allocator.peak_reserved)


def _again(step: Sequence[Event], owners: Owners) -> Iterator[Event]:
    """Yield a step's events with other addresses, without the blocks that the first one keeps.

    Gradients that are still there from the first step are added to, and freed with that.
    """
    made = {event.address for event in step if event.size} - owners.optimizer_state
    kept = made & set(owners.last_gradient) - {event.address for event in step if not event.size}
    added: Event | None = None
    for event in step:
        if event.address not in made:
            continue
        yield replace(event, address=-event.address)
        if added is not None and event.size:
            yield replace(added, address=-added.address, size=0)
            added = None
        if event.size and event.address in kept:
            added = event
    if added is not None:
        yield replace(added, address=-added.address, size=0)


def _parts(program: RecordedProgram, again: Sequence[Event]) -> dict[str, int]:
    """Return the parts of the peak of the second step."""
    start = program.starts["step"]
    live: dict[int, int] = {}
    for event in program.recording.events[: program.starts["evaluate"]]:
        if event.size:
            live[event.address] = event.size
        else:
            live.pop(event.address, None)
    own = program.owners
    made = {event.address: n for n, event in enumerate(again) if event.size}
    owners = Owners(
        weights=own.weights,
        optimizer_state=own.optimizer_state,
        workspace=own.workspace,
        last_gradient={-a: made[-a] for a in own.last_gradient if -a in made},
        backward_done=own.backward_done - start,
    )
    return bytes_by_part(blocks_at_peak(live, again), owners)
