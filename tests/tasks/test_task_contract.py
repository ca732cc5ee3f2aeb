"""The contract of a task, over every registered one, with a tiny real model and real files."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from builders import DECODERS, make_decoder, run_here, write_example
from peft_methods.api import PrintableComparison
from peft_methods.data import splits, synthetic, tokenize
from peft_methods.data.facts import TextData, TokenData
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.config import load_config
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.schema import Budget, DataSpec, ModelSpec, Recipe
from peft_methods.report.charts import charts_of, svg
from peft_methods.report.html.chart_view import ChartView
from peft_methods.report.html.task_views import Matrix, Table, method_views
from peft_methods.runs.predictions import encode_predictions, read_predictions_file
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.base import LossSum, Predictions, Task
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.tasks.views import MatrixView, ScatterView, TableView, TextsView
from peft_methods.training.collate import BucketCollator
from peft_methods.training.evaluation import predict
from peft_methods.utils.errors import ModelError, OptionError


@dataclass(frozen=True)
class Ready:
    """A task with data, a tiny model that carries its head, and a finished run."""

    task: Task
    recipe: Recipe
    texts: TextData
    tokens: TokenData
    base: loading.LoadedModel
    record: Record
    predictions: Predictions

    def batch(self, rows: range) -> dict[str, torch.Tensor]:
        collate = self.task.collator(self.base.tokenizer)
        return collate([self.tokens.train[row] for row in rows])

    def loss(self, batch: dict[str, Any]) -> LossSum:
        with torch.no_grad():
            return self.task.loss(self.base.model.eval(), batch)


def model_for(task: Task, models: dict[str, Path]) -> Path:
    """Return the first tiny model that can carry the task's head."""
    for folder in models.values():
        try:
            load_config(ModelSpec(str(folder)), task.head)
        except ModelError:
            continue
        return folder
    raise AssertionError(f"no tiny model can carry the head of {task.name}")


@pytest.fixture(scope="module", params=list(TASKS))
def ready(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ready:
    task, folder = TASKS[request.param], tmp_path_factory.mktemp(request.param)
    decoders = {name: make_decoder(folder / name, name) for name in DECODERS}
    data = DataSpec(str(write_example(task, folder / "data")), 32, 12, 20, max_length=12)
    method = METHODS.create(METHODS.reference, {"learning_rate": 1e-3}, "test")
    recipe = with_task(
        Recipe(
            "contract",
            ModelSpec(str(model_for(task, {**tiny_models, **decoders}))),
            data,
            Budget(epochs=2, batch_size=8, seeds=1),
            {method.name: {}},
            task=task.name,
        )
    )
    texts = splits.load(recipe.data, task)
    transformers.set_seed(0)
    base = loading.load(recipe.model, task.head, texts.facts.label_names)
    tokens = tokenize.tokenize(texts, base.tokenizer, recipe.data, task)
    record, predictions = run_here(RunSpec(recipe, method, 0, "cpu"), folder / "work")
    assert record.status == "ok", record.message
    assert predictions is not None
    return Ready(task, recipe, texts, tokens, base, record, predictions)


def test_a_task_describes_itself(ready: Ready) -> None:
    task = ready.task
    assert TASKS[task.name] is task
    assert task.title
    assert task.trivial
    assert task.peft_type in peft.TaskType.__members__
    assert task.head.auto_class() is getattr(transformers, task.head.auto_model)
    assert len({metric.name for metric in task.all_metrics}) == len(task.all_metrics) > 0
    assert all(METRICS[metric.name] == metric for metric in task.all_metrics)
    assert all(metric.higher_is_better is not None for metric in task.metrics)
    assert not any(metric.device_dependent for metric in task.metrics)


def test_a_recipe_without_a_metric_gets_the_first_and_others_are_refused(ready: Ready) -> None:
    data = replace(ready.recipe.data, select_by=None)
    chosen = with_task(replace(ready.recipe, data=data))
    assert chosen.selection_metric == ready.task.metrics[0].name
    wrong = replace(ready.recipe, data=replace(data, select_by="bleu42"))
    with pytest.raises(OptionError, match=r"data\.select_by: unknown metric of .* Allowed: ") as no:
        with_task(wrong)
    assert no.value.setting == "data.select_by"
    with pytest.raises(OptionError, match=r"unknown task 'text_clasification'\. Did you mean"):
        with_task(replace(ready.recipe, task="text_clasification"))


def test_loss_is_finite_and_the_sum_over_single_rows(ready: Ready) -> None:
    whole = ready.loss(ready.batch(range(8)))
    rows = [ready.loss(ready.batch(range(row, row + 1))) for row in range(8)]
    assert torch.isfinite(whole.total)
    assert int(whole.count) == sum(int(one.count) for one in rows) > 0
    assert float(whole.total) == pytest.approx(sum(float(one.total) for one in rows), rel=1e-4)
    assert float(whole.mean) == pytest.approx(float(whole.total) / int(whole.count))
    if whole.correct is not None:
        correct = [one.correct for one in rows if one.correct is not None]
        assert int(whole.correct) == sum(map(int, correct))


def test_loss_of_two_half_batches_has_the_gradient_of_the_whole_batch(ready: Ready) -> None:
    model, task = ready.base.model.eval(), ready.task

    def gradients(*parts: range) -> list[torch.Tensor]:
        model.zero_grad()
        batches = [ready.batch(part) for part in parts]
        examples = sum(map(task.examples_in_batch, batches))
        for batch in batches:
            (task.loss(model, batch).total / examples).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole, halves = gradients(range(8)), gradients(range(4), range(4, 8))
    assert all(
        torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(whole, halves, strict=True)
    )


def test_fillers_of_captured_batches_add_nothing(ready: Ready) -> None:
    collate = ready.task.collator(ready.base.tokenizer)
    rows = [ready.tokens.train[row] for row in range(5)]
    buckets = BucketCollator(collate, 8, (12, 16), ready.tokens.train.label_shape)
    plain, filled = collate(rows), buckets(rows)
    one, other = ready.loss(plain), ready.loss(filled)
    assert float(one.total) == pytest.approx(float(other.total), rel=1e-4)
    assert int(one.count) == int(other.count)
    assert ready.task.examples_in_batch(plain) == ready.task.examples_in_batch(filled)
    empty = {**filled, "labels": buckets.no_labels(8, filled["input_ids"].shape[1])}
    assert (float(ready.loss(empty).total), int(ready.loss(empty).count)) == (0.0, 0)


def test_examples_of_the_rows_are_those_of_their_batches(ready: Ready) -> None:
    rows = ready.tokens.train
    assert ready.task.examples_in_rows(rows) == ready.task.examples_in_batch(
        ready.batch(range(len(rows)))
    )


def test_predictions_keep_the_order_of_the_rows_at_any_batch_size(ready: Ready) -> None:
    collate = ready.task.collator(ready.base.tokenizer)
    found = [
        predict(ready.task, ready.base.model, ready.tokens.test, collate, size) for size in (3, 20)
    ]
    for name, array in found[0].arrays().items():
        if array.dtype.kind == "f":
            assert np.allclose(array, found[1].arrays()[name], atol=1e-4)
    assert np.array_equal(found[0].labels, found[1].labels)
    assert found[0].is_finite
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-3)


def test_metrics_are_within_their_bounds(ready: Ready) -> None:
    found = ready.task.evaluate(ready.predictions, ready.texts.facts.label_names)
    for metric in ready.task.metrics:
        assert metric.is_possible(found.scores[metric.name]), metric.name
        assert ready.record.metrics[metric.name] == found.scores[metric.name]
    assert json.loads(json.dumps(found.plain())) == ready.record.quality


def test_example_scores_average_to_each_metric(ready: Ready) -> None:
    found = ready.task.evaluate(ready.predictions, ready.texts.facts.label_names)
    for metric in ready.task.metrics:
        scores = ready.task.example_scores(ready.predictions, metric.name)
        assert scores.shape == (len(ready.predictions.labels),)
        assert scores.mean() == pytest.approx(found.scores[metric.name])
        assert ready.task.scores(ready.predictions)[metric.name] == pytest.approx(scores.mean())


def test_stored_predictions_are_read_back(ready: Ready, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(encode_predictions(ready.predictions, ready.task.name))
    again = read_predictions_file(path)
    assert type(again) is type(ready.predictions)
    for name, array in ready.predictions.arrays().items():
        assert np.array_equal(again.arrays()[name], array)


def test_trivial_baseline_has_the_first_metric_within_bounds(ready: Ready) -> None:
    baseline = ready.record.data["trivial_baseline"]
    assert ready.task.metrics[0].name in baseline
    for name, value in baseline.items():
        assert ready.task.metric(name).is_possible(value)
    assert ready.task.baseline_is_untrained or ready.texts.facts.trivial_baseline == baseline


def test_views_render_in_page_and_charts(ready: Ready) -> None:
    assert ready.record.quality is not None
    views = ready.task.views([ready.record.quality])
    comparison = PrintableComparison((ready.record,))
    (row,) = comparison.rows()
    charts = [one for one in charts_of(comparison, ready.recipe.name) if one.method]
    drawn = [view for view in views if isinstance(view, MatrixView | ScatterView)]
    assert len(charts) == len(drawn)
    for chart, view in zip(charts, drawn, strict=True):
        assert chart.description == view.description
        assert "{method}" in chart.shows
        assert "</svg>" in svg(chart)
        if isinstance(view, MatrixView):
            assert all(len(line) == len(view.labels) for line in view.counts)
    shown = method_views(row, [ready.record])
    assert (shown is None) == (not views)
    parts = () if shown is None else shown.parts
    kinds = {TableView: Table, MatrixView: Matrix, ScatterView: ChartView, TextsView: Table}
    assert [type(part) for part in parts] == [kinds[type(view)] for view in views]


def test_views_without_any_quality_are_none(ready: Ready) -> None:
    assert list(ready.task.views([])) == []
    assert list(ready.task.views([{}])) == []


def test_a_saved_model_predicts_the_same_when_loaded_by_its_class(
    ready: Ready, tmp_path: Path
) -> None:
    ready.base.model.save_pretrained(tmp_path)
    loaded = ready.task.head.auto_class().from_pretrained(tmp_path)
    collate = ready.task.collator(ready.base.tokenizer)
    one, other = (
        predict(ready.task, model, ready.tokens.test, collate, 8)
        for model in (ready.base.model, loaded)
    )
    assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_rows_can_be_drawn_in_place_of_texts(ready: Ready) -> None:
    drawn = synthetic.draw(ready.recipe.data, ready.task, 100, 0)
    assert drawn.facts.random
    assert [len(drawn.splits[name]) for name in ("train", "validation", "test")] == [32, 12, 20]
    assert [sum(drawn.facts.class_counts[name]) for name in drawn.splits] == [32, 12, 20]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "adapter_fusion"])
def test_method_trains_for_the_task_or_says_why_not(
    ready: Ready, name: str, tmp_path: Path
) -> None:
    """AdapterFusion is left out: it needs adapters that were trained on other data."""
    settings = {"learning_rate": 1e-3, **METHODS[name].example_settings()}
    method = METHODS.create(name, settings, "test")
    if (reason := method.unsupported(ready.base.architecture, "cpu")) is not None:
        assert ready.base.architecture.model_type in reason or "head" in reason
        return
    recipe = replace(ready.recipe, methods={name: {}})
    record, predictions = run_here(RunSpec(recipe, method, 0, "cpu"), tmp_path / "work")
    assert record.status == "ok", record.message
    assert predictions is not None
    assert record.metrics["method_parameters"] == record.evidence.expected_trainable
    assert not record.evidence.frozen_changed
