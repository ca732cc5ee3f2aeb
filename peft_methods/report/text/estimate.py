"""Estimates as text: a table of methods, the parts of their peaks, ways to fit, explanations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from peft_methods.estimation.api import Estimates
from peft_methods.estimation.fitting import needed_bytes
from peft_methods.estimation.results import (
    Fit,
    Interval,
    MemoryEstimate,
    MethodEstimate,
    TimeEstimate,
    Way,
)
from peft_methods.report.formatting import MISSING, between, millions, size
from peft_methods.report.text.layout import Layout
from peft_methods.utils.units import format_duration
from peft_methods.utils.words import counted

BAR = 32  # characters of the bar of the largest peak
SIGNS = {
    "weights": "W",
    "gradients": "G",
    "optimizer": "O",
    "activations": "A",
    "workspace": "K",
    "rounding": "R",
    "other": "x",
}
SHOWN_AS = {"optimizer_state": "optimizer"}
PHASES = {"load": "loading", "train": "training", "evaluate": "evaluation"}
MOST_NAMES = 6  # methods that are named in one sentence
BASES = {
    "probe": "from the rates that were probed on this device",
    "datasheet": "from the datasheet of the device, so with wide intervals",
    "records": "from stored records of this device",
}


def estimates_text(estimates: Estimates, width: int | None = None) -> str:
    """Format estimates: tables at most `width` characters wide, and prose below them."""
    layout = Layout(width=width, is_wrapped=True)
    known = [one for one in estimates if one.memory is not None]
    parts = [
        layout.prose(estimates.heading),
        *layout.tables(*_main_table(estimates)),
        "\n".join(layout.prose(line) for line in _basis(known)),
        "\n".join(layout.prose(line) for line in _problems(estimates)),
        *_peaks(known, layout),
        "\n".join(layout.prose(line) for line in _ways(known)),
        "\n".join(layout.prose(line) for line in _explanations(known)),
        "\n".join(layout.prose(f"note: {line}") for line in estimates.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _main_table(estimates: Sequence[MethodEstimate]) -> tuple[list[str], list[list[str]]]:
    """Return headings and a row for each method. Columns without any value are left out."""
    columns = [
        ("Trainable", _trainable),
        ("Peak", _peak),
        ("GPU needs", _needed),
        ("Fits", lambda one: one.fit.verdict if one.fit else MISSING),
        ("Largest\nbatch", lambda one: _most(one.fit, "batch")),
        ("Largest\nlength", lambda one: _most(one.fit, "length")),
        ("Epoch", lambda one: _seconds(one.time, "epoch_seconds")),
        ("Training", lambda one: _seconds(one.time, "train_seconds")),
        ("Energy", _energy),
        ("Checkpoint", lambda one: size(one.checkpoint_bytes) if one.memory else MISSING),
    ]
    lines = [[one.title, *(cell(one) for _, cell in columns)] for one in estimates]
    shown = [
        at for at in range(len(columns) + 1) if at < 3 or any(line[at] != MISSING for line in lines)
    ]
    headings = ["Method", *(name for name, _ in columns)]
    return [headings[at] for at in shown], [[line[at] for at in shown] for line in lines]


def _trainable(one: MethodEstimate) -> str:
    if one.memory is None or not one.total:
        return MISSING
    return f"{millions(one.trainable)} ({one.trainable / one.total:.2%})"


def _peak(one: MethodEstimate) -> str:
    return MISSING if one.memory is None else between(one.memory.allocated)


def _needed(one: MethodEstimate) -> str:
    return MISSING if one.memory is None else f"≤{size(needed_bytes(one.memory))}"


def _most(fit: Fit | None, name: str) -> str:
    if fit is None:
        return MISSING
    found, most = getattr(fit, f"largest_{name}"), getattr(fit, f"most_{name}")
    if not found:
        return "none"
    return f"≥{found:,}" if name == "batch" and found >= most else f"{found:,}"


def _seconds(time: TimeEstimate | None, name: str) -> str:
    if time is None:
        return MISSING
    interval: Interval = getattr(time, name)
    expected = interval.expected
    margin = max(interval.high - expected, expected - interval.low) / expected if expected else 0
    return f"{format_duration(expected)} ±{margin:.0%}"


def _energy(one: MethodEstimate) -> str:
    energy = None if one.time is None else one.time.energy
    return MISSING if energy is None else f"{energy.expected / 3600:,.3g} Wh"


def _basis(known: Sequence[MethodEstimate]) -> Iterator[str]:
    if not known:
        return
    yield (
        "Peak: allocated in training, with the range expected to hold 95 % of runs. GPU needs: "
        "the upper end for all that it must have, with what torch reserves and the CUDA context."
    )
    bases = {one.time.basis for one in known if one.time is not None}
    for basis in sorted(bases):
        yield f"Times are {BASES[basis]}; training alone, without evaluations."
    if any(one.fit is not None and one.fit.verdict == "unsure" for one in known):
        yield "unsure: the memory of the GPU is within the range; it may run out."


def _problems(estimates: Sequence[MethodEstimate]) -> Iterator[str]:
    """Yield a line for each reason why there is no estimate, with all methods that have it."""
    reasons: dict[str, list[str]] = {}
    for one in estimates:
        if one.memory is None:
            reasons.setdefault(one.problem, []).append(one.title)
    for reason, titles in reasons.items():
        yield f"{', '.join(titles)}: no estimate: {reason}"


def _peaks(known: Sequence[MethodEstimate], layout: Layout) -> Iterator[str]:
    """Yield the peaks of the phases, the parts of that of training, and bars of them."""
    shown = [(one.title, _shown_parts(one)) for one in known]
    names = [name for name in SIGNS if any(parts[name] for _, parts in shown)]
    if not shown:
        return
    peaks = [[one.title, *_phase_peaks(one.memory)] for one in known if one.memory is not None]
    yield from layout.tables(["Peak of", *PHASES.values()], peaks)
    lines = [[title, *(size(parts[name]) for name in names)] for title, parts in shown]
    yield from layout.tables(["Parts of training", *names], lines)
    most = max(sum(parts.values()) for _, parts in shown)
    wide = max(len(title) for title, _ in shown)
    bars = [f"{title:<{wide}}  {_bar(parts, most)}" for title, parts in shown]
    legend = ", ".join(f"{SIGNS[name]} {name}" for name in names)
    yield "\n".join([*bars, layout.prose(f"({legend}; the longest bar is {size(most)})")])


def _phase_peaks(memory: MemoryEstimate) -> Iterator[str]:
    """Yield the allocated peak of each phase; a phase without one has a dash."""
    return (size(memory.phases[name]) if name in memory.phases else MISSING for name in PHASES)


def _shown_parts(one: MethodEstimate) -> dict[str, int]:
    """Return the parts of a peak as they are shown; unknown ones together."""
    parts = dict.fromkeys(SIGNS, 0)
    for name, value in (one.memory.parts if one.memory else {}).items():
        shown = SHOWN_AS.get(name, name)
        parts[shown if shown in parts else "other"] += value
    return parts


def _bar(parts: Mapping[str, int], most: float) -> str:
    """Return a bar of letters. Sums are rounded, not parts, so that its length is right."""
    bar, before = "", 0
    for name, sign in SIGNS.items():
        before += parts[name]
        bar += sign * (round(before / max(1, most) * BAR) - len(bar))
    return bar


def _ways(known: Sequence[MethodEstimate]) -> Iterator[str]:
    beyond = [(one, one.fit) for one in known if one.fit is not None and one.fit.verdict != "yes"]
    if beyond:
        yield "What would make it fit (memory of the GPU, time against that without the change):"
    for one, fit in beyond:
        ways = "; ".join(map(_way, fit.ways)) or "nothing that was tried; use a smaller model"
        yield f"- {one.title}: {ways}"


def _way(way: Way) -> str:
    price = "" if way.time_ratio is None else f", {way.time_ratio:.2f} × the "
    price += ("FLOPs a row" if way.by_flops else "time") if price else ""
    return f"{way.what} ({size(way.needed_bytes)}{price})"


def _explanations(known: Sequence[MethodEstimate]) -> Iterator[str]:
    """Yield a sentence for each rule that applies, and the other methods that it applies to."""
    rules = list(dict.fromkeys(rule for one in known for rule in one.explanations))
    if rules:
        yield "Why:"
    for rule in rules:
        first, *others = [one for one in known if rule in one.explanations]
        same = ""
        if others:
            names = [one.title for one in others[:MOST_NAMES]]
            more = len(others) - len(names)
            names += [f"{counted(more, 'other')}"] if more else []
            same = f" The same holds for {', '.join(names)}."
        yield f"- {first.explanations[rule]}{same}"
