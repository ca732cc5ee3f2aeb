"""Benchmarks of decoders: the cuda_graphs engine beside Hugging Face's Trainer and Liger's kernels.

Run `pytest benchmarks/test_harness_decoders.py -m harness -s -k "1B and lora and b8"` with one
visible GPU (`CUDA_VISIBLE_DEVICES=0`): the Trainer would divide its batches among several. The
environment variable LOOPS names some of the loops, such as "cuda_graphs", and ROUNDS their rounds.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from harness import need_gpu, print_kernels

# Warnings of the compiler and the allocator do not matter: these tests measure time.
pytestmark = pytest.mark.filterwarnings("ignore")
LLAMA, QWEN, SMOLLM = "meta-llama/Llama-3.2-1B", "Qwen/Qwen2.5-7B", "HuggingFaceTB/SmolLM2-135M"
# Model, method, batch size, steps of an epoch (a window), rounds, and the loops of a round.
BOTH, FASTER = ("trainer", "cuda_graphs"), ("cuda_graphs",)
CASES = [
    (LLAMA, "lora", 8, 12, 2, BOTH),
    (LLAMA, "lora", 32, 5, 2, BOTH),
    (LLAMA, "full", 8, 12, 2, BOTH),
    (LLAMA, "full", 32, 5, 2, BOTH),
    (LLAMA, "qlora", 8, 12, 2, BOTH),
    (LLAMA, "ia3", 8, 12, 2, BOTH),
    (LLAMA, "adapter", 8, 12, 2, BOTH),
    (LLAMA, "dora", 8, 12, 2, BOTH),
    (LLAMA, "prefix_tuning", 8, 12, 2, BOTH),
    (SMOLLM, "lora", 8, 12, 2, BOTH),
    (SMOLLM, "lora", 32, 8, 2, BOTH),
    (SMOLLM, "full", 8, 12, 2, BOTH),
    (SMOLLM, "full", 32, 8, 2, BOTH),
    (QWEN, "lora", 8, 6, 2, FASTER),  # Liger's kernels are known to be faster here
    (QWEN, "lora", 32, 3, 2, FASTER),
    (QWEN, "qlora", 8, 6, 2, FASTER),
]
NAMES = [f"{case[0].partition('/')[2]}-{case[1]}-b{case[2]}" for case in CASES]


@pytest.mark.harness
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("source", "method", "batch", "steps", "rounds", "loops"), CASES, ids=NAMES
)
def test_decoders_against_the_trainers(
    source: str,
    method: str,
    batch: int,
    steps: int,
    rounds: int,
    loops: tuple[str, ...],
    benchmark: Any,
    tmp_path: Path,
) -> None:
    """Measure real tokens a second on equal work: the same batches, in bf16.

    Trained weights are in fp32 and frozen linear layers in bf16, with every loop. The Trainer pads
    to the longest row of a batch. Rounds alternate; Liger's kernels come last, since they replace
    functions of the model's module. The median of all windows counts. A loop that needs more
    memory than there is has no figure.
    """
    need_gpu()
    import torch
    from decoders import Decoder

    from peft_methods.profiling.matmul_rate import matmul_flops_per_second

    print(f"\n{source}, {method}, batches of {batch}", flush=True)
    decoder = Decoder(source, method, batch, steps)
    has_liger = importlib.util.find_spec("liger_kernel") is not None
    only, rounds = os.environ.get("LOOPS"), int(os.environ.get("ROUNDS", rounds))
    order = [*loops * rounds, *["liger"] * (rounds if has_liger else 0)]
    order = [kind for kind in order if only is None or kind in only.split(",")]
    found: dict[str, list[Any]] = {kind: [] for kind in dict.fromkeys(order)}
    rates = [matmul_flops_per_second()]

    def measure() -> None:
        nonlocal decoder
        for kind in order:
            if kind not in found:
                continue
            try:
                found[kind].append(decoder.paced(kind, tmp_path, epochs=2))
                print(f"  {kind:12} {found[kind][-1]}", flush=True)
            except torch.OutOfMemoryError:  # the Trainer's logits, with large batches
                del found[kind]
                print(f"  {kind:12} needs more memory than there is", flush=True)
                decoder = Decoder(source, method, batch, steps)  # that one may be half restored

    benchmark.pedantic(measure, rounds=1)
    rates.append(matmul_flops_per_second())
    rate = statistics.mean(rates)
    others = [kind for kind in found if kind != "cuda_graphs"]
    speeds = {
        kind: statistics.median(pace.tokens_per_second for pace in paces)
        for kind, paces in found.items()
    }
    print(f"Medians, with {rate / 1e12:.0f} TFLOP/s in products:")
    for kind, paces in found.items():
        flops = statistics.median(pace.flops_per_second for pace in paces)
        peak = max(pace.peak_bytes for pace in paces)
        print(
            f"  {kind:12} {speeds[kind]:9,.0f} tokens/s  {flops / 1e12:5.0f} TFLOP/s "
            f"({flops / rate:4.0%})  {peak / 2**20:8,.0f} MiB"
        )
    if others and "cuda_graphs" in speeds:
        ratio = speeds["cuda_graphs"] / max(speeds[kind] for kind in others)
        print(f"  {ratio:.2f} times the faster Trainer")
    benchmark.extra_info.update(
        tokens_per_second=speeds,
        peak_bytes={kind: max(one.peak_bytes for one in paces) for kind, paces in found.items()},
        matmul_flops_per_second=rates,
    )


@pytest.mark.harness
@pytest.mark.gpu
@pytest.mark.parametrize(("source", "method", "batch"), [case[:3] for case in CASES], ids=NAMES)
def test_where_a_step_of_a_decoder_goes(
    source: str, method: str, batch: int, benchmark: Any, tmp_path: Path
) -> None:
    """Measure milliseconds per step of the cuda_graphs engine by kind of kernel."""
    need_gpu()
    from decoders import Decoder

    decoder = Decoder(source, method, batch, 6)
    found = benchmark.pedantic(decoder.kernels, args=(tmp_path,), rounds=1)
    kinds = print_kernels(f"{source}, {method}, batches of {batch}", found)
    benchmark.extra_info.update(milliseconds_by_kind=kinds)


@pytest.mark.harness
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("method", "gibibytes", "checkpointing"),
    [("lora", 48, False), ("qlora", 48, False), ("qlora", 16, True)],
)
def test_seven_billion_parameters_fit(
    method: str, gibibytes: int, checkpointing: bool, benchmark: Any, tmp_path: Path
) -> None:
    """Train batches of 8 rows of 1,024 tokens with an allocator that gives no more than this."""
    need_gpu()
    import torch
    from decoders import Decoder

    settings = ["data.token_lengths=[1024,1024]"]
    settings.append(f"budget.gradient_checkpointing={str(checkpointing).lower()}")
    decoder = Decoder(QWEN, method, 8, 2, settings=settings)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gibibytes * 2**30 / total))
    try:
        pace = benchmark.pedantic(
            decoder.paced,
            args=("cuda_graphs", tmp_path),
            kwargs={"epochs": 2, "counts_flops": False},
            rounds=1,
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    benchmark.extra_info.update(peak_bytes=pace.peak_bytes)
    print(f"\n{method}, 8 x 1,024: {pace.peak_bytes / 2**20:,.0f} MiB of {gibibytes} GiB reserved")


@pytest.mark.harness
@pytest.mark.gpu
def test_weights_in_four_bits_as_values(benchmark: Any) -> None:
    """Measure bytes per second of the kernel for NF4 weights, beside those of bitsandbytes.

    A weight is half a byte to read and two to write, so both are compared with the memory's speed.
    """
    need_gpu()
    import bitsandbytes
    import torch

    from peft_methods.training.cuda_graphs import four_bit
    from peft_methods.training.cuda_graphs.nf4_kernel import dequantized

    shape = (18_944, 3_584)  # the largest weight of Qwen2.5-7B
    layers = []
    for _ in range(4):  # in turns, so that none is still in the GPU's cache
        layer = bitsandbytes.nn.Linear4bit(shape[1], shape[0], bias=False, quant_type="nf4")
        layers.append(layer.cuda())
    parts = [list(four_bit._parts(layer)[0]) for layer in layers]
    size, half = shape[0] * shape[1], torch.bfloat16

    def seconds(function: Any) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        times = []
        for number in range(25):
            start.record()
            function(number % len(layers))
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return statistics.median(times[5:])

    def kernel(number: int) -> Any:
        return dequantized(parts[number], size, half, four_bit.BLOCKS)

    def theirs(number: int) -> Any:
        weight = layers[number].weight
        return bitsandbytes.functional.dequantize_4bit(weight, weight.quant_state).to(half)

    ours = benchmark.pedantic(seconds, args=(kernel,), rounds=1)
    rates = {"kernel": 2.5 * size / ours, "bitsandbytes": 2.5 * size / seconds(theirs)}
    print(", ".join(f"{name} {rate / 1e9:,.0f} GB/s" for name, rate in rates.items()))
    benchmark.extra_info.update(bytes_per_second=rates)
