"""Trained prompts leave places, padding, pooling, losses and generation of a text as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders import (
    CONFIGS,
    DECODERS,
    MORE_CONFIGS,
    TASK,
    Recorder,
    make_any,
    mostly_slow,
    runs,
    training_job,
)
from language_builders import ready, recipe_of, write_pairs
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.registry import METHODS
from peft_methods.methods.row_length import too_long
from peft_methods.models import loading
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.schema import ModelSpec
from peft_methods.runs.prepare import prepare
from peft_methods.tasks.lm_loss import token_losses
from peft_methods.tasks.registry import TASKS
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import ModelError

NAMES = [name for name in METHODS if METHODS[name].info.family == "prompts"]
LANGUAGE = TASKS["causal_lm"]
QUICK = [("bert", "prompt_tuning"), ("bert", "p_tuning_v2"), ("llama", "p_tuning_v2")]
CASES = [
    pytest.param(kind, name, marks=() if (kind, name) in QUICK else pytest.mark.slow)
    for kind in (*CONFIGS, *MORE_CONFIGS, *DECODERS)
    for name in NAMES
]
TEXTS = ([2, 9, 7, 5, 8, 6], [2, 11, 6])


def prompted(
    folder: Path, kind: str, name: str, head: ModelHead, labels: tuple[str, ...]
) -> tuple[loading.LoadedModel, nn.Module]:
    """Return a base model and the same object with a random prompt, or skip the test."""
    torch.manual_seed(5)
    base = loading.load(ModelSpec(str(make_any(folder, kind))), head, labels)
    settings = {"learning_rate": 0.1, "num_virtual_tokens": 3}
    method = METHODS.create(name, settings, "test")
    if (reason := method.unsupported(base.architecture, "cpu")) is not None:
        pytest.skip(reason)
    context = ApplyContext(base.architecture, base.head, LANGUAGE.peft_type)
    model = method.apply(base.model, context).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return base, model


def padded(rows: tuple[list[int], ...], side: str = "right") -> dict[str, torch.Tensor]:
    """Return ids and mask of a batch."""
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    both = [
        [[*a, *b] if side == "right" else [*b, *a] for a, b in zip(given, fill, strict=True)]
        for given in (rows, ones)
    ]
    return {"input_ids": torch.tensor(both[0]), "attention_mask": torch.tensor(both[1])}


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("name", NAMES)
def test_layers_that_are_computed_twice_give_the_same_gradients(
    kind: str, name: str, tmp_path: Path
) -> None:
    """A layer that adds its keys to a cache would find them there the second time."""
    _, model = prompted(tmp_path, kind, name, TASK.head, ("no", "yes"))
    found = []
    for on in (False, True):
        with checkpointing(model, on=on):
            model(**padded(TEXTS)).logits.sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
    assert len(found[0]) >= 2  # the head, and the prompt
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_padding_changes_no_prediction(kind: str, name: str, tmp_path: Path) -> None:
    """And the prompt changes all of them."""
    _, model = prompted(tmp_path, kind, name, TASK.head, ("no", "yes"))
    with torch.no_grad():
        together = model(**padded(TEXTS)).logits
        alone = torch.cat([model(**padded((row,))).logits for row in TEXTS])
        virtual = next(one for one in model.modules() if getattr(one, "adds_tokens", False))
        virtual.encoded.vectors.add_(torch.randn_like(virtual.encoded.vectors))
        other = model(**padded(TEXTS)).logits
    assert torch.allclose(together, alone, atol=1e-5)
    assert ((together - other).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("kind", mostly_slow(DECODERS, "llama"))
@pytest.mark.parametrize("name", NAMES)
def test_generation_with_a_cache_writes_what_whole_passes_write(
    kind: str, name: str, tmp_path: Path
) -> None:
    _, model = prompted(tmp_path, kind, name, LANGUAGE.head, ())
    new = 6
    written = model.generate(  # type: ignore[operator]
        **padded(TEXTS, "left"), max_new_tokens=new, do_sample=False, eos_token_id=[]
    )
    for row, found in zip(TEXTS, written.tolist(), strict=True):
        ids = list(row)
        for _ in range(new):
            with torch.no_grad():
                ids.append(int(model(**padded((ids,)), use_cache=False).logits[0, -1].argmax()))
        assert found[-new:] == ids[-new:]
    virtual = next(one for one in model.modules() if getattr(one, "adds_tokens", False))
    with torch.no_grad():
        before = model(**padded(TEXTS)).logits
        virtual.encoded.vectors.add_(torch.randn_like(virtual.encoded.vectors))
        assert not torch.allclose(model(**padded(TEXTS)).logits, before)


@pytest.mark.parametrize("name", NAMES)
def test_loss_of_a_token_is_that_of_its_place(name: str, tmp_path: Path) -> None:
    """The fused loss of our engines, against the outputs of the model."""
    _, model = prompted(tmp_path, "llama", name, LANGUAGE.head, ())
    batch: dict[str, Any] = padded(TEXTS)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    found, _ = token_losses(model, batch)
    with torch.no_grad():
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        assert outputs.logits.shape[:2] == batch["input_ids"].shape
        scores, targets = outputs.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        expected = nn.functional.cross_entropy(scores, targets, reduction="none")
    assert torch.allclose(found, expected[targets != -100], atol=1e-5)


def test_prompt_of_an_encoder_is_behind_the_token_that_it_classifies_by(tmp_path: Path) -> None:
    base, model = prompted(tmp_path, "bert", "prompt_tuning", TASK.head, ("no", "yes"))
    inner: Any = base.model.base_model
    batch = padded((TEXTS[0],))
    with torch.no_grad():
        found = model(**batch).logits
        texts = inner.embeddings.word_embeddings(batch["input_ids"])
        prompt = inner.virtual_tokens.encoded()[None]
        whole = torch.cat((texts[:, :1], prompt, texts[:, 1:]), 1)
        inner._forward_pre_hooks.clear()
        inner._forward_hooks.clear()
        expected = model(inputs_embeds=whole, attention_mask=torch.ones(whole.shape[:2])).logits
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3"])
def test_prefix_is_that_of_peft(kind: str, tmp_path: Path) -> None:
    """PEFT's prefix tuning without projection: the same keys and values give the same outputs."""
    from peft import PrefixTuningConfig, get_peft_model

    base, model = prompted(tmp_path, kind, "p_tuning_v2", LANGUAGE.head, ())
    batch = padded(TEXTS)
    inner: Any = base.model.base_model
    with torch.no_grad():
        found = model(**batch).logits
        prefix = inner.virtual_tokens.encoded()
        del inner.virtual_tokens
        inner._forward_pre_hooks.clear()
        inner._forward_hooks.clear()
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        theirs = get_peft_model(base.model, config).eval()
        # theirs has keys and values of all layers in the order layer, heads of keys, of values
        theirs.prompt_encoder["default"].embedding.weight.copy_(prefix)
        expected = theirs(**batch).logits
    is_text = batch["attention_mask"].bool()
    assert torch.allclose(found[is_text], expected[is_text], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_packed_rows_are_refused(name: str, tmp_path: Path) -> None:
    """They would share the prompt of the first."""
    recipe = recipe_of(
        make_any(tmp_path / "model", "llama"),
        write_pairs(tmp_path / "data"),
        name,
        padding="packed",
    )
    job = training_job(ready(recipe, name), tmp_path)
    with pytest.raises(ModelError, match=f"with {METHODS[name].title}"):
        loop.train(job, Recorder())


def test_rows_that_are_too_long_with_the_prompt_are_refused(
    tiny_recipe: Path, tiny_models: dict[str, Path]
) -> None:
    (run, *_) = runs(tiny_recipe, "prompt_tuning", "data.max_length=62")
    checked = prepare(run.recipe, (run.method,), "cpu", threads=1)
    reason = checked.unsupported["prompt_tuning"]
    assert "adds 4 tokens to each row" in reason
    assert reason.endswith("set data.max_length = 60 or less")


@pytest.mark.parametrize("name", ["prompt_tuning", "p_tuning", "prefix_tuning", "p_tuning_v2"])
def test_a_prompt_that_leaves_no_room_for_rows_is_refused(name: str) -> None:
    """No length of rows helps there: the number of virtual tokens has to change."""
    method = METHODS.create(name, {"learning_rate": 0.1, "num_virtual_tokens": 64}, "test")
    reason = too_long(64, 32, method)
    assert reason is not None
    assert reason.endswith(f"use fewer virtual tokens (methods.{name})")
    assert "max_length" not in reason
