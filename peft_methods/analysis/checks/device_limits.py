"""Published peak rates and power limits of common GPUs, by words in a table's device column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_methods.analysis.checks.names import with_number_first


@dataclass(frozen=True)
class DeviceLimits:
    """One kind of GPU.

    `flops` is the peak of dense matrix products in 16 bits, in FLOP/s (bf16; fp16 on GPUs without
    it), `watts` the board's power limit. Of several variants both are those of the fastest.
    """

    name: str
    flops: float
    watts: float


# NVIDIA's data sheets and architecture white papers: rates without sparsity, tensor cores. GeForce:
# white papers of Turing, Ampere, Ada and Blackwell, fp16 with fp16 accumulation, which is faster.
LIMITS = {
    r"h200": DeviceLimits("H200", 989e12, 700),
    r"h100": DeviceLimits("H100", 989e12, 700),
    r"b200": DeviceLimits("B200", 2250e12, 1000),
    r"a100": DeviceLimits("A100", 312e12, 400),
    r"a800": DeviceLimits("A800", 312e12, 400),
    r"a40": DeviceLimits("A40", 149.7e12, 300),
    r"a6000": DeviceLimits("RTX A6000", 154.8e12, 300),
    r"a10g?": DeviceLimits("A10", 125e12, 300),
    r"l40s": DeviceLimits("L40S", 362e12, 350),
    r"l40": DeviceLimits("L40", 181e12, 300),
    r"l4": DeviceLimits("L4", 121e12, 72),
    r"v100": DeviceLimits("V100", 130e12, 300),
    r"p100": DeviceLimits("P100", 21.2e12, 300),
    r"t4": DeviceLimits("T4", 65e12, 70),
    r"(?:rtx)?4090": DeviceLimits("RTX 4090", 330.3e12, 450),
    r"(?:rtx)?3090": DeviceLimits("RTX 3090", 142e12, 350),
    r"(?:rtx)?3060": DeviceLimits("RTX 3060", 51.2e12, 170),
}
SEVERAL = re.compile(r"(?<![a-z0-9])(\d{1,4}) x |\b(\d{1,4})\s+gpus?\b")
# Devices among the words of a method's name. Short names such as L4 need a number: 4x L4.
TIMES_OF = r"\d+\s*[x×*]\s*"
LONG = "|".join(pattern for pattern, limits in LIMITS.items() if len(limits.name) > 3)
NAMED = re.compile(
    rf"(?<![a-z0-9])(?:{TIMES_OF}(?:nvidia\s+)?(?:rtx\s*)?(?:{'|'.join(LIMITS)})"
    rf"|(?:nvidia\s+)?(?:rtx\s*)?(?:{LONG})|\d+\s+gpus?)(?:[\s_-]?\d+\s?gi?b)?(?![a-z0-9])"
)


def device_in(name: str) -> str | None:
    """Return the devices that a method's name mentions: `8xA100` of `Full FT (8xA100, ZeRO-3)`.

    None if it mentions none, or several.
    """
    found = [one.group().strip() for one in NAMED.finditer(name.casefold())]
    return found[0] if len(found) == 1 else None


def limits_of(device: str | None) -> tuple[DeviceLimits, int] | None:
    """Return the limits of a device and how many of it the text names; None if it is unknown.

    A text without a number is one device.
    """
    text = with_number_first((device or "").casefold())
    words = re.sub(r"rtx\s+", "rtx", text)
    found = [
        limits
        for pattern, limits in LIMITS.items()
        if re.search(rf"(?<![a-z0-9]){pattern}(?:[\s_-]?\d+\s?gi?b)?(?![a-z0-9])", words)
    ]
    if len(found) != 1:
        return None
    return found[0], devices_of(text)


def devices_of(device: str | None) -> int:
    """Return how many devices a text names; one without a number is one device."""
    several = SEVERAL.search(with_number_first((device or "").casefold()))
    return max(1, next((int(one) for one in several.groups() if one), 1)) if several else 1
