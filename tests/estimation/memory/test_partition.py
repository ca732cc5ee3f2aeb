"""What a compiled layer stores, by torch's partitioner, without data and beside a real compiler."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch._functorch.config as functorch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from peft_methods.estimation.memory.fake_model import fake_mode, without_data
from peft_methods.estimation.memory.partition import StoredSizes, stored_by_compiler
from peft_methods.estimation.memory.recorder import Recorder
from peft_methods.training.cuda_graphs.compile import STORED_BY_DEFAULT

ROWS, WIDTH = 96, 64


def layer_with_lora(dtype: torch.dtype) -> tuple[nn.Module, dict[str, Any]]:
    from peft import LoraConfig, get_peft_model

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=160,
        max_position_embeddings=128,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj"]))
    inner = model.get_base_model().model
    for name, weight in model.named_parameters():
        if not weight.requires_grad and "norm" not in name:
            weight.data = weight.data.to(dtype)
    places = torch.arange(ROWS)[None]
    turned = inner.rotary_emb(torch.empty(1, ROWS, WIDTH), places)
    options = {"attention_mask": None, "position_ids": places, "position_embeddings": turned}
    return inner.layers[0].train(), options


def stored(layer: nn.Module, options: dict[str, Any]) -> StoredSizes | None:
    mode = fake_mode()
    without_data(layer, mode)
    with mode, Recorder(mode), torch.autocast("cpu", torch.bfloat16):
        empty = {
            name: torch.empty(one.shape, dtype=one.dtype) if isinstance(one, torch.Tensor) else one
            for name, one in options.items()
        }
        empty["position_embeddings"] = tuple(
            torch.empty(one.shape, dtype=one.dtype) for one in options["position_embeddings"]
        )
        return stored_by_compiler(layer, (torch.empty(1, ROWS, WIDTH, requires_grad=True),), empty)


def stored_in_truth(layer: nn.Module, options: dict[str, Any]) -> Counter[int]:
    """Compile the layer, run it, and return the bytes of what it stores beside what it is given."""
    rows = torch.randn(1, ROWS, WIDTH, requires_grad=True)
    given = [*layer.parameters(), *layer.buffers(), rows, *options["position_embeddings"]]
    known = {one.untyped_storage().data_ptr() for one in given}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            found[place] = tensor.numel() * tensor.element_size()
        return tensor

    with functorch.patch(dict.fromkeys(STORED_BY_DEFAULT, False)):
        compiled = torch.compile(layer, backend="aot_eager_decomp_partition")
        with torch.autocast("cpu", torch.bfloat16), saved_tensors_hooks(pack, lambda one: one):
            compiled(rows, **options)
    return Counter(found.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_sizes_are_those_of_a_compiled_layer(dtype: torch.dtype) -> None:
    layer, options = layer_with_lora(dtype)
    truth = stored_in_truth(layer, options)
    found = stored(layer, options)
    assert found is not None
    least = 2 * ROWS * 8  # LoRA's values between its products; below it are weights of LoRA
    large = [size for size in found.bytes_for(ROWS) if size >= least]
    assert Counter(large) == Counter(size for size in truth.elements() if size >= least)


def test_sizes_follow_the_number_of_tokens() -> None:
    found = StoredSizes(96, (((96, 64), 2), ((4, 96), 4), ((8, 64), 2)))
    assert found.bytes_for(96) == [12288, 1536, 1024]
    assert found.bytes_for(192) == [24576, 3072, 1024]


def test_layer_that_cannot_be_traced_is_unknown() -> None:
    class Asking(nn.Linear):
        def forward(self, rows: torch.Tensor, **_: Any) -> torch.Tensor:
            return super().forward(rows) * int((rows > 0).sum())

    _, options = layer_with_lora(torch.float32)
    assert stored(Asking(WIDTH, WIDTH), options) is None


def test_layer_without_gradients_stores_nothing() -> None:
    mode, layer = fake_mode(), nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    without_data(layer, mode)
    with mode, Recorder(mode):
        found = stored_by_compiler(layer, (torch.empty(1, ROWS, WIDTH),), {})
    assert found is not None
    assert found.bytes_for(ROWS) == []
