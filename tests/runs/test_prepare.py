"""Prefetched runs, and runs whose engine failed, give the same results as any others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import TASK, runs
from peft_methods.analysis import checks
from peft_methods.data import synthetic, tokenize
from peft_methods.methods.selection import chosen_methods
from peft_methods.models import loading
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs import forward_time, pipeline
from peft_methods.runs.prepare import prefetch, prepare
from peft_methods.runs.reuse import ReusableRuns
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store
from peft_methods.training.registry import choose_engine
from peft_methods.utils.errors import OptionError


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("full", "ia3", "adapter", "adapter_fusion", "qlora")
        ),
    ],
)
def test_prefetching_changes_no_result(tiny_recipe: Path, tmp_path: Path, method: str) -> None:
    run, *_ = runs(tiny_recipe, method, "budget.seeds=[3]", "budget.epochs=1")
    folders = tuple(tmp_path / one.key for one in run.prerequisites)
    for one, folder in zip(run.prerequisites, folders, strict=True):
        folder.mkdir()
        pipeline.execute(one, RunPaths(folder), lambda news: None, threads=1)
    found = {}
    for name in ("in its turn", "prefetched"):
        (tmp_path / name).mkdir()
        prefetched = None
        if name == "prefetched":
            prefetched = prefetch(run, work=tmp_path / name, prerequisites=folders, threads=1)
        found[name] = pipeline.execute(
            run,
            RunPaths(tmp_path / name, folders),
            lambda news: None,
            threads=1,
            prefetched=prefetched,
        )
    (one, predicted), (other, again) = found.values()
    assert predicted is not None
    assert again is not None
    assert np.array_equal(predicted.logits, again.logits)
    assert one.fingerprint == other.fingerprint
    assert one.metrics["accuracy"] == other.metrics["accuracy"]
    assert one.evidence == other.evidence
    for spent in ("data_seconds", "load_seconds", "tokenize_seconds", "check_seconds"):
        assert (other.metrics[spent] or 0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_prefetched_random_weights_equal_those_drawn_later(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Nothing is tokenized again, or drawn again unless the GPU quantises it in the run's turn."""
    run, *_ = runs(
        tiny_recipe, method, "budget.seeds=[3]", "budget.epochs=1", "model.weights=random"
    )
    (tmp_path / "in its turn").mkdir()
    one, _ = pipeline.execute(run, RunPaths(tmp_path / "in its turn"), lambda news: None, threads=1)
    (tmp_path / "prefetched").mkdir()
    prefetched = prefetch(run, work=tmp_path / "prefetched", prerequisites=(), threads=1)
    if method == "lora":
        monkeypatch.setattr(loading, "_draw", None)
    monkeypatch.setattr(tokenize, "tokenize", None)
    other, _ = pipeline.execute(
        run, RunPaths(tmp_path / "prefetched"), lambda news: None, threads=1, prefetched=prefetched
    )
    assert one.fingerprint == other.fingerprint
    assert [epoch["train_loss"] for epoch in one.epochs] == [
        epoch["train_loss"] for epoch in other.epochs
    ]


@pytest.mark.slow
def test_failed_engine_falls_back_to_the_trainer_with_a_note(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler cannot write its cache: a real failure in the run's own process."""
    store = Store(tmp_path / "results")
    store.prepare()
    recipe = load_recipe(str(tiny_recipe), ["budget.seeds=[0]", "budget.epochs=1"])
    (run,) = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu", "cuda_graphs")
    scheduler = new_scheduler(store, "cpu", workers=1)
    scheduler.executor._server.launch()  # the fork server keeps the environment of its start
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    try:
        preparation = scheduler.prepare(recipe, [run.method])
        scheduler.submit([run])
        (record,) = scheduler.wait([run])
    finally:
        scheduler.close()
    assert record.status == "ok", record.message
    assert (record.spec.engine, record.spec.fallback_from) == ("trainer", "cuda_graphs")
    assert record.fingerprint == store.records()[0][0].fingerprint
    (finding,) = [finding for finding in checks.run_checks([record]) if finding.rule == "V413"]
    assert "could not be captured" in finding.evidence
    log = (store.folder / "logs" / f"{run.label}.log").read_text(encoding="utf-8")
    assert "could not be captured" in log, (
        "the second process must not overwrite the first one's log"
    )
    assert log.count("train_runtime") == 1
    assert "engine" in finding.advice
    assert "trainer" in finding.advice
    # The record is reused as long as the same engine is requested.
    again = ReusableRuns(store).record_of(run, preparation)
    assert again is not None
    assert (again.fingerprint, again.environment["engine_note"]) == (
        record.fingerprint,
        record.environment["engine_note"],
    )
    assert ReusableRuns(store).record_of(replace(run, engine="trainer"), preparation) is None


def test_quantised_weights_are_hashed_once_and_cached(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = load_recipe(str(tiny_recipe))
    methods = tuple(chosen_methods(recipe, ["lora", "qlora"]))
    first = prepare(recipe, methods, "cpu", threads=1).facts
    loads: list[Any] = []
    load = loading.load
    monkeypatch.setattr(
        loading,
        "load",
        lambda *of, **wanted: loads.append(wanted.get("quantization")) or load(*of, **wanted),
    )
    assert prepare(recipe, methods, "cpu", threads=1).facts == first
    assert loads == [None]
    other = replace(recipe, budget=replace(recipe.budget, precision="bf16"))
    assert prepare(other, methods, "cpu", threads=1).facts.weights[""] == first.weights[""]
    assert loads == [None, None, "nf4"]


def test_engine_auto_depends_on_the_device() -> None:
    assert [choose_engine("auto", device) for device in ("cpu", "cuda")] == [
        "trainer",
        "cuda_graphs",
    ]
    assert choose_engine("trainer", "cuda") == "trainer"
    with pytest.raises(
        OptionError, match=r"'cuda_graphs' needs an NVIDIA GPU .* Allowed here: auto, trainer"
    ):
        choose_engine("cuda_graphs", "cpu")
    with pytest.raises(
        OptionError,
        match=r"unknown engine 'cuda_graph'\. Did you mean 'cuda_graphs'\?.*auto, trainer, cuda_g",
    ):
        choose_engine("cuda_graph", "cuda")


def test_fingerprint_depends_on_the_engine(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    facts = {"weights": "w", "config": "c", "tokenizer": "t", "data": "d", "environment": {}}
    assert run.fingerprint(**facts) != replace(run, engine="cuda_graphs").fingerprint(**facts)


@pytest.mark.parametrize(("seconds", "passes"), [(0.1, 3), (1.5, 2), (30.0, 1)])
def test_forward_time_is_measured_with_fewer_passes_for_slow_models(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, passes: int
) -> None:
    """No pass over the three batches starts after two seconds. The warm-up pass uses one batch."""
    recipe, now, seen = load_recipe(str(tiny_recipe)), [0.0], []

    def predict(task: Any, model: Any, rows: Any, *_: Any) -> None:
        seen.append(len(rows))
        now[0] += seconds

    texts = synthetic.load(recipe, TASK)
    base = loading.load(recipe.model, TASK.head, texts.facts.label_names)
    monkeypatch.setattr(forward_time, "predict", predict)
    monkeypatch.setattr(forward_time.time, "perf_counter", lambda: now[0])
    size = recipe.budget.batch_size
    assert forward_time.timed_seconds(texts, base, recipe) == pytest.approx(seconds / (3 * size))
    assert seen == [size, *([3 * size] * passes)]


def test_slow_rows_are_timed_in_smaller_batches(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second is enough for two rows here. Their time is that of rows of the usual length."""
    recipe, now, seen = load_recipe(str(tiny_recipe)), [0.0], []

    def predict(task: Any, model: Any, rows: Any, *_: Any) -> None:
        seen.append(len(rows))
        now[0] += sum(rows.lengths) / 10

    texts = synthetic.load(recipe, TASK)
    base = loading.load(recipe.model, TASK.head, texts.facts.label_names)
    monkeypatch.setattr(forward_time, "predict", predict)
    monkeypatch.setattr(forward_time.time, "perf_counter", lambda: now[0])
    found = forward_time.timed_seconds(texts, base, recipe, 0.5)
    assert seen == [2, 6]
    size = recipe.budget.batch_size
    first = texts.splits["train"].take(range(3 * size))
    few = replace(texts, splits={**texts.splits, "train": first})
    tokens = tokenize.tokenize(few, base.tokenizer, recipe.data, TASK, check=False)
    assert found == pytest.approx(np.mean(tokens.train.lengths) / 10)
