"""The stored cases, predictions and measurements of the grid: JSON files written after each case.

`predictions.json` lists the cases in the order in which they are measured, with the prediction of
each by the estimator of the commit that the file names. Each device has a folder with `grid.json`
and `capped.json`, which hold its measurements, and `probe.json`, its rates.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from estimate_cases import Case

from peft_methods.utils.files import write_whole

FOLDER = Path(__file__).parent / "estimates"
OWN_FOLDER = "ESTIMATES_FOLDER"  # environment variable: where results are written instead
VERSION = 1


class Stored:
    """Values by the keys of cases in one file, with facts about all of them.

    What `before` has is read too, and written to `path` with the next value: so a measurement that
    was cut short continues on a machine that has a copy of the file.
    """

    def __init__(self, path: Path, before: Path | None = None, **facts: Any) -> None:
        self.path, self._facts = path, facts
        self.values: dict[str, dict[str, Any]] = {}
        for place in (before, path):
            if place is not None and place.exists():
                found = json.loads(place.read_text(encoding="utf-8"))
                self.values.update(found["values"])
                self._facts = {**found["facts"], **self._facts}

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Store a value, and write the file completely or not at all."""
        self.values[key] = dict(value)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "facts": self._facts, "values": self.values}
        write_whole(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is true of all values: the device, the versions, the commit."""
        return self._facts


def stored_at(place: str, **facts: Any) -> Stored:
    """Return the values of a file of `FOLDER`; what is new is written to the own folder, if any."""
    own = os.environ.get(OWN_FOLDER)
    return Stored(Path(own or FOLDER) / place, FOLDER / place, **facts)


def measurements(device_name: str, kind: str, **facts: Any) -> Stored:
    """Return the measurements of a device. `kind` is "grid" or "capped"."""
    folder = device_name.casefold().replace(" ", "-")
    return stored_at(f"{folder}/{kind}.json", device=device_name, **facts)


def case_of(value: Mapping[str, Any]) -> Case:
    """Return the case of a stored value."""
    return Case(**value["case"])


def predictions(**facts: Any) -> Stored:
    """Return all cases in the order of measuring, with their predictions as far as there are."""
    return stored_at("predictions.json", **facts)
