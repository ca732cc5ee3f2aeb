"""A cell that was loaded ahead of its turn, and one whose engine failed, end as any other does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_execution import cells

from peft_methods import data, models, runner, starting, synthetic, validity
from peft_methods.cells import cells_of, chosen_methods, fitting_engine
from peft_methods.errors import OptionError
from peft_methods.execution.local import LocalExecutor
from peft_methods.recipe import load_recipe
from peft_methods.resuming import Earlier
from peft_methods.runner import Places
from peft_methods.starting import load_ahead, prepare
from peft_methods.store import Store


@pytest.mark.parametrize("method", ["full", "lora", "ia3", "adapter", "adapter_fusion", "qlora"])
def test_loading_ahead_changes_no_figure(tiny_recipe: Path, tmp_path: Path, method: str) -> None:
    cell, *_ = cells(tiny_recipe, method, "budget.seeds=[3]", "budget.epochs=1")
    stages = tuple(tmp_path / stage.key for stage in cell.stages)
    for stage, folder in zip(cell.stages, stages, strict=True):
        folder.mkdir()
        runner.run(stage, Places(folder), lambda news: None, threads=1)
    found = {}
    for name in ("in its turn", "ahead"):
        (tmp_path / name).mkdir()
        ahead = (
            load_ahead(cell, work=tmp_path / name, stages=stages, threads=1)
            if name == "ahead"
            else None
        )
        found[name] = runner.run(
            cell, Places(tmp_path / name, stages), lambda news: None, threads=1, ahead=ahead
        )
    (one, predicted), (other, again) = found.values()
    assert predicted is not None
    assert again is not None
    assert np.array_equal(predicted.logits, again.logits)
    assert one.identity == other.identity
    assert one.metrics["accuracy"] == other.metrics["accuracy"]
    assert one.evidence == other.evidence
    for spent in ("data_seconds", "load_seconds", "tokenize_seconds", "check_seconds"):
        assert (other.metrics[spent] or 0) > 0


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_random_weights_drawn_ahead_are_those_drawn_in_turn(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Quantised ones are read from where they were left: nothing is drawn again, nor tokenized."""
    cell, *_ = cells(
        tiny_recipe, method, "budget.seeds=[3]", "budget.epochs=1", "model.weights=random"
    )
    (tmp_path / "in its turn").mkdir()
    one, _ = runner.run(cell, Places(tmp_path / "in its turn"), lambda news: None, threads=1)
    (tmp_path / "ahead").mkdir()
    ahead = load_ahead(cell, work=tmp_path / "ahead", stages=(), threads=1)
    monkeypatch.setattr(models, "_draw", None)
    monkeypatch.setattr(data, "tokenize", None)
    other, _ = runner.run(
        cell, Places(tmp_path / "ahead"), lambda news: None, threads=1, ahead=ahead
    )
    assert not (tmp_path / "ahead" / "drawn").exists()
    assert one.identity == other.identity
    assert [epoch["train_loss"] for epoch in one.epochs] == [
        epoch["train_loss"] for epoch in other.epochs
    ]


def test_an_engine_that_fails_gives_way_to_the_stock_one_and_says_so(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler has nowhere to write: a failure as real as any, in the cell's own process."""
    store = Store(tmp_path / "results")
    store.prepare()
    recipe = load_recipe(str(tiny_recipe), ["budget.seeds=[0]", "budget.epochs=1"])
    (cell,) = cells_of(recipe, chosen_methods(recipe, ["lora"])[0], "cpu", "graphed")
    executor = LocalExecutor(store, "cpu", workers=1, threads=1)
    executor._server.launch()  # the server process keeps the environment of its start
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    try:
        preparation = executor.prepare(recipe, [cell.method])
        executor.submit([cell])
        (record,) = executor.wait([cell])
    finally:
        executor.close()
    assert record.status == "ok", record.message
    assert record.cell["engine"] == "stock"
    assert record.identity == store.records()[0][0].identity
    (finding,) = [finding for finding in validity.judge([record]) if finding.rule == "V405"]
    assert "could not be captured" in finding.evidence
    log = (store.folder / "logs" / f"{cell.label}.log").read_text(encoding="utf-8")
    assert "could not be captured" in log, (
        "what the second process says must not take the place of why there is one"
    )
    assert log.count("train_runtime") == 1
    assert 'engine = "stock"' in finding.advice
    again = Earlier(store).record_of(
        cell, preparation
    )  # found as long as the same engine is asked for
    assert again is not None
    assert (again.identity, again.environment["engine_note"]) == (
        record.identity,
        record.environment["engine_note"],
    )
    assert Earlier(store).record_of(replace(cell, engine="stock"), preparation) is None


def test_weights_are_quantised_once_to_be_known_by_their_digest(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = load_recipe(str(tiny_recipe))
    methods = tuple(chosen_methods(recipe, ["lora", "qlora"]))
    first = prepare(recipe, methods, "cpu", threads=1).facts
    loads: list[Any] = []
    load = models.load
    monkeypatch.setattr(
        models,
        "load",
        lambda *of, **wanted: loads.append(wanted.get("quantization")) or load(*of, **wanted),
    )
    assert prepare(recipe, methods, "cpu", threads=1).facts == first
    assert loads == [None]
    other = replace(recipe, budget=replace(recipe.budget, precision="bf16"))
    assert prepare(other, methods, "cpu", threads=1).facts.weights[""] == first.weights[""]
    assert loads == [None, None, "nf4"]


def test_auto_is_what_the_device_can_do() -> None:
    assert [fitting_engine("auto", device) for device in ("cpu", "cuda")] == ["stock", "graphed"]
    assert fitting_engine("stock", "cuda") == "stock"
    with pytest.raises(
        OptionError, match=r"'graphed' needs an NVIDIA GPU .* Allowed here: auto, stock"
    ):
        fitting_engine("graphed", "cpu")
    with pytest.raises(
        OptionError,
        match=r"unknown engine 'graphd'\. Did you mean 'graphed'\? Allowed: auto, stock, graphed",
    ):
        fitting_engine("graphd", "cuda")


def test_the_engine_is_part_of_a_cells_identity(tiny_recipe: Path) -> None:
    cell, *_ = cells(tiny_recipe, "lora")
    facts = {"weights": "w", "config": "c", "tokenizer": "t", "data": "d", "environment": {}}
    assert cell.identity(**facts) != replace(cell, engine="graphed").identity(**facts)


@pytest.mark.parametrize(("seconds", "passes"), [(0.1, 3), (1.5, 2), (30.0, 1)])
def test_the_pace_is_known_soon_where_a_model_is_slow(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, passes: int
) -> None:
    """No pass over the three batches begins after two seconds; the one to warm up takes a batch."""
    recipe, now, seen = load_recipe(str(tiny_recipe)), [0.0], []

    def predict(model: Any, rows: Any, *_: Any) -> None:
        seen.append(len(rows))
        now[0] += seconds

    texts = synthetic.load(recipe)
    base = models.load(recipe.model, texts.facts.label_names)
    monkeypatch.setattr(starting, "predict", predict)
    monkeypatch.setattr(starting.time, "perf_counter", lambda: now[0])
    size = recipe.budget.batch_size
    assert starting._forward_seconds(texts, base, recipe) == pytest.approx(seconds / (3 * size))
    assert seen == [size, *([3 * size] * passes)]
