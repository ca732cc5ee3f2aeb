"""The folders of a run, and what it takes from its prerequisite runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The folders of a run, and what it takes from its prerequisite runs.

    `work` is scratch. `prerequisites` are the folders of the prerequisite runs,
    `prerequisite_fingerprints` their fingerprints and `prerequisite_seconds` their training time.
    The model is saved to `save_to`. `results` is the store whose checkpoints training continues
    from (None: no checkpoints). `engine_note` says why the engine is not the requested one.
    """

    work: Path
    prerequisites: tuple[Path, ...] = ()
    prerequisite_seconds: float | None = None
    save_to: Path | None = None
    matmul_flops_per_second: float | None = None
    engine_note: str = ""
    prerequisite_fingerprints: tuple[str, ...] = ()
    results: Path | None = None
