"""Packed steps that are captured on a real GPU, compared with padded eager steps of the Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from attention_builders import flash_attention_on_a_cpu
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from builders import (
    DECODER_ENDS,
    VOCABULARY,
    Recorder,
    StepLog,
    training_job,
    without_dropout,
    words_tokenizer,
)
from builders import make_decoder as make_tiny
from language_builders import ready, recipe_of, write_pairs
from peft_methods.training.cuda_graphs import attention, token_buckets
from peft_methods.training.cuda_graphs.attention import flash_attention
from peft_methods.training.cuda_graphs.four_bit import nf4_weights
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.trainer import loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() != 1,  # the Trainer would divide its batches among several
        reason="needs one visible NVIDIA GPU, as with CUDA_VISIBLE_DEVICES=0",
    ),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
]
SMOLLM = {  # SmolLM2-135M with fewer layers and words
    "vocab_size": len(VOCABULARY) + 1,
    "hidden_size": 576,
    "num_hidden_layers": 3,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
KINDS: dict[str, Any] = {
    "smollm": lambda: transformers.LlamaConfig(**SMOLLM, **DECODER_ENDS),
    "mistral": lambda: transformers.MistralConfig(**SMOLLM, **DECODER_ENDS, sliding_window=5),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **SMOLLM, **DECODER_ENDS, head_dim=256, sliding_window=5
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(
        **{**SMOLLM, "num_key_value_heads": 9}, **DECODER_ENDS
    ),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "data")


@pytest.fixture(autouse=True)
def several_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_buckets, "MULTIPLE", 8)


def made(folder: Path, kind: str) -> Path:
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(KINDS[kind]())
    model.save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return folder


def losses_and_norms(
    kind: Any, model: Path, data: Path, folder: Path, name: str, **changes: Any
) -> tuple[list[float], list[float]]:
    """Train 10 steps on the GPU without dropout. Captured steps are compiled."""
    folder.mkdir(parents=True)
    log = StepLog(kind, compile_layers=True)
    recipe = recipe_of(model, data, name, max_length=40, **changes)
    own = ready(recipe, name, rate=1e-3, device="cuda")
    without_dropout(own[3])
    loop.train(training_job(own, folder, device="cuda"), Recorder(), trainer_class=log.kind)
    return log.losses, log.norms


def assert_equal(model: Path, data: Path, folder: Path, name: str, **changes: Any) -> None:
    """Check losses and norms of gradients, step by step."""
    padded = losses_and_norms(loop.RunTrainer, model, data, folder / "a", name, **changes)
    packed = losses_and_norms(CudaGraphsTrainer, model, data, folder / "b", name, **changes)
    half = changes.get("precision", "bf16") in {"bf16", "fp16"}
    assert len(padded[0]) >= 10
    assert packed[0] == pytest.approx(padded[0], rel=1e-2 if half else 2e-5)
    assert packed[1] == pytest.approx(padded[1], rel=6e-2 if half else 2e-3)


METHODS = [
    "full",
    "lora",
    "qlora",
    "dora",
    "ia3",
    "adapter",
    "prefix_tuning",
    "p_tuning_v2",
    "prompt_tuning",
]


@pytest.mark.parametrize("name", METHODS)
def test_captured_steps_are_those_of_padded_batches_with_every_method(
    name: str, tmp_path: Path, pairs: Path
) -> None:
    assert_equal(made(tmp_path / "m", "smollm"), pairs, tmp_path, name, precision="bf16")


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "gpt_neox"])
def test_captured_steps_are_those_of_padded_batches_with_every_model(
    kind: str, tmp_path: Path, pairs: Path
) -> None:
    assert_equal(made(tmp_path / "m", kind), pairs, tmp_path, "lora", precision="bf16")


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp32"},
        {"precision": "fp16"},
        {
            "precision": "bf16",
            "gradient_accumulation": 2,
            "gradient_checkpointing": True,
            "batch_size": 4,
        },
    ],
    ids=str,
)
def test_captured_steps_are_those_of_padded_batches_with_every_budget(
    changes: dict[str, Any], tmp_path: Path, pairs: Path
) -> None:
    assert_equal(made(tmp_path / "m", "smollm"), pairs, tmp_path, "full", **changes)


def test_captured_steps_with_a_prefix_accumulate_and_compute_layers_again(
    tmp_path: Path, pairs: Path
) -> None:
    settings = {"gradient_accumulation": 2, "gradient_checkpointing": True, "batch_size": 4}
    model = made(tmp_path / "m", "smollm")
    assert_equal(model, pairs, tmp_path, "prefix_tuning", precision="bf16", **settings)


@pytest.mark.parametrize("window", [None, 48])
@pytest.mark.parametrize("is_causal", [True, False])
def test_the_kernel_has_a_prefix_before_each_sequence(
    is_causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare both passes with a CPU's; gradients of keys and values are the same each time."""
    torch.manual_seed(0)
    ends, count = (0, 5, 70, 71, 200, 200, 200), 20  # two sequences are empty
    shapes = [(1, 6, 200, 64), (1, 2, 200, 64), (1, 2, 200, 64), (2, count, 2, 64)]
    given = [torch.randn(shape).bfloat16().float().requires_grad_() for shape in shapes]
    weights = torch.randn(1, 200, 6, 64).bfloat16().float()
    options: dict[str, Any] = {"is_causal": is_causal, "window": window}

    def passes(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        query, key, value, prefix = (one.to(device, dtype) for one in given)
        borders = torch.tensor(ends, device=device, dtype=torch.int32)
        found, _ = flash_attention(query, key, value, borders, 256, prefix=prefix, **options)
        total = (found * weights.to(device, dtype)).sum()
        return [found.detach().float().cpu(), *torch.autograd.grad(total, given)]

    first, again = passes("cuda", torch.bfloat16), passes("cuda", torch.bfloat16)
    monkeypatch.setattr(attention, "HALF", {"fp32": torch.float32})
    with flash_attention_on_a_cpu():
        wanted = passes("cpu", torch.float32)
    for one, other, expected in zip(first, again, wanted, strict=True):
        assert (one - expected).norm() < 2e-2 * expected.norm()
        assert torch.equal(one, other) or one is first[1]  # that of queries is summed in any order


def test_the_kernel_keeps_sequences_apart_and_knows_windows() -> None:
    """Compare it with a mask, forward and backward; empty sequences at the end are no harm."""
    torch.manual_seed(0)
    ends = (0, 5, 70, 71, 200, 200, 200)
    borders = torch.tensor(ends, device="cuda", dtype=torch.int32)
    sequence = torch.searchsorted(borders[1:].contiguous(), torch.arange(200).cuda(), right=True)
    for window in (None, 16):
        place = torch.arange(200, device="cuda")
        seen = (sequence[:, None] == sequence) & (place[:, None] >= place)
        if window is not None:
            seen &= place[:, None] - place < window
        query = torch.randn(1, 6, 200, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        key, value = (
            torch.randn(1, 2, 200, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for _ in range(2)
        )
        found, _ = flash_attention(query, key, value, borders, 256, is_causal=True, window=window)
        wanted = torch.nn.functional.scaled_dot_product_attention(
            query.float(),
            key.float().repeat_interleave(3, dim=1),
            value.float().repeat_interleave(3, dim=1),
            attn_mask=seen,
        ).transpose(1, 2)
        assert torch.allclose(found.float(), wanted, atol=2e-2)
        weights = torch.randn_like(wanted)
        ours = torch.autograd.grad((found.float() * weights).sum(), (query, key, value))
        theirs = torch.autograd.grad((wanted * weights).sum(), (query, key, value))
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one.float(), other.float(), atol=6e-2)


def test_attention_dropout_is_that_of_the_config(tmp_path: Path, pairs: Path) -> None:
    """Over many draws the loss of a batch has the mean that it has with the Trainer."""
    model, found = make_tiny(tmp_path / "m", "gpt2"), []
    for number, kind in enumerate((loop.RunTrainer, CudaGraphsTrainer)):
        folder = tmp_path / str(number)
        folder.mkdir()
        log = StepLog(kind, compile_layers=True)
        recipe = recipe_of(model, pairs, "lora", max_length=40, precision="bf16", epochs=60)
        own = ready(recipe, "lora", rate=1e-9, device="cuda")
        loop.train(training_job(own, folder, device="cuda"), Recorder(), trainer_class=log.kind)
        found.append(torch.tensor(log.losses))
    difference = found[1] - found[0]  # the batches are the same, and the masks are not
    assert len(difference) >= 200
    assert float(difference.std()) > 1e-3
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / len(difference) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_kernel_for_weights_in_four_bits_gives_the_bits_of_bitsandbytes(
    dtype: torch.dtype,
) -> None:
    for shape in ((130, 192), (64, 64), (1000, 128), (7, 30)):
        values = torch.randn(shape, device="cuda")
        packed, state = quantize_4bit(values, quant_type="nf4", compress_statistics=True)
        scales = state.state2
        parts = [packed, state.absmax, scales.code, scales.absmax, state.offset, state.code]
        found = nf4_weights(parts, list(shape), dtype, False)
        assert torch.equal(found, dequantize_4bit(packed, state).to(dtype))
