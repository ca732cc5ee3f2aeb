"""A report notices records that do not fit the predictions beside them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import report_html, write_results
from peft_methods.runs import verified
from peft_methods.runs.contradictions import contradiction
from peft_methods.runs.store import Store
from peft_methods.tasks.class_predictions import ClassPredictions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "peft-methods" / "verified"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Records and predictions of two methods with three seeds."""
    return write_results(tmp_path / "results", ("full", "lora"), seeds=3)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def delete(folder: Path) -> None:
    (folder / "cell11.npz").unlink()


def cut(folder: Path) -> None:
    content = (folder / "cell11.npz").read_bytes()
    (folder / "cell11.npz").write_bytes(content[: len(content) // 2])


def swap(folder: Path) -> None:
    shutil.copy(folder / "cell00.npz", folder / "cell11.npz")


def swap_with_hash(folder: Path) -> None:
    """Take another run's predictions, and their hash too."""
    swap(folder)
    sha256 = hashlib.sha256((folder / "cell11.npz").read_bytes()).hexdigest()
    edit(folder / "cell11.json", lambda record: record["files"].update({".npz": sha256}))


def raise_accuracy(folder: Path) -> None:
    edit(folder / "cell11.json", lambda record: record["metrics"].update(accuracy=0.99))


def raise_quality(folder: Path) -> None:
    edit(folder / "cell11.json", lambda record: record["quality"].update(macro_f1=0.99))


FAULTS = {
    delete: r"cell11\.npz cannot be read \(No such file or directory\)",
    cut: r"cell11\.npz has changed since it was written",
    swap: r"cell11\.npz has changed since it was written",
    swap_with_hash: r"cell11\.json gives accuracy 0\.\d{4}, but its predictions give 0\.\d{4}",
    raise_accuracy: r"cell11\.json gives accuracy 0\.9900, but its predictions give 0\.\d{4}",
    raise_quality: r"cell11\.json gives macro_f1 0\.9900, but its predictions give 0\.\d{4}",
}


@pytest.mark.parametrize("known", [False, True], ids=["new", "verified before"])
@pytest.mark.parametrize("fault", FAULTS)
def test_report_leaves_out_a_run_that_does_not_fit_its_predictions(
    fault: Callable[[Path], None],
    known: bool,
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if known:
        report_html(tmp_path / "before", results)
    fault(results)
    page = report_html(tmp_path / "out", results)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        f"embedded, lora seed 1 is left out: .*{FAULTS[fault]}. Restore it from a copy, or "
        "train the run again: the same command trains it anew.",
        line,
    )
    text = re.sub(r"<[^>]*>|\s+", " ", page)
    assert "lora seed 1 is left out" in text
    assert re.search("LoRA.{0,40}seed 1.{0,60}left out, since", text)


def test_report_of_whole_results_says_nothing(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report_html(tmp_path / "out", results)
    assert capsys.readouterr().err == ""
    assert "is left out:" not in page


def test_copies_without_any_predictions_are_reported_with_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records may be published alone."""
    for path in results.glob("*.npz"):
        path.unlink()
    assert "left out, since" not in report_html(tmp_path / "out", results)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{results} holds no predictions (*.npz), so the scores of 6 records")


def test_records_of_versions_without_hashes_are_verified_too(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in results.glob("*.json"):
        edit(path, lambda record: record.update(files={}))
    report_html(tmp_path / "out", results)
    assert capsys.readouterr().err == ""
    raise_accuracy(results)
    report_html(tmp_path / "out", results)
    assert "lora seed 1 is left out" in capsys.readouterr().err


def test_scores_are_computed_once(
    results: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_html(tmp_path / "out", results)
    (file,) = cache.iterdir()
    assert len(file.read_text(encoding="ascii").split()) == 6
    computed = []
    real = Store.contradiction
    monkeypatch.setattr(
        Store, "contradiction", lambda store, one: computed.append(one) or real(store, one)
    )
    report_html(tmp_path / "out", results)
    assert computed == []
    file.write_bytes(b"\xff\x00")  # damaged: everything is verified again
    report_html(tmp_path / "out", results)
    assert len(computed) == 6


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verified, "write_bytes", full_disk)
    report_html(tmp_path / "out", results)


def test_store_and_report_use_one_check(results: Path) -> None:
    """What a report leaves out is not reused either."""
    store = Store(results)
    record = store.find("cell11")
    assert record is not None
    assert store.damage(record) == ""
    raise_accuracy(results)
    edited = store.find("cell11")
    assert edited is not None
    assert "gives accuracy 0.9900, but its predictions give" in store.damage(edited)


def test_scores_of_predictions_that_are_not_finite_are_a_contradiction(results: Path) -> None:
    store = Store(results)
    record = store.find("cell11")
    assert record is not None
    made = ClassPredictions(np.full((4, 2), np.nan, dtype=np.float32), np.asarray([0, 1, 0, 1]))
    assert "but its predictions are not finite" in contradiction(record, made)
