"""FourierFT: updates by a few of their Fourier coefficients (PEFT's)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_methods.methods.base import ApplyContext, DefaultRate, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod, drawn_seed
from peft_methods.methods.rates import UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class FourierFT(TargetedPeftMethod):
    """`n_frequency` coefficients of each update, times `scaling`, at random places."""

    info = MethodInfo(
        name="fourierft",
        title="FourierFT",
        family="spectral",
        order=0,
        paper="Gao et al. 2024, arXiv:2405.03003",
        citations=("gao2024fourierft",),
        trained="Fourier coefficients of an update, at random frequencies",
        about=(
            "trains a few Fourier coefficients of the update of each chosen matrix, at "
            "frequencies that are drawn at random."
        ),
        aliases=r"fourier[\s_-]?ft",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        start_tolerance=None,  # the coefficients start at random, as in the paper
        learning_rates={
            "encoder": DefaultRate(
                6e-2, "PEFT's example, for RoBERTa-base on MRPC, its head's too", head=6e-3
            ),
            "decoder": UNTUNED,
        },
    )
    not_converted = ""

    n_frequency: Count = 1000
    scaling: Positive = 150.0

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """The frequencies follow the seed of the run."""
        from peft import FourierFTConfig

        return FourierFTConfig(
            **self.common(model, context),
            n_frequency=self.n_frequency,
            scaling=self.scaling,
            random_loc_seed=drawn_seed(),
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """n_frequency for each linear layer in the targets."""
        return self.n_frequency * len(architecture.linear_sizes(self.targets))

    def misfit(self, architecture: Architecture) -> str | None:
        """A matrix has as many frequencies as weights."""
        return self.too_large("n_frequency", architecture, math.prod)

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Settings that fit the matrices of a tiny model."""
        return {"n_frequency": 64}
