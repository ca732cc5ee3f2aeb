"""Parameters without gradient by architecture are excused; a method's or an engine's faults not."""

from __future__ import annotations

import pytest
import torch
import transformers

from builders import CONFIGS, MORE_CONFIGS, TASK
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.registry import METHODS
from peft_methods.models.architecture import architecture_of
from peft_methods.models.linear_layers import count_model
from peft_methods.models.module_names import top_modules
from peft_methods.training.idle_parameters import without_gradient


def build(kind: str) -> torch.nn.Module:
    config = {**CONFIGS, **MORE_CONFIGS}[kind]()
    model: torch.nn.Module = transformers.AutoModelForSequenceClassification.from_config(config)
    return model


def with_method(model: torch.nn.Module, name: str) -> torch.nn.Module:
    head = top_modules(model)
    method = METHODS.create(name, {"learning_rate": 0.1}, "test")
    architecture = architecture_of(
        model.config, head_parameters=0, pooler=False, counted=count_model(model, head)
    )
    return method.apply(model, ApplyContext(architecture, head, TASK.peft_type))


def idle(model: torch.nn.Module) -> set[str]:
    return set(without_gradient(model, [n for n, p in model.named_parameters() if p.requires_grad]))


@pytest.mark.parametrize("kind", ["modernbert", "fnet", "deberta"])
def test_no_parameter_is_idle_in_models_that_use_all(kind: str) -> None:
    assert idle(build(kind)) == set()


def test_biases_of_keys_are_idle_under_softmax_and_nothing_else_in_bert() -> None:
    layers = "bert.encoder.layer"
    assert idle(build("bert")) == {f"{layers}.{i}.attention.self.key.bias" for i in range(2)}


def test_local_attention_of_the_last_layer_is_idle_in_longformer() -> None:
    last = {name for name in idle(build("longformer")) if ".layer.1.attention.self." in name}
    local = {f"{role}.{part}" for role in ("query", "key", "value") for part in ("weight", "bias")}
    assert {name.rpartition(".self.")[2] for name in last} == {*local, "key_global.bias"}


def test_parameters_that_a_method_adds_to_idle_modules_are_idle() -> None:
    found = idle(with_method(build("longformer"), "lora"))
    changed = {name.partition(".self.")[2].partition(".lora")[0] for name in found}
    assert changed == {"query", "value"}
    assert all(".layer.1." in name for name in found)


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_no_parameter_of_a_method_is_idle_where_the_model_uses_it(name: str) -> None:
    assert idle(with_method(build("bert"), name)) == set()


def test_method_that_cuts_the_gradient_is_not_excused() -> None:
    model = with_method(build("bert"), "lora")
    for module in model.modules():
        module.register_forward_hook(lambda *given: given[2].detach()) if isinstance(
            module, torch.nn.Linear
        ) else None
    assert idle(model) == set()


def test_model_that_cannot_be_built_again_excuses_nothing() -> None:
    assert without_gradient(torch.nn.Linear(2, 2), ["weight"]) == frozenset()
