"""Stored features: which states are stored, how many fit, and what counting FLOPs needs of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import Recorder, make_any, prepared, training_job
from peft_methods.data.token_rows import TokenRows
from peft_methods.profiling.flops import count_training_flops
from peft_methods.training import features
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import TrainingJob
from peft_methods.training.features import StoredFeatures
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import EngineUnfit, ModelError, OptionError

WIDTH = 32  # of the tiny models' states


def probe_job(recipe: Path, folder: Path, *settings: str) -> TrainingJob:
    small = ("data.train=40", "data.validation=12", "budget.epochs=2")
    return training_job(prepared(recipe, "linear_probe", *small, *settings), folder)


def of_lengths(job: TrainingJob, lengths: list[int]) -> TrainingJob:
    """Return the job with training rows of these lengths."""
    tokens = {
        "input_ids": [np.full(length, 5) for length in lengths],
        "attention_mask": [np.ones(length, dtype=np.int64) for length in lengths],
    }
    rows = TokenRows(tokens, np.arange(len(lengths)) % 2)
    return replace(job, data=replace(job.data, train=rows))


def test_a_head_that_reads_padding_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    """What is stored has no states of padding, so that it would read others in later epochs."""
    source = make_any(tmp_path / "model", "bert", vivid=True)
    job = probe_job(tiny_recipe, tmp_path, f"model.source={source}")
    model: Any = job.model
    model.bert.pooler.forward = lambda states: states.mean(1)
    with pytest.raises(ModelError, match="does not read these alone: use the method head_only"):
        loop.train(job, Recorder())


def test_flops_are_those_of_the_states_that_are_stored(tiny_recipe: Path, tmp_path: Path) -> None:
    """In a row of one token, a head that reads all tokens cannot be told from others."""
    source = make_any(tmp_path / "model", "bert", vivid=True)
    job = probe_job(tiny_recipe, tmp_path, f"model.source={source}")
    model: Any = job.model
    pooler = model.bert.pooler
    pooler.forward = lambda states: pooler.dense(states).mean(1)
    later = count_training_flops(of_lengths(job, [1, 5, 9, 7])).later_epochs
    assert later is not None
    assert later.per_token == pytest.approx(2 * WIDTH**2)  # the frozen pooler's product


def test_counting_flops_allocates_no_store(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm-up does, for the peak."""
    job, allocated, zeros = probe_job(tiny_recipe, tmp_path), [], torch.zeros

    def noted(*size: Any, **options: Any) -> torch.Tensor:
        allocated.append(size)
        return zeros(*size, **options)

    monkeypatch.setattr(torch, "zeros", noted)
    count_training_flops(job)
    store = (1 + len(job.data.train), WIDTH)
    assert store not in allocated
    loop.train(job, Recorder())
    assert store in allocated


def test_rows_that_fit_do_so_in_any_order(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tokens of rows are stored here, and the longest rows are the last."""
    job = probe_job(tiny_recipe, tmp_path)
    model: Any = job.model
    pooler = model.bert.pooler
    pooler.forward = lambda states: pooler.dense(states).abs().amax(1)
    job = of_lengths(job, [2, 3, 4, 5, 9, 9])
    batch = job.task.collator(job.tokenizer)([job.data.train[5]])
    monkeypatch.setattr(features, "MOST_BYTES", 20 * WIDTH * 4)
    with pytest.raises(OptionError, match=r"set data.train = 2 or less, or use the method"):
        StoredFeatures(job).loss(job.model, batch)
    monkeypatch.setattr(features, "MOST_BYTES", 8 * WIDTH * 4)
    with pytest.raises(OptionError, match=r"at most 1 kB: use the method head_only") as caught:
        StoredFeatures(job).loss(job.model, batch)
    assert caught.value.setting == ""


@pytest.mark.parametrize("name", ["linear_probe", "adalora"])
def test_an_engine_that_replays_steps_refuses_it_at_once(
    name: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    """Also if it is asked directly."""
    job = training_job(prepared(tiny_recipe, name, "data.train=40"), tmp_path)
    with pytest.raises(EngineUnfit, match=r"between steps|other steps in its first epoch"):
        loop.train(job, Recorder(), trainer_class=CudaGraphsTrainer)
