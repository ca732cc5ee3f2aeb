"""The devices of runs as text: how many of which kind, and what trained side by side."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.runs.record import Record
from peft_methods.utils.words import counted


def devices_text(records: Sequence[Record]) -> str:
    """Describe the devices of finished runs: 'NVIDIA H200', '2 × NVIDIA H200', 'CPU, 2 threads'."""
    environment = records[0].environment
    name, threads = str(environment["device_name"]), environment.get("threads")
    if environment["device"] == "cpu":
        return f"{name}, {counted(threads, 'thread')}" if threads else name
    count = len(gpus_of(records))
    return f"{count} × {name}" if count > 1 else name


def gpus_of(records: Sequence[Record]) -> set[str]:
    """Return the UUIDs of the GPUs that runs were on, as far as their records have them."""
    return {gpu for record in records for gpu in record.environment.get("gpus", ())}


def beside_notes(records: Sequence[Record]) -> list[str]:
    """Say how many runs trained side by side on GPUs, and whether they took turns."""
    found = [
        record.environment
        for record in records
        if record.status == "ok" and record.environment.get("device") != "cpu"
    ]
    most = max((one.get("runs_at_a_time", 1) for one in found), default=1)
    if most == 1:
        return []
    if any(one.get("trained_in_turns") for one in found):
        return [
            f"Up to {most} runs at a time, one on each GPU, but they trained in turns: the host "
            "has too few cores to serve several trainings at once without slowing them."
        ]
    return [
        f"Up to {most} runs at a time, one on each GPU, with CPU cores of their own. For times "
        "with nothing beside them, run one at a time (workers = 1)."
    ]
