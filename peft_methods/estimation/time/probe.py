"""A probe of a device: what it reaches in products, attention and memory, in at most 30 seconds.

The result is stored in the user's cache under the device and the versions of the libraries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from peft_methods.estimation.time import rates
from peft_methods.estimation.time.clocks import Clock, CudaClock, HostClock
from peft_methods.estimation.time.rates import DeviceRates, MeasuredProduct, Precision
from peft_methods.estimation.time.steps import BACKWARD_LAUNCH
from peft_methods.profiling.environment import package_version, processor_name
from peft_methods.profiling.nvml import Gpu, driver_version
from peft_methods.utils.cache import cached_value

VERSION = 1  # of what is measured; another one is measured again
LIMIT_SECONDS = 25.0  # after which nothing more is started
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


def cached_probe(device: str) -> DeviceRates:
    """Return the device's rates ("cuda" or "cpu") from the cache, or measure and store them."""
    return from_stored(cached_value("device_probes", _key(device), lambda: asdict(probe(device))))


def from_stored(values: Mapping[str, Any]) -> DeviceRates:
    """Return the rates that `asdict` and JSON made plain."""
    products = tuple(MeasuredProduct(**one) for one in values["products"])
    return DeviceRates(**{**values, "products": products})


def probe(device: str, limit_seconds: float = LIMIT_SECONDS) -> DeviceRates:
    """Measure the rates of the current GPU ("cuda") or of the host with torch's threads ("cpu").

    After `limit_seconds` no further product is measured.
    """
    end = time.perf_counter() + limit_seconds
    clock: Clock = CudaClock() if device == "cuda" else HostClock()
    is_gpu = device == "cuda"
    idle = _watts() if is_gpu else None
    flops = dict(_largest(device, clock))
    loaded = _watts() if is_gpu else None
    half = next(name for name in rates.SLOWER["half"] if name in flops)
    tiny = torch.ones(8, device=device)
    return DeviceRates(
        name=_name(device),
        basis="probe",
        flops=flops,
        attention=_attention(device, clock, half),
        bandwidth=_bandwidth(device, clock),
        dequantisation=_dequantisation(device, clock),
        units=torch.cuda.get_device_properties(0).multi_processor_count
        if is_gpu
        else torch.get_num_threads(),
        launch=_launch_seconds(device) if is_gpu else 0.0,
        kernel=clock.seconds(lambda: tiny.add(1)),
        idle_watts=idle,
        loaded_watts=loaded,
        products=tuple(_products(device, clock, flops, end)),
    )


def _largest(device: str, clock: Clock) -> Iterator[tuple[Precision, float]]:
    """Yield the FLOP/s of large square products in each precision that the device has."""
    for precision in _precisions(device):
        side = LARGE[device]
        yield precision, 2 * side**3 / _seconds(device, clock, precision, side, side, side)


def _products(
    device: str, clock: Clock, flops: Mapping[str, float], end: float
) -> Iterator[MeasuredProduct]:
    """Yield measured products. Rows come first that tell most, if time runs out."""
    for precision in reversed(list(flops)):
        for m, (k, n) in product(ROWS[device], WEIGHTS[device]):
            if time.perf_counter() > end:
                return
            seconds = _seconds(device, clock, precision, m, n, k)  # type: ignore[arg-type]
            yield MeasuredProduct(m, n, k, precision, seconds)  # type: ignore[arg-type]


def _seconds(device: str, clock: Clock, precision: Precision, m: int, n: int, k: int) -> float:
    dtype = _half() if precision == "half" else torch.float32
    a = torch.randn(m, k, device=device, dtype=dtype)
    b = torch.randn(k, n, device=device, dtype=dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        return clock.seconds(lambda: a @ b)
    finally:
        torch.set_float32_matmul_precision(before)


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
    try:
        from bitsandbytes import functional as bnb
    except ImportError:
        return 0.0
    dtype = _half() if device == "cuda" else torch.float32
    weight = torch.randn(QUANTISED, QUANTISED, device=device, dtype=dtype)
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4")
    moved = weight.numel() * (weight.element_size() + 0.5 + 4 / 64)
    return moved / clock.seconds(lambda: bnb.dequantize_4bit(packed, state))


def _launch_seconds(device: str) -> float:
    """Return the host's seconds for an operation, of steps so small that the GPU waits."""
    make = (lambda: nn.Linear(WIDTH, WIDTH), nn.GELU, lambda: nn.LayerNorm(WIDTH), nn.Dropout)
    model = nn.Sequential(*(one() for _ in range(LAYERS) for one in make)).to(device)
    x = torch.randn(8, WIDTH, device=device)

    def step(counted: _Counted) -> float:
        with torch.autocast(device, _half()):
            loss = model(x).sum()
        forward, counted.operations = counted.operations, 0
        loss.backward()
        return forward + BACKWARD_LAUNCH * counted.operations

    with _Counted() as counted:
        launches = step(counted)
    times = []
    for _ in range(LAUNCH_ROUNDS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        step(_Counted())
        times.append(time.perf_counter() - started)
    torch.cuda.synchronize()
    return sorted(times)[len(times) // 2] / launches


class _Counted(TorchDispatchMode):
    """Counts operations that are no views, as a recorded program has them."""

    def __init__(self) -> None:
        super().__init__()
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


def _name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {torch.get_num_threads()} threads"


def _key(device: str) -> list[Any]:
    found = [VERSION, _name(device), torch.__version__, package_version("bitsandbytes")]
    if device == "cuda":
        uuid = str(getattr(torch.cuda.get_device_properties(0), "uuid", ""))
        found += [uuid, driver_version()]
    return found
