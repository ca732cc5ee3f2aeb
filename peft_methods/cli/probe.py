"""`peft-methods estimate --probe`: measure this machine's device for estimates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from peft_methods.utils.errors import OptionError
from peft_methods.utils.files import write_whole

if TYPE_CHECKING:
    from peft_methods.estimation.time.probes import Probed

HOST = "cpu"


def run_probe(device: str | None, json_file: Path | None) -> None:
    """Measure the GPU, or the processor ("cpu", or no GPU), keep the rates and print them.

    Raises `OptionError` for another device: only one that is here can be measured.
    """
    import torch

    if device not in {None, HOST}:
        raise OptionError(
            f"--probe measures the GPU of this machine, or with --gpu {HOST} its processor, "
            f"not {device!r}. Leave out --gpu."
        )
    from peft_methods.estimation.time import probes

    has_gpu = device is None and torch.cuda.is_available()
    found = probes.measured("cuda" if has_gpu else HOST, fresh=True)
    print("\n".join(_lines(found)))
    if json_file is not None:
        write_whole(json_file, json.dumps(asdict(found), indent=1) + "\n")


def _lines(found: Probed) -> Iterator[str]:
    rates = found.rates
    yield f"{rates.name}: measured in {found.seconds:.0f} s and kept in the cache for estimates"
    for name, rate in rates.flops.items():
        yield f"  products, {name:<15} {rate / 1e12:>10,.3g} TFLOP/s"
    figures = {
        "attention": (rates.attention / 1e12, "TFLOP/s"),
        "other operations": (rates.bandwidth / 1e9, "GB/s"),
        "dequantisation, NF4": (rates.dequantisation / 1e9, "GB/s"),
        "a kernel": (rates.kernel * 1e6, "µs"),
        "a launch by the host": (rates.launch * 1e6, "µs"),
        "power, idle": (rates.idle_watts, "W"),
        "power, computing": (rates.loaded_watts, "W"),
    }
    for name, (value, unit) in figures.items():
        if value:
            yield f"  {name:<25} {value:>10,.3g} {unit}"
    yield f"  {'products of all sizes':<25} {len(rates.products):>10}"
