"""Prefix tuning: trained keys and values in every layer, computed by a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.prompts.p_tuning_v2 import PTuningV2, prefix_width
from peft_methods.methods.prompts.prompt_tuning import EXAMPLE
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft_methods.methods.prompts.virtual_tokens import Encoded


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(PTuningV2):
    """The prefix of P-tuning v2, computed from trained vectors by a trained network.

    The network has one hidden layer, `encoder_hidden_size` wide.
    """

    info = MethodInfo(
        name="prefix_tuning",
        title="Prefix tuning",
        family="prompts",
        order=2,
        paper="Li & Liang 2021, arXiv:2101.00190",
        citations=("li2021prefix",),
        trained="keys and values of virtual tokens in all layers, by way of a network",
        about=(
            "trains keys and values of a few virtual tokens in every layer, which the tokens of "
            "the text attend to. A network computes them from trained vectors."
        ),
        aliases=r"\bprefix[\s_-]?tuning",
        saved_format="peft_methods",
        start_tolerance=None,  # the text attends to the prefix from the start
        strategies=("ddp",),
        learning_rates={
            "small_encoder": DefaultRate(
                1e-3, "the only one of 1e-3, 3e-3 and 1e-2 that MiniLM-L6 learns with, one seed"
            ),
            "encoder": DefaultRate(1e-2, EXAMPLE),
            "decoder": compared(1e-3),
        },
    )

    encoder_hidden_size: Count = 512

    def encoded(self, architecture: Architecture) -> Encoded:
        """Return vectors drawn at random, and the network."""
        import torch
        from torch import nn

        from peft_methods.methods.prompts.virtual_tokens import Encoded

        width, hidden = architecture.hidden, self.encoder_hidden_size
        network = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, prefix_width(architecture))
        )
        return Encoded(torch.randn(self.num_virtual_tokens, width), network)

    def expected_trainable(self, architecture: Architecture) -> int:
        """A vector for each virtual token, and two linear maps with biases."""
        width, hidden = architecture.hidden, self.encoder_hidden_size
        network = (width + 1) * hidden + (hidden + 1) * prefix_width(architecture)
        return self.num_virtual_tokens * width + network

    @classmethod
    def example_settings(cls) -> dict[str, Any]:
        """A network that teaches a tiny model something in a few steps."""
        return {**super().example_settings(), "encoder_hidden_size": 32}
