"""WaveFT: updates by a few of their wavelet coefficients (PEFT's)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class WaveFT(TargetedPeftMethod):
    """`n_frequency` coefficients of each update, times `scaling`, at random places."""

    info = MethodInfo(
        name="waveft",
        title="WaveFT",
        family="spectral",
        order=1,
        paper="Bilican et al. 2025, arXiv:2505.12532",
        citations=("bilican2025waveft",),
        trained="wavelet coefficients of an update, at random places",
        about=(
            "trains a few wavelet coefficients of the update of each chosen matrix, at "
            "places that are drawn at random."
        ),
        aliases=r"wave(let)?[\s_-]?ft",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )
    not_converted = ""

    n_frequency: Count = 2592
    scaling: Positive = 25.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The places follow the seed of the run. The coefficients start at zero."""
        from peft import WaveFTConfig

        return WaveFTConfig(
            **self.common(model, context),
            n_frequency=self.n_frequency,
            scaling=self.scaling,
            wavelet_family="db1",
            random_loc_seed=drawn_seed(),
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """n_frequency for each linear layer in the targets."""
        return self.n_frequency * len(architecture.linear_sizes(self.targets))

    def misfit(self, architecture: Architecture) -> str | None:
        """A matrix has as many coefficients as weights."""
        return self.too_large("n_frequency", architecture, math.prod)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Settings that fit the matrices of a tiny model."""
        return {"n_frequency": 64}
