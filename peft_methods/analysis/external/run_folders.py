"""Folders of runs: each folder with a program's files is one row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft_methods.analysis.external.encoding import text_of
from peft_methods.analysis.external.json_tables import name_of_run, one_run
from peft_methods.analysis.external.raw import RawTable, of_records
from peft_methods.analysis.external.run_files import adapter_settings, of_state, run_records

# Files of one run that belong together; later ones win.
PARTS = ("trainer_state", "trainer_log", "train_results", "eval_results", "all_results", "results",
         "metrics", "adapter_config")  # fmt: skip
SETTINGS = {
    "config", "generation_config", "tokenizer", "tokenizer_config", "special_tokens_map", "vocab",
    "preprocessor_config", "added_tokens", "package", "training_args", "model.safetensors.index",
}  # fmt: skip
MOST = 10_000  # files; a folder with more is none of runs


def from_folder(path: Path) -> tuple[RawTable, ...]:
    """Return one table with a row for each run below `path`; none if there is no run."""
    files = [
        file
        for _, file in zip(range(MOST), sorted(path.rglob("*.json")), strict=False)
        if file.stem not in SETTINGS
    ]
    runs: dict[Path, dict[str, str]] = {}
    records, unread = [], []
    for file in files:
        try:
            values = json.loads(text_of(file)[0])
        except (OSError, ValueError, RecursionError):
            unread.append(f"{file.relative_to(path)} is not valid JSON and was not read")
            continue
        if file.stem in PARTS and isinstance(values, dict):
            folder = file.parent
            folder = folder.parent if folder.name.startswith("checkpoint") else folder
            runs[folder] = runs.get(folder, {}) | _part(file, values)
        elif found := _records(file, values):
            records += found
    records += [
        {"method": str(folder.relative_to(path)) if folder != path else path.name, **run}
        for folder, run in runs.items()
        if run
    ]
    if not records:
        return ()
    table = of_records(path.name, records, is_run=True)
    return (RawTable(table.title, table.headers, table.rows, (*unread, *table.remarks), True),)


def _records(file: Path, values: Any) -> list[dict[str, str]]:
    if (known := run_records(file, values)) is not None:
        return known
    run = one_run(file, values) if isinstance(values, dict) else {}
    return [{"method": name_of_run(file)} | run] if run else []


def _part(file: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Return what one file of a run says."""
    if file.stem == "adapter_config":
        kind, model = values.get("peft_type"), values.get("base_model_name_or_path")
        texts = {"peft_type": kind, "base_model": model}
        return adapter_settings(values) | {k: str(v) for k, v in texts.items() if v}
    if isinstance(values.get("log_history"), list):
        return of_state(values)
    run = one_run(file, values)
    has_method = "method" in values
    return {name: text for name, text in run.items() if has_method or name != "method"}
