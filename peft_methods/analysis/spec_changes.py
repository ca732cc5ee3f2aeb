"""Differences between a baseline and today's runs: settings, data and library versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft_methods.analysis.baseline import Entry
from peft_methods.profiling.environment import FINGERPRINT_PACKAGES, OPTIONAL_PACKAGES
from peft_methods.runs.record import Record
from peft_methods.utils.words import counted

SHOWN_DIFFERENCES = 6
OF_TEST_ROWS = tuple(  # the settings that choose the test rows
    f"data.{name}"
    for name in (
        "source", "config", "revision", "test_source", "test_config", "test_split", "test", "seed"
    )
)  # fmt: skip


def spec_changes(entry: Entry, records: Sequence[Record]) -> list[str]:
    """Return what changed since the baseline: seeds, recipe and method, data, library versions."""
    record = records[0]
    seeds = (entry.seeds, tuple(one.seed for one in records))
    then = {
        "seeds": listed(sorted(seeds[0])),
        **entry.settings,
        **surroundings(entry.data, entry.environment),
    }
    now = {
        "seeds": listed(sorted(seeds[1])),
        **record.spec.flat(),
        **surroundings(record.data, record.environment),
    }
    pairs = {
        name: (then.get(name, "None"), now.get(name, "None"))
        for name in {**then, **now}
        if not name.startswith("expect.")
    }
    return [
        f"{name} {before} → {after}" for name, (before, after) in pairs.items() if before != after
    ]


def test_row_changes(entry: Entry, record: Record) -> list[str]:
    """Return the changes by which the test rows are others; empty if they may be the same.

    The fingerprint of the data says whether sources of different names have the same rows.
    """
    if entry.data.get("fingerprint") == record.data.get("fingerprint"):
        return []
    now = record.spec.flat()
    return [
        f"{name} {entry.settings[name]} → {now.get(name)}"
        for name in OF_TEST_ROWS
        if name in entry.settings and entry.settings[name] != now.get(name)
    ]


def surroundings(data: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """Return library versions, and short fingerprints of the data and the weights, by name."""
    versions = {
        **(environment.get("packages") or {}),
        **{name: environment.get(name) for name in ("python", "cuda", "driver")},
    }
    known = {
        **versions,
        "data": str(data.get("fingerprint"))[:10],
        "weights": str(environment.get("weights_sha256"))[:10],
    }
    return {name: str(value) for name, value in known.items()}


def listed(values: Iterable[object]) -> str:
    """Join values by commas."""
    return ", ".join(map(str, values))


def device_of(environment: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what times and memory depend on: the device and, on a CPU, the threads of a run."""
    is_cpu = environment.get("device") == "cpu"
    return str(environment.get("device_name")), environment.get("threads") if is_cpu else None


def device_text(device: tuple[str, Any]) -> str:
    """Format what `device_of` returns: 'a cpu, 2 threads'."""
    threads = device[1]  # a damaged file may have anything here
    return device[0] + (f", {counted(threads, 'thread')}" if isinstance(threads, int) else "")


def upgrades(entry: Entry, record: Record) -> list[str]:
    """Return the libraries whose version is another than in the baseline: 'torch 2.8 → 2.9'."""
    then, now = (one.get("packages") or {} for one in (entry.environment, record.environment))
    return [
        f"{name} {then.get(name)} → {now.get(name)}"
        for name in (*FINGERPRINT_PACKAGES, *OPTIONAL_PACKAGES)
        if name in then and then[name] != now.get(name)
    ]


def shortened(changes: Sequence[str]) -> str:
    """Join the first changes in one line and count the others."""
    more = len(changes) - SHOWN_DIFFERENCES
    return "; ".join(changes[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")
