"""Which methods' adapters become LoRA's: what a method says, what PEFT does, and what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from builders import TASK, make_any
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.methods.conversion import (
    as_lora,
    convertible,
    converts_to_lora,
    highest_rank,
    refusal,
)
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError, OptionError

OF_PEFT = [name for name in METHODS if issubclass(METHODS[name], TargetedPeftMethod)]
IDS = torch.randint(5, 30, (4, 9), generator=torch.Generator().manual_seed(3))
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}

pytest.importorskip("peft.tuners.lora.conversion")  # not in the oldest version


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: make_any(root / kind, kind, vivid=True) for kind in ("bert", "roberta", "gpt2")}


def method_of(name: str, **settings: Any) -> Method:
    example = METHODS[name].example_settings()
    return METHODS.create(name, {"learning_rate": 0.01, **example, **settings}, "test")


def load(folder: Path, method: Method) -> loading.LoadedModel:
    torch.manual_seed(1)
    names = ("no", "yes", "maybe")
    return loading.load(
        ModelSpec(str(folder)), TASK.head, names, quantization=method.info.quantization
    )


def adapted(folder: Path, method: Method) -> tuple[loading.LoadedModel, Any]:
    """Return a model with an adapter that changes its outputs."""
    base = load(folder, method)
    if (reason := method.unsupported(base.architecture, "cpu")) is not None:
        pytest.skip(reason)
    context = ApplyContext(
        base.architecture,
        base.head,
        TASK.peft_type,
        unquantized=lambda: load(folder, method_of("full")).model,
        train_batches=lambda most: [BATCH] * most,
    )
    model = method.apply(base.model, context).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return base, model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**BATCH).logits
    return found


def converted_logits(folder: Path, method: Method, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of an adapted model, and of LoRA over a new copy of the base model."""
    from peft import get_peft_model, set_peft_model_state_dict

    base, model = adapted(folder, method)
    adapter = as_lora(model, method, rank, base.head)
    counted = sum(t.numel() for name, t in adapter.tensors.items() if ".lora_" in name)
    assert counted == adapter.method.expected_trainable(base.architecture)
    other = get_peft_model(load(folder, method_of("full")).model, adapter.config)
    result = set_peft_model_state_dict(other, adapter.tensors)
    assert result.unexpected_keys == []
    trained = [n for n in result.missing_keys if "lora_" in n or "modules_to_save" in n]
    assert trained == []
    return logits(model), logits(other)


@pytest.mark.parametrize("name", OF_PEFT)
def test_what_a_method_says_is_what_pefts_conversion_gives(
    name: str, models: dict[str, Path]
) -> None:
    """At the full rank. What PEFT refuses or does wrong fails here once it is right."""
    method = method_of(name)
    try:
        own, other = converted_logits(models["bert"], method, rank=32)
    except (ModelError, OptionError, ValueError) as error:
        assert not converts_to_lora(METHODS[name]), error
    else:
        assert torch.allclose(own, other, atol=1e-3) == converts_to_lora(METHODS[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vera", "roberta"),
        ("lora", "gpt2"),
        *(
            pytest.param(name, kind, marks=pytest.mark.slow)
            for name in convertible()
            for kind in ("roberta", "gpt2")
            if (name, kind) not in {("vera", "roberta"), ("lora", "gpt2")}
        ),
    ],
)
def test_conversion_holds_on_other_models(name: str, kind: str, models: dict[str, Path]) -> None:
    """RoBERTa's head has several layers, of which PEFT's own saving keeps one."""
    try:
        own, other = converted_logits(models[kind], method_of(name), rank=32)
    except ModelError as error:
        assert kind == "gpt2"
        assert f"PEFT cannot convert {METHODS[name].title} on this model" in str(error)
    else:
        assert torch.allclose(own, other, atol=1e-3)


def test_a_lower_rank_is_an_approximation(models: dict[str, Path]) -> None:
    own, near = converted_logits(models["bert"], method_of("vera"), rank=12)
    _, far = converted_logits(models["bert"], method_of("vera"), rank=1)
    assert 1e-4 < float((own - near).abs().max()) < float((own - far).abs().max())


def test_miss_keeps_the_rank_that_it_is(models: dict[str, Path]) -> None:
    base, model = adapted(models["bert"], method_of("miss", rank=8))
    assert as_lora(model, method_of("miss"), 2, base.head).method.rank == 8


def test_a_rank_above_the_matrices_is_refused(models: dict[str, Path]) -> None:
    method = method_of("loha")
    base, model = adapted(models["bert"], method)
    assert highest_rank(model) == 32
    with pytest.raises(OptionError, match="rank = 33 is above the smallest matrix that LoHa") as it:
        as_lora(model, method, 33, base.head)
    assert "set it to 32 or less" in str(it.value)


def test_what_cannot_be_converted_is_refused_with_what_can() -> None:
    for name in METHODS:
        reason = refusal(method_of(name))
        assert (reason is None) == (name in convertible())
        assert reason is None or "Methods that can be converted: lora, lora_all, rslora" in reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dora", "DoRA cannot be converted to LoRA: PEFT would leave its lengths out."),
        ("pissa", "PiSSA cannot be converted to LoRA: PEFT would add its update to weights that"),
        ("qlora", "QLoRA cannot be converted to LoRA: PEFT converts no layers whose weights are"),
        ("adalora", "AdaLoRA cannot be converted to LoRA: PEFT has no conversion for its layers."),
        ("full", "Full fine-tuning cannot be converted to LoRA: only PEFT's adapters of linear"),
    ],
)
def test_a_refusal_has_the_reason_of_the_method(name: str, expected: str) -> None:
    reason = refusal(method_of(name))
    assert reason is not None
    assert reason.startswith(expected)
