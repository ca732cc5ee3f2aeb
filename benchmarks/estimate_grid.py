"""Measure all cases that are not measured yet, and store each at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from estimate_cases import Case
from estimate_files import Stored

SECONDS = "ESTIMATES_SECONDS"  # environment variable: when to stop, in seconds
RETRY = "ESTIMATES_RETRY"  # environment variable: cases that have failed are measured again
MIB = 2**20


def measure_all(
    cases: Iterable[Case], measure: Callable[[Case], dict[str, Any]], stored: Stored, usual: float
) -> None:
    """Measure cases in their order and store each, until the time is over.

    The time is `usual` seconds, or those of the environment variable. Raises `RuntimeError` if the
    device cannot be used any more: a new process goes on behind the case that broke it.
    """
    end = time.monotonic() + float(os.environ.get(SECONDS, usual))
    retried = ("failed", "unfit") if os.environ.get(RETRY) else ()
    todo = [
        case
        for case in cases
        if stored.values.get(case.key, {"status": ""})["status"] in ("", *retried)
    ]
    print(f"\n{len(todo)} cases to measure", flush=True)
    for number, case in enumerate(todo, 1):
        if time.monotonic() > end:
            print(f"Time is over: {len(todo) - number + 1} cases are left. Run it again.")
            return
        found = measure(case)
        stored.put(case.key, found)
        print(f"{number:3} {case.key}: {described(found)}", flush=True)
        if found["device_failed"]:
            raise RuntimeError(
                f"the GPU cannot be used any more in this process ({found['device_failed']}): run "
                f"it again, and it goes on with the next case"
            )


def described(found: Mapping[str, Any]) -> str:
    """Return a measured case in a few words."""
    words = [found["status"], f"{found['seconds']:.1f} s"]
    peak = found.get("memory", {}).get("peak_memory_bytes")
    if peak is not None:
        words.insert(1, f"{peak / MIB:,.1f} MiB")
    if "runs" in found:
        words.insert(1, "".join("+" if one["fitted"] else "-" for one in found["runs"]))
    words += [text for text in (found.get("message", ""), *found["left"]) if text]
    return ", ".join(words)
