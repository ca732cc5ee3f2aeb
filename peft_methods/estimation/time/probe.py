"""A probe of a device: what it reaches in products, attention and memory, in at most 30 seconds.

What is left out of it (the loops around steps, waits) is for `rates.Corrections`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from peft_methods.estimation.time import rates
from peft_methods.estimation.time.clocks import Clock, CudaClock, HostClock
from peft_methods.estimation.time.rates import DeviceRates, MeasuredProduct, Precision
from peft_methods.profiling.environment import processor_name
from peft_methods.profiling.nvml import Gpu

LIMIT_SECONDS = 25.0  # after which nothing more is started
POWER_SECONDS = 1.5  # over which energy is counted: drivers update the counter every 0.1 s
# Rows are tokens of a batch; the others are (k, n) of layers, of adapters and of heads.
ROWS = {"cuda": (128, 512, 2048, 8192), "cpu": (128, 512)}
WEIGHTS = {
    "cuda": ((768, 768), (768, 3072), (3072, 768), (4096, 4096), (768, 16), (16, 768)),
    "cpu": ((384, 384), (384, 1536), (1536, 384), (384, 8), (8, 384)),
}
LARGE = {"cuda": 8192, "cpu": 1024}  # side of square matrices that reach the device's rate
POINTWISE = {"cuda": (16384, 4096), "cpu": (512, 1536)}
ATTENTION = {"cuda": ((16, 12, 512, 64), (4, 32, 1024, 128)), "cpu": ((8, 12, 64, 32),)}
QUANTISED = 4096  # side of a matrix in NF4
LAYERS, WIDTH = 12, 64  # of the small model whose steps are bound by launches
LAUNCH_ROUNDS = 20


def probe(device: str, limit_seconds: float = LIMIT_SECONDS) -> DeviceRates:
    """Measure the rates of the current GPU ("cuda") or of the host with torch's threads ("cpu").

    After `limit_seconds`, without the imports of libraries, no further product is measured.
    """
    _quantiser()  # its import takes as long as the whole probe on some hosts
    end = time.perf_counter() + limit_seconds
    clock: Clock = CudaClock() if device == "cuda" else HostClock()
    is_gpu = device == "cuda"
    idle = _watts() if is_gpu else None
    flops: dict[str, float] = dict(_largest(device, clock))
    half = next(name for name in rates.SLOWER["half"] if name in flops)
    bandwidth = _bandwidth(device, clock)
    tiny = torch.ones(8, device=device)
    return DeviceRates(
        name=device_name(device),
        basis="probe",
        flops=flops,
        attention=_attention(device, clock, half),
        bandwidth=bandwidth,
        dequantisation=_dequantisation(device, clock) or bandwidth,
        units=_properties().multi_processor_count if is_gpu else torch.get_num_threads(),
        launch=_launch_seconds(device) if is_gpu else 0.0,
        kernel=clock.seconds(lambda: tiny.add(1)),
        idle_watts=idle,
        loaded_watts=_loaded_watts() if is_gpu else None,
        products=tuple(_products(device, clock, end)),
    )


def device_name(device: str) -> str:
    """Return the name of the current GPU, or of the processor with the number of torch's threads.

    A process computes with so many threads, and the rates of a CPU hold for them alone.
    """
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {torch.get_num_threads()} threads"


def _largest(device: str, clock: Clock) -> Iterator[tuple[Precision, float]]:
    """Yield the FLOP/s of large square products in each precision that the device has."""
    for precision in _precisions(device):
        side = LARGE[device]
        yield precision, 2 * side**3 / _seconds(device, clock, precision, (side, side, side))
    if device == "cuda" and (seconds := _integer_seconds(clock)):
        yield "int8", 2 * LARGE[device] ** 3 / seconds


def _products(device: str, clock: Clock, end: float) -> Iterator[MeasuredProduct]:
    """Yield measured products. Rows come first that tell most, if time runs out."""
    for precision in reversed(_precisions(device)):
        for m, (k, n) in product(ROWS[device], WEIGHTS[device]):
            if time.perf_counter() > end:
                return
            yield MeasuredProduct(m, n, k, precision, _seconds(device, clock, precision, (m, n, k)))


def _seconds(device: str, clock: Clock, precision: str, sizes: tuple[int, int, int]) -> float:
    m, n, k = sizes
    dtype = _half() if precision == "half" else torch.float32
    a = torch.randn(m, k, device=device, dtype=dtype)
    b = torch.randn(k, n, device=device, dtype=dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        return clock.seconds(lambda: a @ b)
    finally:
        torch.set_float32_matmul_precision(before)


def _integer_seconds(clock: Clock) -> float:
    """Return the seconds of a product of numbers in 8 bits; 0 where the GPU has none."""
    side = LARGE["cuda"]
    a = torch.ones(side, side, device="cuda", dtype=torch.int8)
    try:
        return clock.seconds(lambda: torch._int_mm(a, a.t()))
    except RuntimeError:  # a GPU or a library without it
        return 0.0


def _precisions(device: str) -> tuple[Precision, ...]:
    if device == "cpu":
        return ("fp32",)
    major, _ = torch.cuda.get_device_capability()
    return ("fp32", "tf32", "half") if major >= 8 else ("fp32", "half")


def _half() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16


def _bandwidth(device: str, clock: Clock) -> float:
    """Return bytes/s of operations as layers have: addition, activation, norm and dropout.

    On a CPU activations and dropout compute more than they move, so a copy would not do.
    """
    x = torch.randn(POINTWISE[device], device=device, dtype=_half() if device == "cuda" else None)
    size = x.numel() * x.element_size()
    steps: tuple[tuple[float, Callable[[], Any]], ...] = (
        (3 * size, lambda: x + x),
        (2 * size, lambda: functional.gelu(x)),
        (2 * size, lambda: functional.layer_norm(x, x.shape[1:])),
        (2 * size + x.numel(), lambda: torch.native_dropout(x, 0.1, True)),
    )
    return sum(one for one, _ in steps) / sum(clock.seconds(run) for _, run in steps)


def _attention(device: str, clock: Clock, precision: str) -> float:
    """Return the FLOP/s of attention, forward and backward, of the slowest of a few shapes."""
    found = []
    for shape in ATTENTION[device]:
        dtype = _half() if precision == "half" else torch.float32
        query, key, value = (
            torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
        )

        def run(q: Any = query, k: Any = key, v: Any = value) -> None:
            out = functional.scaled_dot_product_attention(q, k, v)
            torch.autograd.grad(out, (q, k, v), out)

        batch, heads, length, width = shape
        # two products forward, five backward, as torch's FlopCounterMode counts them
        found.append(14 * batch * heads * length**2 * width / clock.seconds(run))
    return min(found)


def _dequantisation(device: str, clock: Clock) -> float:
    """Return the bytes/s of dequantising NF4, read and written; 0 without bitsandbytes."""
    bnb = _quantiser()
    if bnb is None:
        return 0.0
    dtype = _half() if device == "cuda" else torch.float32
    weight = torch.randn(QUANTISED, QUANTISED, device=device, dtype=dtype)
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4")
    moved = weight.numel() * (weight.element_size() + 0.5 + 4 / 64)
    return moved / clock.seconds(lambda: bnb.dequantize_4bit(packed, state))


def _quantiser() -> Any:
    """Return bitsandbytes' functions; None without it."""
    try:
        from bitsandbytes import functional
    except ImportError:
        return None
    return functional


def _launch_seconds(device: str) -> float:
    """Return the host's seconds for an operation, of steps so small that the GPU waits."""
    make = (lambda: nn.Linear(WIDTH, WIDTH), nn.GELU, lambda: nn.LayerNorm(WIDTH), nn.Dropout)
    model = nn.Sequential(*(one() for _ in range(LAYERS) for one in make)).to(device)
    x = torch.randn(8, WIDTH, device=device)

    def step() -> None:
        with torch.autocast(device, _half()):
            loss = model(x).sum()
        loss.backward()

    step()
    model.zero_grad()
    with _Counted() as counted:
        step()
    times = []
    for _ in range(LAUNCH_ROUNDS):
        model.zero_grad()  # gradients are made in each step, as they were counted
        torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    torch.cuda.synchronize()
    return sorted(times)[len(times) // 2] / counted.operations


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that are no views, as a recorded program has them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def _watts() -> float | None:
    """Return the power that the GPU draws now; None if its driver does not say."""
    gpu = Gpu.current()
    watts = None if gpu is None else gpu.state()["power_watts"]
    return None if watts is None else float(watts)


def _loaded_watts() -> float | None:
    """Return the mean power of large products; None if the driver counts no energy."""
    gpu = Gpu.current()
    if gpu is None or gpu.energy_joules() is None:
        return None
    a = torch.randn(LARGE["cuda"], LARGE["cuda"], device="cuda", dtype=_half())
    _computing(a, POWER_SECONDS / 3)  # until the clocks and the counter follow
    joules, started = gpu.energy_joules() or 0.0, time.perf_counter()
    _computing(a, POWER_SECONDS)
    return ((gpu.energy_joules() or 0.0) - joules) / (time.perf_counter() - started)


def _computing(a: torch.Tensor, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()


def _properties() -> Any:
    return torch.cuda.get_device_properties(torch.cuda.current_device())
