"""Compare bottleneck adapters and AdapterFusion with the `adapters` library.

With the same weights both must give the same results in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from builders import TASK
from peft_methods.methods.adapters.bottleneck import Adapter
from peft_methods.methods.adapters.fusion import AdapterFusion
from peft_methods.methods.adapters.modules import Bottleneck, Fusion
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.models.architecture import Architecture, architecture_of

REASON = "needs the adapters library, which requires a specific version of transformers"
adapters = pytest.importorskip("adapters", reason=REASON)
modeling = pytest.importorskip("adapters.methods.modeling", reason=REASON)

# Largest difference allowed between float64 results of the same sums in different order.
EXACT = 1e-10
# Smallest change of the logits that a changed weight must cause.
VISIBLE = 1e-5
# Standard deviation of random weights: large enough that each weight matters, too small to
# saturate a softmax.
SPREAD = 0.2
# This bias shifts all scores of a token equally, which softmax ignores.
WITHOUT_EFFECT = ".key.bias"

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
ROOM = {"vocab_size": 50, "max_position_embeddings": 24, "num_labels": 3}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**ROOM, **SIZES),
    "roberta": lambda: transformers.RobertaConfig(**ROOM, **SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(
        **ROOM, dim=32, n_layers=2, n_heads=2, hidden_dim=64
    ),
    "mpnet": lambda: transformers.MPNetConfig(**ROOM, **SIZES),
}
# The library supports any other family only through hooks at named modules.
BUILT_IN = ("bert", "roberta", "distilbert")

SOURCES = ("a", "b", "c")
METHODS: dict[str, Method] = {
    "houlsby": Adapter(learning_rate=0.01, placement="houlsby", reduction_factor=4),
    "pfeiffer": Adapter(learning_rate=0.01, placement="pfeiffer", reduction_factor=4),
    "fusion": AdapterFusion(
        learning_rate=0.01, sources=SOURCES, source_learning_rate=0.01, reduction_factor=4
    ),
}


@dataclass(frozen=True)
class ModelPair:
    """The same classifier with our modules and with the library's.

    `weights` holds the pairs of copied parameters (ours, theirs).
    """

    method: Method
    architecture: Architecture
    head: tuple[str, ...]
    ours: nn.Module
    theirs: Any
    weights: dict[str, tuple[nn.Parameter, nn.Parameter]]


def make_base(family: str) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(SPREAD * torch.randn_like(parameter))
    if family not in BUILT_IN:
        # The library's hooks use the last layer's norm in every layer: their closure captures the
        # loop variable.
        layers = model.base_model.encoder.layer
        for layer in layers:
            layer.output.LayerNorm.load_state_dict(layers[-1].output.LayerNorm.state_dict())
    return model


def mpnet_interface() -> Any:
    return adapters.AdapterModelInterface(
        adapter_methods=["bottleneck"],
        model_embeddings="embeddings",
        model_layers="encoder.layer",
        layer_self_attn="attention.attn",
        layer_cross_attn=None,
        attn_q_proj="q",
        attn_k_proj="k",
        attn_v_proj="v",
        attn_o_proj="o",
        layer_intermediate_proj="intermediate.dense",
        layer_output_proj="output.dense",
        layer_pre_self_attn="attention",
        layer_pre_ffn="intermediate",
        layer_ln_1="attention.LayerNorm",
        layer_ln_2="output.LayerNorm",
    )


def apply_theirs(model: Any, kind: str) -> Any:
    adapters.init(
        model, interface=None if model.config.model_type in BUILT_IN else mpnet_interface()
    )
    if kind == "fusion":
        for source in SOURCES:
            model.add_adapter(source, config=adapters.SeqBnConfig(reduction_factor=4))
        setup = adapters.Fuse(*SOURCES)
        model.add_adapter_fusion(setup, "dynamic")
        model.train_adapter_fusion(setup)
    else:
        config = adapters.DoubleSeqBnConfig if kind == "houlsby" else adapters.SeqBnConfig
        model.add_adapter("a", config=config(reduction_factor=4))
        model.train_adapter("a")
    return model


def modules_of_type(model: nn.Module, kind: type[nn.Module]) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]


def linear_pairs(ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[str, nn.Linear, nn.Linear]]:
    for (name, mine), (_, other) in zip(
        modules_of_type(ours, Bottleneck), modules_of_type(theirs, modeling.Adapter), strict=True
    ):
        yield f"{name}.down", mine.down, other.adapter_down[0]
        yield f"{name}.up", mine.up, other.adapter_up
    for (name, mine), (_, other) in zip(
        modules_of_type(ours, Fusion), modules_of_type(theirs, modeling.BertFusion), strict=True
    ):
        for part in ("query", "key", "value"):
            yield f"{name}.{part}", getattr(mine, part), getattr(other, part)


def copy_weights(
    ours: nn.Module, theirs: nn.Module
) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Set random weights in all of the library's modules and copy them to ours."""
    weights: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
    for name, mine, other in linear_pairs(ours, theirs):
        for parameter in other.parameters():
            nn.init.normal_(parameter, std=SPREAD)
        mine.load_state_dict(other.state_dict())
        weights |= {
            f"{name}.{leaf}": (parameter, other.get_parameter(leaf))
            for leaf, parameter in mine.named_parameters()
        }
    return weights


def make_models(family: str, kind: str) -> ModelPair:
    base, method = make_base(family), METHODS[kind]
    head = tuple(name for name, _ in base.named_children() if name != base.base_model_prefix)
    size = sum(p.numel() for name, p in base.named_parameters() if in_head(name, head))
    architecture = architecture_of(
        base.config,
        head_parameters=size,
        pooler=getattr(base.base_model, "pooler", None) is not None,
    )
    theirs = apply_theirs(copy.deepcopy(base), kind).double().eval()
    ours = (
        method.apply(copy.deepcopy(base), ApplyContext(architecture, head, TASK.peft_type))
        .double()
        .eval()
    )
    return ModelPair(method, architecture, head, ours, theirs, copy_weights(ours, theirs))


@pytest.fixture(params=[(family, kind) for family in CONFIGS for kind in METHODS], ids="-".join)
def models(request: pytest.FixtureRequest) -> ModelPair:
    return make_models(*request.param)


def in_head(parameter: str, head: tuple[str, ...]) -> bool:
    return parameter.partition(".")[0] in head


def logits(model: Any) -> Tensor:
    """Return the logits of a random batch whose first row is padded."""
    ids = torch.randint(5, ROOM["vocab_size"], (4, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[0, 5:], mask[0, 5:] = model.config.pad_token_id, 0
    result: Tensor = model(input_ids=ids, attention_mask=mask).logits
    return result


def gradients(models: ModelPair, side: int) -> dict[str, Tensor | None]:
    """Return the gradients of the method's and the head's trained weights.

    `side` selects our model (0) or the library's (1).
    """
    model = (models.ours, models.theirs)[side]
    loss = functional.cross_entropy(logits(model), torch.tensor([0, 1, 2, 1]))
    torch.autograd.backward(loss)
    head = {
        name: parameter
        for name, parameter in model.named_parameters()
        if in_head(name, models.head)
    }
    parameters = {name: pair[side] for name, pair in models.weights.items()} | head
    return {
        name: parameter.grad for name, parameter in parameters.items() if parameter.requires_grad
    }


def trained(model: nn.Module, head: tuple[str, ...]) -> int:
    """Count the trainable parameters outside the head."""
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.requires_grad and not in_head(name, head)
    )


def assert_same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=EXACT)


def test_logits_equal_those_of_the_library(models: ModelPair) -> None:
    assert_same(logits(models.ours), logits(models.theirs))


def test_gradients_equal_those_of_the_library(models: ModelPair) -> None:
    ours, theirs = gradients(models, 0), gradients(models, 1)
    assert all(
        gradient is not None and (gradient.any() or name.endswith(WITHOUT_EFFECT))
        for name, gradient in ours.items()
    )
    assert_same(ours, theirs)


# MPNet is left out: there the library's hooks are before the model's dropout. In all other families
# its adapters come after the dropout, as ours do.
@pytest.mark.parametrize("family", BUILT_IN)
@pytest.mark.parametrize("kind", METHODS)
def test_dropout_drops_the_same_elements_as_in_the_library(family: str, kind: str) -> None:
    models = make_models(family, kind)
    without_dropout, dropped = logits(models.ours), []
    for model in (models.ours, models.theirs):
        torch.manual_seed(5)
        dropped.append(logits(model.train()))
    assert (dropped[0] - without_dropout).abs().max() > VISIBLE
    assert_same(*dropped)


def test_trainable_parameters_equal_those_of_the_library(models: ModelPair) -> None:
    expected = models.method.expected_trainable(models.architecture)
    assert trained(models.ours, models.head) == trained(models.theirs, models.head) == expected


@torch.no_grad()
def test_logits_depend_on_every_copied_weight(models: ModelPair) -> None:
    expected = logits(models.theirs)
    for name, (parameter, _) in models.weights.items():
        before = parameter.clone()
        parameter.add_(0.01 * torch.randn_like(parameter))
        moved = (logits(models.ours) - expected).abs().max()
        parameter.copy_(before)
        assert moved < EXACT if name.endswith(WITHOUT_EFFECT) else moved > VISIBLE, name


@pytest.mark.parametrize("family", CONFIGS)
def test_fusion_regularisation_and_gradient_equal_those_of_the_library(family: str) -> None:
    models = make_models(family, "fusion")
    ours, theirs = (
        models.method.penalty(models.ours),
        models.theirs.base_model.get_fusion_regularization_loss(),
    )
    assert ours is not None
    assert_same(ours, theirs)
    values = [pair for name, pair in models.weights.items() if name.endswith(".value.weight")]
    assert len(values) == models.architecture.layers
    mine = torch.autograd.grad(ours, [pair[0] for pair in values])
    assert_same(mine, torch.autograd.grad(theirs, [pair[1] for pair in values]))
