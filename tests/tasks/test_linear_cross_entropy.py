"""The fused loss: losses and gradients of whole logits, for every kind of projection."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from builders import DECODER, DECODERS, TINY
from peft_methods.models.projection import (
    CAPPED,
    DIVIDED,
    KNOWN,
    MULTIPLIED,
    Projection,
    projection_of,
)
from peft_methods.tasks import linear_cross_entropy
from peft_methods.tasks.collate import EXAMPLES, NO_LABEL
from peft_methods.tasks.linear_cross_entropy import CHUNK_LOSSES, summed_loss, token_losses
from peft_methods.tasks.lm_loss import predicted_tokens
from peft_methods.tasks.lm_loss import summed_loss as loss_of_batch
from peft_methods.tasks.registry import TASKS

TASK = TASKS["causal_lm"]
MORE: dict[str, Any] = {
    "cohere": lambda: transformers.CohereConfig(**DECODER, logit_scale=0.3),
    "cohere2": lambda: transformers.Cohere2Config(**DECODER, logit_scale=0.3),
    "granite": lambda: transformers.GraniteConfig(**DECODER, logits_scaling=0.2),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **DECODER, head_dim=8, final_logit_softcapping=2.0
    ),
    "gemma2": lambda: transformers.Gemma2Config(**DECODER, head_dim=8, final_logit_softcapping=2.0),
    "olmo2": lambda: transformers.Olmo2Config(**DECODER),
    "starcoder2": lambda: transformers.Starcoder2Config(**DECODER),
    "stablelm": lambda: transformers.StableLmConfig(**DECODER),
}
CONFIGS = {**DECODERS, **MORE}


def whole(states: torch.Tensor, projection: Projection, targets: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of whole logits, as transformers computes it."""
    logits = torch.nn.functional.linear(states, projection.weight, projection.bias).float()
    logits = logits * projection.scale
    if projection.cap is not None:
        logits = torch.tanh(logits / projection.cap) * projection.cap
    return cross_entropy(logits, targets, reduction="sum", ignore_index=NO_LABEL)


@pytest.mark.parametrize("rows", [0, 3, 64, 150])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, 3.0)])
@pytest.mark.parametrize("trained", [(True, False), (True, True), (False, True)])
def test_loss_and_gradients_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    scale: float,
    cap: float | None,
    trained: tuple[bool, bool],
) -> None:
    monkeypatch.setattr(linear_cross_entropy, "LARGEST_CHUNK", 64 * 50)
    torch.manual_seed(1)
    targets = torch.randint(0, 50, (rows,))
    targets[::3] = NO_LABEL
    found = []
    for fused in (False, True):
        torch.manual_seed(2)
        states = torch.randn(rows, 8, requires_grad=trained[0])
        weight, bias = (torch.randn(*size, requires_grad=trained[1]) for size in ((50, 8), (50,)))
        projection = Projection(weight, bias, scale, cap)
        loss = (summed_loss if fused else whole)(states, projection, targets)
        torch.autograd.backward(loss * 0.5)
        found.append((loss.detach(), states.grad, weight.grad, bias.grad))
    for plain, ours in zip(*found, strict=True):
        assert (plain is None) == (ours is None)
        assert plain is None or torch.allclose(plain, ours, atol=1e-5)


def test_losses_of_tokens_sum_up_and_need_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "LARGEST_CHUNK", 64 * 50)
    torch.manual_seed(1)
    states, weight = torch.randn(150, 8, requires_grad=True), torch.randn(50, 8)
    targets = torch.randint(0, 50, (150,))
    targets[7] = NO_LABEL
    projection = Projection(weight)
    each = token_losses(states, projection, targets)
    assert each.shape == (150,)
    assert float(each[7]) == 0
    assert not each.requires_grad
    assert float(each.sum()) == pytest.approx(
        float(summed_loss(states, projection, targets).detach())
    )


def test_no_more_than_a_chunk_of_outputs_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "LARGEST_CHUNK", 128 * 50)
    shapes: list[tuple[int, ...]] = []
    hook = CHUNK_LOSSES.register_forward_hook(lambda _, given, __: shapes.append(given[0].shape))
    states, targets = torch.randn(300, 8, requires_grad=True), torch.zeros(300, dtype=torch.long)
    summed_loss(states, Projection(torch.randn(50, 8)), targets).backward()
    hook.remove()
    assert shapes == [(128, 50), (128, 50), (44, 50)]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_products_have_the_precision_of_autocast(precision: torch.dtype) -> None:
    torch.manual_seed(1)
    weight = torch.randn(50, 8, requires_grad=True)
    targets = torch.randint(0, 50, (90,))
    grads = []
    for fused in (False, True):
        torch.manual_seed(2)
        states = torch.randn(90, 8, requires_grad=True)
        weight.grad = None
        with torch.autocast("cpu", precision):
            loss = (summed_loss if fused else whole)(states, Projection(weight), targets)
        loss.backward()
        assert states.grad is not None
        assert weight.grad is not None
        grads.append((loss.detach(), states.grad.clone(), weight.grad.clone()))
        assert weight.grad.dtype == torch.float32
    for plain, ours in zip(*grads, strict=True):
        assert torch.allclose(plain, ours, atol=1e-2 * float(plain.abs().max()))


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_the_loss_is_the_models_own_for_every_known_model_type(kind: str) -> None:
    """It must know all that a model does with the outputs of its projection."""
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
    for parameter in model.parameters():  # so that caps and scales matter
        parameter.data.mul_(3)
    projection = projection_of(model)
    assert projection is not None
    assert (projection.scale != 1) == (kind in {*MULTIPLIED, *DIVIDED})
    assert (projection.cap is not None) == (kind in CAPPED)
    ids = torch.randint(5, 60, (3, 9))
    labels = ids.clone()
    labels[:, :3] = NO_LABEL
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    model.zero_grad()
    own = model(**batch).loss
    own.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = loss_of_batch(model, {**batch, EXAMPLES: predicted_tokens(labels)}) / 18
    found.backward()
    assert float(found.detach()) == pytest.approx(float(own.detach()), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-5, rtol=1e-3), name


def test_models_with_another_projection_have_its_outputs_for_learnt_places_alone() -> None:
    model = transformers.AutoModelForCausalLM.from_config(DECODERS["llama"]()).eval()
    model.config.model_type = "unknown"
    assert projection_of(model) is None
    shapes = []
    model.lm_head.register_forward_hook(lambda _, given, made: shapes.append(made.shape))
    ids = torch.randint(5, 60, (2, 5))
    batch = {"input_ids": ids, "labels": ids.clone()}
    batch["labels"][:, :3] = NO_LABEL
    loss = float(loss_of_batch(model, batch).detach())
    assert shapes == [(4, TINY["vocab_size"])]
    model.config.model_type = "llama"
    assert loss == pytest.approx(float(loss_of_batch(model, batch).detach()), rel=1e-6)
