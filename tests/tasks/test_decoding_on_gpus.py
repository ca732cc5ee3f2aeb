"""Decoding in slots on a GPU: captured steps write the same tokens and leave nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from language_builders import (
    generated_alone,
    prompts_of,
    ready,
    recipe_of,
    vivid,
    vivid_decoder,
    wide_gaps,
    write_pairs,
)
from peft_methods.api import compare
from peft_methods.tasks.decoding import graphs
from peft_methods.tasks.decoding.greedy import decode
from peft_methods.training.determinism import CUBLAS_WORKSPACE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),
]
BUNDLED = Path("bundled:smollm2")


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The windows whose steps were captured."""
    found: list[int] = []
    capture = graphs.Replayed._capture

    def counted(self: Any, function: Any, number: int) -> None:
        capture(self, function, number)
        found.extend(number for number in self._graphs if number not in found)

    monkeypatch.setattr(graphs.Replayed, "_capture", counted)
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "opt"])
def test_captured_steps_write_the_tokens_of_generate(kind: str, captured: list[int]) -> None:
    model, prompts = vivid_decoder(kind).cuda(), prompts_of(30, longest=30, new=30)
    expected = generated_alone(model, prompts, ())
    ends = [expected[0][2], expected[3][-1]]
    expected = generated_alone(model, prompts, ends)
    torch.cuda.empty_cache()
    random, memory = torch.cuda.get_rng_state(), torch.cuda.memory_allocated()
    for slots in (1, 4, 30):
        assert decode(model, prompts, ends, slots) == expected
    assert captured
    assert torch.equal(torch.cuda.get_rng_state(), random)
    assert torch.cuda.memory_allocated() <= memory
    nn.functional.dropout(torch.ones(9, device="cuda"))  # works after captures


def test_steps_of_long_texts_are_captured_for_a_few_lengths(captured: list[int]) -> None:
    config = vivid_decoder("llama").config
    config.max_position_embeddings = 2048
    model = vivid(type(vivid_decoder("llama"))(config)).cuda()
    prompts = [replace(one, limit=700) for one in prompts_of(6, longest=40)]
    made = decode(model, prompts, (), 4)
    assert made == generated_alone(model, prompts, ())
    longest = max(one.length for one in prompts)
    assert captured == [256, 512, longest + -longest % 16]


def test_a_model_that_makes_the_host_wait_is_not_captured(captured: list[int]) -> None:
    class Waits(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.inner(states) if bool(states.sum() != 1e9) else states

    model, prompts = vivid_decoder("llama").cuda(), prompts_of(12)
    model.model.layers[1].mlp = Waits(model.model.layers[1].mlp)
    assert decode(model, prompts, (), 4) == generated_alone(model, prompts, ())
    assert captured == []


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_algorithms_can_be_captured(
    deterministic: bool, captured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    model, prompts = vivid_decoder("llama").cuda(), prompts_of(12)
    torch.use_deterministic_algorithms(deterministic)
    try:
        first, second = (decode(model, prompts, (), 4) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert first == second == generated_alone(model, prompts, ())
    assert captured


@pytest.mark.embedded
@pytest.mark.parametrize("name", ["full", "lora", "qlora", "ia3", "adapter"])
def test_in_bf16_texts_of_a_real_model_part_only_at_nearly_equal_tokens(
    name: str, tmp_path: Path, captured: list[int]
) -> None:
    recipe = recipe_of(BUNDLED, write_pairs(tmp_path / "data"), name, precision="bf16")
    _, _, base, model, _ = ready(recipe, name, device="cuda")
    model.cuda().eval()
    questions = [f"List {n} {kind} and say why." for n in range(2, 8) for kind in ("birds", "jobs")]
    turns = [f"<|im_start|>user\n{one}<|im_end|>\n<|im_start|>assistant\n" for one in questions]
    ids = base.tokenizer(turns, add_special_tokens=False)["input_ids"]
    prompts = [replace(prompts_of(1)[0], ids=one, limit=48) for one in ids]
    end = [base.tokenizer.eos_token_id]
    with torch.autocast("cuda", torch.bfloat16):
        made = decode(model, prompts, end, 8)
        alone = generated_alone(model, prompts, end)
        assert wide_gaps(model, prompts, made, alone) == []
    assert captured
    same = sum(one == other for one, other in zip(made, alone, strict=True))
    print(f"{name}: {same} of {len(made)} texts are equal")
    assert same >= len(made) // 3
    assert all("forward" not in vars(module) for module in model.modules())


RECIPE = """
name = "pairs"
task = "causal_lm"

[model]
source = "bundled:smollm2"

[data]
source = "{data}"
train = 72
validation = 24
test = 64
max_length = 32
max_new_tokens = 64

[budget]
epochs = 1
batch_size = 8
seeds = 1
precision = "bf16"

[methods.lora]
learning_rate = 1e-3
rank = 8
dropout = 0.1
"""


@pytest.mark.embedded
def test_generating_before_training_does_not_change_the_memory_of_training(tmp_path: Path) -> None:
    """The first run generates with the untrained model; the second finds these texts' scores."""
    recipe = tmp_path / "pairs.toml"
    data = write_pairs(tmp_path / "data", train=96, test=64)
    recipe.write_text(RECIPE.format(data=data), encoding="utf-8")
    found = []
    for part in ("generates", "finds"):
        done = compare(str(recipe), results=tmp_path / part, progress=False, engine="trainer")
        (record,) = done.records
        assert record.status == "ok", record.message
        found.append(record.metrics)
    first, second = found
    assert (first["baseline_seconds"] or 0) > 5 * (second["baseline_seconds"] or 0)
    for name in ("peak_memory_bytes", "train_reserved_bytes"):
        assert first[name] == second[name], name
