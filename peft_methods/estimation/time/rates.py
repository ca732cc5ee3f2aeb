"""What a device computes and moves in a second: from its datasheet, or from a probe.

A product of an (m, k) and a (k, n) matrix is computed in square tiles of the result, one on each
of the device's units at a time. The last round of tiles may be incomplete, and a product of fewer
tiles than units is divided along k, but into pieces of no fewer than `PIECE`. Smaller tiles occupy
more units and compute more slowly (`TILES`); the fastest are taken. So small and thin products are
slow, and no size needs a rate of its own. No product is faster than its bytes are moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from peft_methods.estimation.results import Basis
from peft_methods.estimation.time.devices import Device

Precision = Literal["fp32", "tf32", "half", "int8"]
SLOWER: Mapping[str, tuple[Precision, ...]] = {  # what a device without a precision's cores uses
    "fp32": ("fp32",),
    "tf32": ("tf32", "fp32"),
    "half": ("half", "fp32"),
    "int8": ("int8", "half", "fp32"),
}
BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "half": 2, "int8": 1}
TILES = {128: 1.0, 64: 0.7, 32: 0.4}  # sides, and what they reach of the rate of large products
FILLING = 270  # the start and end of a tile take as long as so many steps along k
PIECE = 256  # the least that a product is divided into along k

# Of a GPU and a host without a probe: they fit the records of H100 and H200 best.
KERNEL_SECONDS = 3.5e-6
LAUNCH_SECONDS = 27e-6
IDLE_POWER = 0.15
LOADED_POWER = 0.95


@dataclass(frozen=True)
class Corrections:
    """What training reaches of a device's rates, and how many times as long launches take.

    They make up for what the model of a step leaves out, and are fitted to measured steps: see
    docs/explanation/estimates.md. `kernel`, `launch` and `loops` are factors of seconds, the others
    shares of rates.
    """

    products: float = 1.0
    attention: float = 1.0
    bandwidth: float = 1.0
    dequantisation: float = 1.0
    kernel: float = 1.0
    launch: float = 1.0
    loops: float = 1.0


# Of published rates; of H200's in products 0.79 was measured, the others are those of the model.
DATASHEET = Corrections(products=0.75, attention=0.50, bandwidth=0.56, dequantisation=0.16)
PROBE = Corrections()  # of measured rates: not fitted yet


@dataclass(frozen=True)
class MeasuredProduct:
    """The seconds that a product of an (m, k) and a (k, n) matrix took."""

    m: int
    n: int
    k: int
    precision: Precision
    seconds: float


@dataclass(frozen=True)
class DeviceRates:
    """Rates of a device, in FLOP/s, bytes/s, seconds and watts.

    `flops` are those of large products, by precision. `attention` is the rate of fused attention
    in 16 bits. `dequantisation` counts bytes read and written. `launch` is the host's time for an
    operation in an eager program, `kernel` the least time of a kernel on the device, launched by a
    CUDA graph. `products` correct the model of products where a probe measured some. `loops` is how
    many times as long loops around steps take as they do with such a `launch` elsewhere.
    """

    name: str
    basis: Basis
    flops: Mapping[str, float]
    attention: float
    bandwidth: float
    dequantisation: float
    units: int
    launch: float
    kernel: float
    idle_watts: float | None = None
    loaded_watts: float | None = None
    loops: float = 1.0
    products: tuple[MeasuredProduct, ...] = field(default=())

    def rate(self, precision: Precision) -> float:
        """Return the FLOP/s of large products, in the next precision that the device has."""
        return next(self.flops[one] for one in SLOWER[precision] if one in self.flops)

    def product_seconds(
        self, m: int, n: int, k: int, precision: Precision, count: int = 1
    ) -> float:
        """Return the seconds of `count` products of (m, k) and (k, n) matrices in one kernel."""
        return self._by_tiles(m, n, k, precision, count) * self._correction(m, n, k, precision)

    def moving_seconds(self, size: float) -> float:
        """Return the seconds of a kernel that reads and writes so many bytes."""
        return self.kernel + size / self.bandwidth

    def _by_tiles(self, m: int, n: int, k: int, precision: Precision, count: int) -> float:
        computed = min(
            self._occupied(m, n, k, count, side) / share for side, share in TILES.items()
        )
        moved = (m * k + k * n + m * n) * BYTES[precision] * count
        return max(computed / self.rate(precision), moved / self.bandwidth) + self.kernel

    def _occupied(self, m: int, n: int, k: int, count: int, side: int) -> float:
        """Return the FLOPs that the whole device could compute meanwhile."""
        tiles = math.ceil(m / side) * math.ceil(n / side) * count
        pieces = max(1, min(self.units // tiles, k // PIECE))
        steps = k / pieces + FILLING
        return _rounds(tiles * pieces / self.units) * 2 * side**2 * steps * self.units

    def _correction(self, m: int, n: int, k: int, precision: Precision) -> float:
        """Return how many times as long measured products of similar sizes took as the model says.

        It is the geometric mean of all measured ones, weighted by their nearness in the logarithms
        of their sizes.
        """
        total = weights = 0.0
        for one in self.products:
            if one.precision == precision:
                sizes = ((m, one.m), (n, one.n), (k, one.k))
                distance = sum(math.log(a / b) ** 2 for a, b in sizes)
                weight = 1 / (0.01 + distance**2)
                modelled = self._by_tiles(one.m, one.n, one.k, precision, 1)
                total += weight * math.log(one.seconds / modelled)
                weights += weight
        return math.exp(total / weights) if weights else 1.0


def from_datasheet(device: Device, corrections: Corrections = DATASHEET) -> DeviceRates:
    """Return the rates to expect of a device from its published figures."""
    published = DeviceRates(
        name=device.name,
        basis="datasheet",
        flops=device.flops,
        attention=device.flops["half"],
        bandwidth=device.bandwidth,
        dequantisation=device.bandwidth,
        units=device.units,
        launch=LAUNCH_SECONDS,
        kernel=KERNEL_SECONDS,
        idle_watts=device.watts * IDLE_POWER,
        loaded_watts=device.watts * LOADED_POWER,
    )
    return corrected(published, corrections)


def corrected(rates: DeviceRates, corrections: Corrections) -> DeviceRates:
    """Return the rates that training reaches of those of a datasheet or a probe."""
    products = (replace(one, seconds=one.seconds / corrections.products) for one in rates.products)
    return replace(
        rates,
        flops={name: rate * corrections.products for name, rate in rates.flops.items()},
        attention=rates.attention * corrections.attention,
        bandwidth=rates.bandwidth * corrections.bandwidth,
        dequantisation=rates.dequantisation * corrections.dequantisation,
        kernel=rates.kernel * corrections.kernel,
        launch=rates.launch * corrections.launch,
        loops=rates.loops * corrections.loops,
        products=tuple(products),
    )


def _rounds(full: float) -> float:
    """Return how many rounds of tiles a product takes.

    The last, incomplete one counts as a whole one at first; with many rounds tiles no longer end
    at the same time, and libraries choose smaller ones for what is left.
    """
    return math.ceil(full) if full < 1 else full + (math.ceil(full) - full) * 0.5
