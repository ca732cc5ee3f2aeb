"""A session's notes name the folder that replaces an unusable cache folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from peft_methods.runs.experiment import Experiment
from peft_methods.runs.experiment_options import ExperimentOptions


def test_notes_of_an_experiment_name_an_unusable_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    experiment = Experiment((), ExperimentOptions(results=tmp_path / "results"))
    try:
        assert experiment.results().notes == ()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        (note,) = experiment.results().notes
    finally:
        experiment.close()
    assert str(tmp_path / "file" / "peft-methods") in note
    assert str(tmp_path / "peft-methods-cache-") in note
