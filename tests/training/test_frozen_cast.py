"""Frozen weights cast once: results are bit-identical, and the model's weights are restored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from builders import METHOD_NAMES, prepared
from peft_methods.models.quantization import values_of
from peft_methods.tasks.collate import Collator
from peft_methods.training.cuda_graphs.frozen_cast import frozen_cast
from peft_methods.training.precision import HALF


def loss_and_gradients(
    model: nn.Module, batch: dict[str, torch.Tensor], precision: str
) -> list[torch.Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", HALF.get(precision), enabled=precision in HALF, cache_enabled=False):
        loss = model(**batch).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_frozen_cast_keeps_loss_and_gradients_identical(
    tiny_recipe: Path, name: str, precision: str
) -> None:
    _, method, base, model, tokens = prepared(tiny_recipe, name)
    batch = Collator(base.tokenizer)([tokens.train[row] for row in range(8)])
    model.eval()
    expected = loss_and_gradients(model, batch, precision)
    original = {key: value.clone() for key, value in model.state_dict().items()}
    with frozen_cast(model, precision, reads_weights=method.info.reads_weights) as cast:
        found = loss_and_gradients(model, batch, precision)
    assert len(found) == len(expected) > 1
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(
        parameter.dtype == HALF[precision] and not parameter.requires_grad for parameter in cast
    )
    assert bool(cast) == (name != "full")
    assert all(
        value.dtype == original[key].dtype
        and torch.equal(values_of(value), values_of(original[key]))
        for key, value in model.state_dict().items()
    )


def test_frozen_cast_only_casts_weights_that_autocast_casts(tiny_recipe: Path) -> None:
    _, _, _, model, _ = prepared(tiny_recipe, "lora")
    before = dict(model.named_parameters())
    with frozen_cast(model, "bf16"):
        changed = {
            name
            for name, parameter in model.named_parameters()
            if parameter.dtype == torch.bfloat16
        }
    frozen = {name for name, parameter in before.items() if not parameter.requires_grad}
    assert changed < frozen
    assert not any("embeddings" in name or "LayerNorm" in name for name in changed)
    assert {
        name for name in frozen - changed if "embeddings" not in name and "LayerNorm" not in name
    } == set()


def test_frozen_cast_skips_full_precision_and_restores_weights_after_an_error(
    tiny_recipe: Path,
) -> None:
    _, _, _, model, _ = prepared(tiny_recipe, "lora")
    with frozen_cast(model, "fp32") as cast:
        assert not cast
    before = list(model.parameters())
    with pytest.raises(RuntimeError), frozen_cast(model, "bf16"):
        raise RuntimeError
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
