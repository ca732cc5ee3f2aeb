"""Linear probe: the head on features that the frozen encoder computes once for each example."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.selective.head_only import HeadOnly


@dataclass(frozen=True, kw_only=True)
class LinearProbe(HeadOnly):
    """Head only, with the encoder in evaluation mode and run in the first epoch alone.

    The encoder's time is a part of the training time. Dropout before the head stays active.
    """

    info = MethodInfo(
        name="linear_probe",
        title="Linear probe",
        family="selective",
        order=1,
        scope="head",
        paper="Alain & Bengio 2016, arXiv:1610.01644",
        citations=("alain2016probes",),
        trained="the new head on stored features: the cheapest",
        about=(
            "runs the frozen model once for each training example, without dropout, stores what "
            "its new head reads, and trains the head on that. Its training time includes that pass."
        ),
        generic_aliases=r"linear[\s_-]*prob\w*|prob(e|ing)\b",
        needs="any model",
        cost_in_forward_passes=1.0,  # in its first epoch
        stores_features=True,
        strategies=(),
        learning_rates={
            "small_encoder": DefaultRate(5e-3, "as head_only: the same optimisation"),
            "encoder": DefaultRate(1e-3, "as head_only: the same optimisation"),
            "decoder": DefaultRate(1e-3, "as head_only: the same optimisation"),
        },
    )
