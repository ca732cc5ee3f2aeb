"""Write baselines, and add sessions to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft_methods.analysis.baseline import EARLIER, Entry, read_baseline, read_entries
from peft_methods.analysis.spec_changes import device_of, device_text, shortened
from peft_methods.runs.store import StoreError
from peft_methods.utils.errors import OptionError
from peft_methods.utils.files import atomically

OF_A_SESSION = ("datetime", "commit_info", "benchmarks")


def with_session(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Return a document that has the sessions of a baseline file before its own.

    Without such a file it is the document itself. Raises `StoreError` if a method of both was
    trained in another way or on another device: their figures are no repetition.
    """
    if not path.exists():
        return document
    try:
        before = read_baseline(path).entries
        now = read_entries(path, document["benchmarks"])
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OptionError, OSError, ValueError) as error:
        raise StoreError(str(error)) from None
    for key, entry in now.items():
        if key in before and (differences := list(_differences(before[key], entry))):
            raise StoreError(
                f"{path} is of other runs: {'-'.join(key)} differs in {shortened(differences)}. "
                "Write a baseline of its own."
            )
    last = {name: old[name] for name in OF_A_SESSION if name in old}
    last["benchmarks"] = _slim(last["benchmarks"])
    return {**document, EARLIER: [*old.get(EARLIER, ()), last]}


def _differences(before: Entry, now: Entry) -> Iterator[str]:
    """Yield the settings, data and device in which two sessions differ. Versions may."""
    pairs = {
        **{
            name: (before.settings.get(name), now.settings.get(name))
            for name in {**before.settings, **now.settings}
            if not name.startswith("expect.")
        },
        "data": (before.data.get("fingerprint"), now.data.get("fingerprint")),
        "device": (_device(before), _device(now)),
    }
    for name, (then, today) in pairs.items():
        if then != today:
            yield f"{name} {then} → {today}"


def _device(entry: Entry) -> str:
    return device_text(device_of(entry.environment))


def _slim(benchmarks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return benchmarks without the repr of the whole recipe, which `params` would hold."""
    return [{**one, "params": {"finetune_task": one.get("param")}} for one in benchmarks]


def write_baseline(path: Path, document: dict[str, Any]) -> None:
    """Write a pytest-benchmark JSON atomically. Raises `StoreError`."""
    from pytest_benchmark.utils import safe_dumps

    document = {**document, "benchmarks": _slim(document["benchmarks"])}
    text: str = safe_dumps(document, indent=1, ensure_ascii=True)  # type: ignore[no-untyped-call]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, lambda file: file.write(f"{text}\n".encode()))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
