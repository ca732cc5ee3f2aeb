"""What is known about a recipe before any of its runs starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from peft_methods.runs.predicted import Prediction

NO_ENGINES: Mapping[str, str] = MappingProxyType({})  # no method is predicted


@dataclass(frozen=True)
class Fingerprints:
    """Digests of files and machine that the fingerprints of a recipe's runs include.

    `weights` are by quantization ("" for none), since frozen weights in 4 bits differ. `data` are
    by name of the rows (`rows_name`): the recipe's own, those of each seed if seeds draw them, and
    those of its prerequisites. A digest is missing if its
    files could not be loaded; the record of the run gives the reason.
    """

    weights: Mapping[str, str]
    config: str
    tokenizer: str
    data: Mapping[str, str]
    environment: dict[str, Any]


@dataclass(frozen=True)
class PreparedRecipe:
    """A recipe's data, its unsupported methods with the reason, and its speed.

    `forward_seconds` is the time of one row's forward pass, `start_seconds` the time to read data
    and model, and `matmul_flops_per_second` the device's rate in bf16 matrix products (None on a
    CPU). `facts` are for fingerprints. Unless `is_timed`, `forward_seconds` was computed from the
    model's sizes: it takes at least that long, and `start_seconds` leaves out its weights.
    `predicted` has estimates of the methods' cost, by name; if they were asked for, `is_predicted`,
    also where a method has none.
    `has_weights` is False for a dry run: the digests of weights are missing, or those of records.
    """

    data: dict[str, Any]
    unsupported: dict[str, str]
    forward_seconds: float
    start_seconds: float
    matmul_flops_per_second: float | None = None
    facts: Fingerprints | None = None
    is_timed: bool = True
    has_weights: bool = True
    predicted: dict[str, Prediction] = field(default_factory=dict)
    is_predicted: bool = False
