"""Packed steps by way of the flash attention kernel, whose operators a test computes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from attention_builders import attention_of_sequences, flash_attention_on_a_cpu

from builders import (
    DECODER,
    RejectHostAccess,
    make_decoder,
    make_model,
    mostly_slow,
    train_with_both_engines,
    words_tokenizer,
)
from language_builders import assert_equal_trainings, write_pairs
from peft_methods.models.packed_prefix import all_places, borders_with, with_prefix
from peft_methods.training.cuda_graphs import attention, loop, packed_attention
from peft_methods.training.cuda_graphs.attention import flash_attention

COUNT = 3
BORDERS = torch.tensor((0, 4, 5, 12, 14, 14, 14), dtype=torch.int32)  # two are empty


def test_each_key_has_a_row_in_its_sequence_behind_the_prefix() -> None:
    borders = torch.tensor((0, 2, 5, 5), dtype=torch.int32)
    assert borders_with(borders, 2).tolist() == [0, 4, 9, 11]
    rows = all_places(borders, 5, 2)
    assert rows.tolist() == [*(0, 1, 4, 5, 9, 10), *(2, 3, 6, 7, 8)]
    own, prefix = torch.arange(5.0).view(5, 1, 1), torch.tensor([10.0, 11.0]).view(2, 1, 1)
    placed = with_prefix(own, prefix, rows).flatten().tolist()
    assert placed == [10, 11, 0, 1, 10, 11, 2, 3, 4, 10, 11]


def drawn(*, prefix: int = COUNT) -> list[torch.Tensor]:
    """Return queries (row, heads, tokens, size), keys and values with fewer heads, and a prefix."""
    torch.manual_seed(0)
    tokens = int(BORDERS[-1])
    shapes = [(1, 4, tokens, 8), (1, 2, tokens, 8), (1, 2, tokens, 8), (2, prefix, 2, 8)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel, in 32 bits, so that it can be compared."""
    monkeypatch.setattr(attention, "HALF", {"fp32": torch.float32})
    for module in (packed_attention, loop):
        monkeypatch.setattr(module, "has_kernel", lambda *_: True)
    with flash_attention_on_a_cpu():
        yield


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("window", [None, 2, 6])
@pytest.mark.parametrize("is_causal", [True, False])
def test_a_prefix_is_before_each_sequence_in_both_passes(
    is_causal: bool, window: int | None
) -> None:
    """Compare with each sequence alone, behind keys of its own."""
    given = drawn()
    query, key, value, prefix = given
    options = {"is_causal": is_causal, "window": window, "prefix": prefix}
    with RejectHostAccess():
        at = all_places(BORDERS, query.shape[2], COUNT)
        with_prefix(key[0].transpose(0, 1), prefix[0], at)
    found, _ = flash_attention(query, key, value, BORDERS, 7, **options)
    parts = []
    for start, end in zip(BORDERS[:-1].tolist(), BORDERS[1:].tolist(), strict=True):
        own = [x[0, :, start:end].transpose(0, 1) for x in (query, key, value)]
        keys, values = (torch.cat(pair) for pair in zip(prefix, own[1:], strict=True))
        ends = torch.tensor([0, end - start]), torch.tensor([0, end - start + COUNT])
        reach = (None, None) if window is None else (window - 1, window - 1)
        parts += attention_of_sequences(
            (own[0], keys, values), ends, is_causal=is_causal, window=reach
        )
    wanted = torch.cat(parts)[None]
    assert torch.allclose(found, wanted, atol=1e-6)
    weights = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), given) for x in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.usefixtures("kernel")
def test_a_prefix_is_traced_as_one_graph_for_all_lengths() -> None:
    """And shapes do not depend on where sequences end."""
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    def attend(query: Any, key: Any, value: Any, borders: Any, prefix: Any) -> Any:
        return flash_attention(query, key, value, borders, 12, is_causal=True, prefix=prefix)[0]

    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend=count)
    *tensors, prefix = (one.detach() for one in drawn())
    for tokens, borders in ((14, BORDERS), (9, (0, 1, 3, 9)), (12, (0, 6, 12, 12, 12))):
        given = [x[:, :, :tokens].clone() for x in tensors]
        ends = torch.as_tensor(borders, dtype=torch.int32)
        found, expected = (one(*given, ends, prefix) for one in (compiled, attend))
        assert torch.allclose(found, expected, atol=1e-6)
    assert len(graphs) == 1
    searched = graphs[0].graph.find_nodes(op="call_function", target=torch.searchsorted)
    assert [one.args[0].op for one in searched] == ["placeholder"], (
        "on a GPU, code that torch 2.11 compiles searches a slice from where its tensor begins"
    )


CASES = [
    ("llama", "lora"),
    ("llama", "prefix_tuning"),
    ("llama", "prompt_tuning"),
    ("qwen2", "prefix_tuning"),
    ("gpt2", "p_tuning_v2"),
]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_steps_are_those_of_padded_batches(kind: str, name: str, tmp_path: Path) -> None:
    model, pairs = make_decoder(tmp_path / kind, kind), write_pairs(tmp_path / "data")
    assert_equal_trainings(model, pairs, tmp_path, name, max_length=40)


def windowed(folder: Path) -> Path:
    """Write a decoder whose layers read a window of eight tokens."""
    torch.manual_seed(0)
    config = transformers.MistralConfig(**DECODER, sliding_window=8)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("has_kernel", [False, True])
def test_windows_reach_into_the_prefix_as_in_padded_batches(
    has_kernel: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if has_kernel:
        request.getfixturevalue("kernel")
    model, pairs = windowed(tmp_path / "m"), write_pairs(tmp_path / "data")
    assert_equal_trainings(model, pairs, tmp_path, "p_tuning_v2", max_length=40)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", mostly_slow(["prefix_tuning", "lora"], "prefix_tuning"))
def test_steps_of_encoders_are_those_of_padded_batches(
    name: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = (f"model.source={make_model(tmp_path / 'm', 'roberta')}",)
    train_with_both_engines(tiny_recipe, tmp_path, name, *settings)
