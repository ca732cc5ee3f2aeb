"""LoRA over weights that torchao quantises, and what is left out of other quantised formats."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TorchAoConfig
from transformers.quantizers.quantizer_hqq import HqqHfQuantizer
from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer
from transformers.utils.quantization_config import QuantizationMethod

from builders import LACKING, TASK, prepared, run_here, small_runs
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading, quantization
from peft_methods.models.architecture import Architecture
from peft_methods.models.torchao_weights import is_from_torchao, parts_of
from peft_methods.profiling.peak_memory import _weights
from peft_methods.recipes.schema import Budget, ModelSpec
from peft_methods.training.distributed.support import unsupported_on_several
from peft_methods.utils.errors import ModelError

NAME = "lora_torchao"
needs_torchao = pytest.mark.skipif(NAME in LACKING, reason="needs the extra `torchao`")


def load(folder: Path) -> loading.LoadedModel:
    return loading.load(
        ModelSpec(str(folder)), TASK.head, ("no", "yes"), quantization="torchao_int8"
    )


def test_missing_package_is_named_with_its_extra(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)  # as if it were not installed
    method = METHODS.create(NAME, {"learning_rate": 1e-3}, "test")
    known: Architecture = loading.load(
        ModelSpec(str(tiny_models["bert"])), TASK.head, ("no", "yes")
    ).architecture
    install = "pip install peft-methods[torchao]"
    assert method.unsupported(known, "cpu") == f"LoRA over torchao int8 needs torchao: {install}"
    with pytest.raises(ModelError) as caught:
        load(tiny_models["bert"])
    assert str(caught.value).endswith(f"quantised by torchao needs it: {install}")


@needs_torchao
def test_weights_of_the_encoder_are_integers_with_a_scale_for_each_row(
    tiny_recipe: Path, tiny_models: dict[str, Path]
) -> None:
    import torch._inductor.config as compiler

    before = compiler.save_config_portable()
    model = prepared(tiny_recipe, NAME)[3]
    assert compiler.save_config_portable() == before
    stored = {n: p for n, p in model.named_parameters() if quantization.is_quantized(p)}
    assert len(stored) == 2 * 6
    assert not any("classifier" in name or "pooler" in name for name in stored)
    exact = dict(prepared(tiny_recipe, "full")[3].named_parameters())
    for name, parameter in stored.items():
        weight = exact[name.removeprefix("base_model.model.").replace(".base_layer", "")]
        integers, scales, *_ = parts_of(parameter)
        assert (integers.dtype, scales.shape) == (torch.int8, (len(weight), 1))
        rounded = quantization.values_of(parameter)
        assert ((rounded - weight).abs() <= 0.501 * scales).all()


@needs_torchao
def test_memory_of_weights_is_that_of_integers_and_scales(tiny_models: dict[str, Path]) -> None:
    model = load(tiny_models["bert"]).model
    found = [tensor for tensor in _weights(model) if not is_from_torchao(tensor)]
    assert all(tensor.untyped_storage().data_ptr() for tensor in found)
    integers = sum(tensor.numel() for tensor in found if tensor.dtype == torch.int8)
    rows = sum(len(p) for p in model.parameters() if is_from_torchao(p))
    quantized = sum(p.numel() for p in model.parameters() if is_from_torchao(p))
    assert integers == quantized + rows  # a zero point for each row


@needs_torchao
def test_autograd_keeps_converted_weights(tiny_recipe: Path) -> None:
    """If this fails, torchao needs less memory: change what the method's docstring says."""
    model = prepared(tiny_recipe, NAME)[3]
    (layer,) = (
        module for name, module in model.named_modules() if name.endswith("layer.0.output.dense")
    )
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        layer(torch.randn(3, layer.in_features, requires_grad=True))
    shape = {layer.in_features, layer.out_features}
    assert [one.dtype for one in kept if set(one.shape) == shape] == [torch.float32]


@needs_torchao
def test_run_trains_and_its_record_says_what_was_quantised(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    (run,) = small_runs(tiny_recipe, NAME)
    record, _ = run_here(run, tmp_path)
    assert record.status == "ok", record.message
    assert record.evidence.quantized == 2 * 6
    assert record.evidence.head_quantized == 0
    assert record.evidence.frozen_changed == ()
    assert record.environment["packages"]["torchao"]


@needs_torchao
def test_several_gpus_are_refused_since_the_weights_cannot_be_sent(
    tiny_models: dict[str, Path],
) -> None:
    """DDP sends flat views of all weights. If there are such views, try the strategy `ddp`."""
    method = METHODS.create(NAME, {"learning_rate": 1e-3}, "test")
    budget = Budget(epochs=1, batch_size=8, gpus=2, strategy="ddp")
    reason = unsupported_on_several(method, budget)
    assert reason is not None
    assert reason.endswith("cannot be trained with budget.strategy = 'ddp': set budget.gpus = 1")
    weights = [p for p in load(tiny_models["bert"]).model.parameters() if is_from_torchao(p)]
    with pytest.raises(NotImplementedError, match=r"aten\.view"):
        weights[0].view(-1)


def test_hqq_is_left_out_since_transformers_quantises_no_such_weights() -> None:
    """If this fails, it does: a method can be added, and docs/reference/methods.md changed."""
    quantizer = object.__new__(HqqHfQuantizer)  # to make one needs the package hqq
    config: Any = SimpleNamespace(quant_method=QuantizationMethod.HQQ)
    quantizer.quantization_config = config
    with pytest.raises(NotImplementedError, match="HQQ is not available yet"):
        quantizer.get_quantize_ops()


@needs_torchao
def test_four_bits_are_left_out_since_transformers_does_not_train_them() -> None:
    """If this fails, it does: a method can be added, and docs/reference/methods.md changed."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    able = {
        kind: TorchAoHfQuantizer(TorchAoConfig(kind())).is_trainable
        for kind in (Int4WeightOnlyConfig, Int8WeightOnlyConfig)
    }
    assert able == {Int4WeightOnlyConfig: False, Int8WeightOnlyConfig: True}
