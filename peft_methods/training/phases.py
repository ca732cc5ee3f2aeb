"""The phases that an engine has beyond those of every run. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EnginePhase:
    """A phase of an engine. Its seconds are the metric `{name}_seconds`, shown as `title`.

    `activity` describes it in messages. `advice` says what to do if memory runs out in it, and
    `setting` names the setting to change. With `keeps_memory` the engine holds memory from this
    phase on that the method alone does not need, so later peaks are not the method's.
    """

    name: str
    title: str
    activity: str
    advice: str
    setting: str
    keeps_memory: bool = False
