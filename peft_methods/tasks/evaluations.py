"""Further evaluations of a trained model, beside the predictions for its test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Evaluation:
    """A further evaluation of the trained model, such as forgetting. `measure` returns metrics.

    Where the untrained model is the baseline, it is measured before training, too; `compare` then
    returns further metrics from both results, the earlier one first. `check` raises `DataError`
    before any training where the evaluation could not be done.
    """

    title: str
    measure: Callable[[nn.Module, PreTrainedTokenizerBase], Mapping[str, float]]
    compare: Callable[[Mapping[str, float], Mapping[str, float]], Mapping[str, float]] | None = None
    check: Callable[[], object] | None = None
