"""Adapters in encoder-decoders: their places and number, and that they change nothing at first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from builders import SEQ2SEQ, TASK, make_any
from peft_methods.methods.adapters.bottleneck import Adapter
from peft_methods.methods.adapters.modules import AroundNorm, BeforeResidual, Bottleneck
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.architecture import Architecture, architecture_of
from peft_methods.models.linear_layers import count_model
from peft_methods.models.module_names import top_modules
from peft_methods.recipes.schema import ModelSpec

T5_PLACES = {
    "houlsby": ("layer.0.dropout", "layer.1.dropout", "layer.0.dropout", "layer.2.dropout"),
    "pfeiffer": ("layer.1.dropout", "layer.2.dropout"),
}
BART_PLACES = {
    "houlsby": ("self_attn.out_proj", "fc2") * 2,
    "pfeiffer": ("final_layer_norm",) * 2,
}
PLACES = {
    **dict.fromkeys(("t5", "mt5"), T5_PLACES),
    **dict.fromkeys(("bart", "plbart"), BART_PLACES),
    "mbart": {**BART_PLACES, "pfeiffer": ("fc2",) * 2},
}
CASES = [(kind, placement) for kind in SEQ2SEQ for placement in ("houlsby", "pfeiffer")]


def adapter(placement: str, reduction: int = 4) -> Adapter:
    settings = {"learning_rate": 0.01, "placement": placement, "reduction_factor": reduction}
    method = METHODS.create("adapter", settings, "test")
    assert isinstance(method, Adapter)
    return method


def load(folder: Path, kind: str) -> loading.LoadedModel:
    return loading.load(ModelSpec(str(make_any(folder, kind))), TASK.head, ("no", "yes"))


def logits(base: loading.LoadedModel) -> torch.Tensor:
    rows = [{"input_ids": [2, 9, 7, 5, 3], "attention_mask": [1] * 5, "labels": 0}]
    rows += [{"input_ids": [2, 9, 6, 3], "attention_mask": [1] * 4, "labels": 1}]
    with torch.no_grad():
        return TASK.predict(base.model.eval(), TASK.collator(base.tokenizer)(rows))


def apply(base: loading.LoadedModel, placement: str) -> dict[str, Bottleneck]:
    """Apply the method and return its bottlenecks by the places that they are around."""
    method = adapter(placement)
    method.apply(base.model, ApplyContext(base.architecture, base.head, TASK.peft_type))
    return {
        name.removesuffix(".adapter"): module
        for name, module in base.model.named_modules()
        if isinstance(module, Bottleneck)
    }


@pytest.mark.parametrize(("kind", "placement"), CASES)
def test_adapters_are_in_both_lists_of_layers_and_change_nothing_at_first(
    kind: str, placement: str, tmp_path: Path
) -> None:
    base = load(tmp_path, kind)
    before = logits(base)
    found = apply(base, placement)
    assert torch.allclose(logits(base), before, atol=1e-5)
    layers = "block" if "t5" in kind else "layers"
    own = PLACES[kind][placement]
    half = len(own) // 2
    expected = {
        f"{base.model.base_model_prefix}.{part}.{layers}.{number}.{path}"
        for part, paths in (("encoder", own[:half]), ("decoder", own[half:]))
        for number in range(2)
        for path in paths
    }
    assert set(found) == expected
    expected_count = len(expected) * (2 * 32 * 8 + 8 + 32)
    assert adapter(placement).expected_trainable(base.architecture) == expected_count
    assert sum(p.numel() for one in found.values() for p in one.parameters()) == expected_count


@pytest.mark.parametrize(("kind", "placement"), CASES)
def test_every_adapter_changes_the_outputs_once_it_is_trained(
    kind: str, placement: str, tmp_path: Path
) -> None:
    base = load(tmp_path, kind)
    found = apply(base, placement)
    before = logits(base)
    for name, one in found.items():
        nn.init.normal_(one.up.weight, std=10.0)
        assert not torch.allclose(logits(base), before, atol=1e-6), name
        nn.init.zeros_(one.up.weight)
    assert torch.equal(logits(base), before)


@pytest.mark.parametrize("kind", list(SEQ2SEQ))
def test_the_ends_are_where_the_residual_sum_is(kind: str, tmp_path: Path) -> None:
    """A post-norm layer returns its norm's output; in others the end's output is an addend."""
    base = load(tmp_path, kind)
    for ends in base.architecture.ends:
        body = getattr(base.model, base.model.base_model_prefix)
        layer: Any = body.get_submodule(f"{ends.layers}.1")
        kept: dict[str, list[torch.Tensor]] = {"layer": [], "end": []}
        layer.register_forward_hook(lambda _, __, out, kept=kept: kept["layer"].append(first(out)))
        if ends.ffn_norm:
            layer.get_submodule(ends.ffn_norm).register_forward_hook(
                lambda _, __, out, kept=kept: kept["end"].append(out)
            )
            logits(base)
            assert torch.equal(kept["layer"][0], kept["end"][0])
            continue
        end = layer.get_submodule(ends.ffn_end)
        logits(base)
        end.register_forward_hook(lambda _, __, out, kept=kept: kept["end"].append(out) or 2 * out)
        logits(base)
        once, twice = kept["layer"]
        assert torch.allclose(twice - once, kept["end"][0], atol=1e-5)
        assert kept["end"][0].abs().max() > 1e-3


def first(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


def architecture(config: Any, auto: Any) -> tuple[Architecture, nn.Module]:
    with torch.device("meta"):
        model: nn.Module = auto.from_config(config)
    counted = count_model(model, top_modules(model))
    return architecture_of(config, head_parameters=0, pooler=False, counted=counted), model


@pytest.mark.parametrize(
    ("config", "layers", "expected"),
    [
        (transformers.T5Config(), 12, 12 * (2 * 512 * 32 + 32 + 512)),  # t5-small
        (transformers.BartConfig(), 24, 24 * (2 * 1024 * 64 + 64 + 1024)),  # bart-large
    ],
)
def test_counts_of_published_sizes(config: Any, layers: int, expected: int) -> None:
    found, _ = architecture(config, transformers.AutoModelForSequenceClassification)
    assert found.adapted_layers == layers
    assert adapter("pfeiffer", 16).expected_trainable(found) == expected
    assert adapter("houlsby", 16).expected_trainable(found) == 2 * expected
    assert expected in set(Adapter.possible_counts(found))


def test_an_encoder_alone_has_adapters_in_its_own_layers() -> None:
    config = SEQ2SEQ["t5"]()
    found, model = architecture(config, transformers.AutoModelForTokenClassification)
    assert found.adapted_layers == 2
    method = adapter("houlsby")
    model = transformers.AutoModelForTokenClassification.from_config(config)
    method.apply(model, ApplyContext(found, ("classifier",), "TOKEN_CLS"))
    placed = [one for one in model.modules() if isinstance(one, BeforeResidual | AroundNorm)]
    assert len(placed) == 4
    assert method.expected_trainable(found) == 4 * (2 * 32 * 8 + 8 + 32)


def test_a_type_without_known_ends_is_refused_and_the_known_ones_are_named() -> None:
    config = transformers.MvpConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
        encoder_attention_heads=2, decoder_attention_heads=2, vocab_size=64,
    )  # fmt: skip
    found, _ = architecture(config, transformers.AutoModelForSequenceClassification)
    reason = adapter("pfeiffer").unsupported(found, "cpu")
    assert reason is not None
    assert "t5, mt5, bart" in reason
    assert reason.endswith("not 'mvp'")
    assert found.adapted_layers == 0
