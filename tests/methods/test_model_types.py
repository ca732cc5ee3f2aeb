"""Models of many types train with the methods that can train them, and the counts hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import (
    CONFIGS,
    CORE,
    DECODERS,
    METHOD_NAMES,
    MORE_CONFIGS,
    SEQ2SEQ,
    SMALL,
    TASK,
    Recorder,
    make_any,
    mostly_slow,
    prepared,
    training_job,
)
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.prompts.p_tuning_v2 import ENCODERS as WITH_CACHE
from peft_methods.methods.prompts.p_tuning_v2 import WINDOWED
from peft_methods.methods.registry import METHODS
from peft_methods.methods.scaling.ia3_peft import DIFFERENT
from peft_methods.models import loading
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.models.parameters import count_parameters
from peft_methods.recipes.schema import ModelSpec
from peft_methods.tasks.collate import model_inputs
from peft_methods.training import weight_checks
from peft_methods.training.trainer import loop


def method_of(name: str) -> Method:
    return METHODS.create(name, {"learning_rate": 0.01, **METHODS[name].example_settings()}, "test")


EVERYWHERE = ("full", "bitfit", "lora", "ia3")
WITHOUT_BIASES = (
    *("modernbert", "llama", "mistral", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text"),
    *("phi3", "t5", "mt5"),
)
EVERY = (*CONFIGS, *MORE_CONFIGS, *DECODERS, *SEQ2SEQ)
UNKNOWN = [kind for kind in EVERY if kind not in MODULE_MAPS]
TARGETED = [name for name in METHODS if issubclass(METHODS[name], TargetedPeftMethod)]


def needing(needs: str) -> list[str]:
    return [name for name in METHODS if METHODS[name].info.needs == needs]


# Methods that cannot train a type, with a part of the reason.
REFUSED = {
    **{(kind, "bitfit"): f"{kind!r} has none" for kind in WITHOUT_BIASES},
    **{
        ("fnet", name): "needs linear layers for"
        for name in needing("linear layers")
        if method_of(name).needed_roles()
    },
    **{
        ("gpt2", name): "store their weights transposed"
        for name in METHODS
        if not getattr(METHODS[name], "takes_transposed", True)
    },
    **{
        (kind, name): "needs a model whose parts are known"
        for kind in UNKNOWN
        for name in (
            *needing("module map"),
            *(needing("layer ends") if kind not in SEQ2SEQ else ()),
        )
    },
    **{
        (kind, "ia3_peft"): "PEFT has the paper's targets or none"
        for kind in EVERY
        if kind not in DIFFERENT
    },
    **{
        (kind, name): "takes no prefix" if kind not in WINDOWED else "a sliding window"
        for kind in MODULE_MAPS
        for name in ("prefix_tuning", "p_tuning_v2")
        if kind in EVERY and (kind in WINDOWED or kind not in {*DECODERS, *WITH_CACHE})
    },
    **dict.fromkeys((("albert", "last_layers"), ("albert", "adapter_drop")), "share their weights"),
}
TRAINED = (*MORE_CONFIGS, "llama", "qwen2", "gemma3_text", "gpt2", "phi3", "opt", "t5", "bart")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model folder per type."""
    root = tmp_path_factory.mktemp("types")
    return {kind: make_any(root / kind, kind) for kind in EVERY}


CASES = [
    (kind, name)
    for kind in TRAINED
    for name in (*EVERYWHERE, "adapter")
    if (kind, name) not in REFUSED
]


@pytest.mark.parametrize(
    "kind",
    mostly_slow(EVERY, "modernbert", "deberta-v2", "llama", "gpt2"),
)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_on_every_type(kind: str, name: str, models: dict[str, Path]) -> None:
    """The outputs start as the base model's, and every trained parameter has a gradient."""
    method = method_of(name)
    spec = ModelSpec(str(models[kind]))
    base = loading.load(spec, TASK.head, ("no", "yes"), quantization=method.info.quantization)
    reason = method.unsupported(base.architecture, "cpu")
    assert (reason is not None) == ((kind, name) in REFUSED), reason
    if reason is not None:
        return
    end = [3] if kind in SEQ2SEQ else []
    batch = TASK.collator(base.tokenizer)(
        [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label}
            for label, ids in enumerate(([2, 9, 7, 5, *end], [2, 9, 6, *end]))
        ]
    )
    with torch.no_grad():
        before = TASK.predict(base.model.eval(), batch)
    context = ApplyContext(
        base.architecture,
        base.head,
        TASK.peft_type,
        unquantized=lambda: loading.load(spec, TASK.head, ("no", "yes")).model,
        train_batches=lambda most: [model_inputs(batch)] * most,
    )
    model = method.apply(base.model, context).eval()
    TASK.loss(model, batch).mean.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    counts = count_parameters(model, base.head)
    assert counts.method == method.expected_trainable(base.architecture)
    assert counts.head == base.architecture.head_parameters
    assert any(p.grad is not None and p.grad.any() for p in trained.values())
    if (tolerance := method.info.start_tolerance) is not None:
        assert torch.allclose(TASK.predict(model, batch), before, atol=tolerance + 1e-5)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_type_trains_with_the_expected_parameters(
    kind: str, name: str, models: dict[str, Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = (f"model.source={models[kind]}", *SMALL, "data.train=24")
    ready = _, method, base, model, _ = prepared(tiny_recipe, name, *settings)
    before = weight_checks.snapshot(model, tmp_path)
    trained = loop.train(training_job(ready, tmp_path), Recorder())
    evidence = weight_checks.weight_evidence(
        model,
        before,
        decay=trained.decay,
        architecture=base.architecture,
        head=base.head,
        method=method,
    )
    counts = count_parameters(model, base.head)
    assert evidence.expected_trainable
    assert (counts.method, counts.head) == (evidence.expected_trainable, evidence.head_parameters)
    assert (evidence.unmoved, evidence.frozen_changed) == ((), ())
    assert evidence.moved_checked > 0


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(*case, marks=() if case[1] in CORE else pytest.mark.slow)
        for case in sorted(REFUSED)
    ],
)
def test_type_that_a_method_cannot_train_is_refused_with_the_reason(
    kind: str, name: str, models: dict[str, Path]
) -> None:
    base = loading.load(ModelSpec(str(models[kind])), TASK.head, ("no", "yes"))
    reason = method_of(name).unsupported(base.architecture, "cpu")
    assert reason is not None
    assert REFUSED[kind, name] in reason


def test_targets_that_a_model_has_are_offered(models: dict[str, Path]) -> None:
    base = loading.load(ModelSpec(str(models["fnet"])), TASK.head, ("no", "yes"))
    method = METHODS.create("lora", {"learning_rate": 0.01}, "test")
    reason = method.unsupported(base.architecture, "cpu")
    assert reason is not None
    assert reason.endswith("set methods.lora.targets to some of its others: ffn_input, ffn_output")
    other = METHODS.create("lora", {"learning_rate": 0.01, "targets": ["ffn_output"]}, "test")
    assert other.unsupported(base.architecture, "cpu") is None
    assert other.expected_trainable(base.architecture) == 2 * 8 * (64 + 32)


def test_fused_matrix_is_one_target_for_query_key_and_value(models: dict[str, Path]) -> None:
    base = loading.load(ModelSpec(str(models["modernbert"])), TASK.head, ("no", "yes"))
    lora = METHODS.create("lora", {"learning_rate": 0.01, "rank": 4}, "test")
    ia3 = METHODS.create("ia3", {"learning_rate": 0.01}, "test")
    assert lora.expected_trainable(base.architecture) == 2 * 4 * (32 + 96)
    assert ia3.expected_trainable(base.architecture) == 2 * (96 + 64)


def test_shared_layers_are_counted_once(models: dict[str, Path]) -> None:
    base = loading.load(ModelSpec(str(models["albert"])), TASK.head, ("no", "yes"))
    lora = METHODS.create("lora", {"learning_rate": 0.01, "rank": 4}, "test")
    assert (base.architecture.layers, base.architecture.distinct_layers) == (2, 1)
    assert lora.expected_trainable(base.architecture) == 2 * 4 * (32 + 32)
