"""The folders that one run reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The folders of one run, and what it needs to know about the runs it depends on.

    `work` is scratch; `stages` are the prerequisites' folders, `stage_identities` their
    fingerprints, `source_seconds` their training time. `save_to` is where the model is kept. `results`
    is the store whose checkpoints training continues from (None: no checkpoints).
    `engine_note` says why the engine is not the requested one.
    """

    work: Path
    stages: tuple[Path, ...] = ()
    source_seconds: float | None = None
    save_to: Path | None = None
    matmul_flops_per_second: float | None = None
    engine_note: str = ""
    stage_identities: tuple[str, ...] = ()
    results: Path | None = None
