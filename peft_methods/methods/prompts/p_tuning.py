"""P-tuning: a small network computes the embeddings of a trained prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.prompts.prompt_tuning import EXAMPLE, PromptTuning
from peft_methods.methods.rates import UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from peft_methods.methods.prompts.virtual_tokens import Encoded


@dataclass(frozen=True, kw_only=True)
class PTuning(PromptTuning):
    """The prompt of prompt tuning, reparametrised by a network of three layers, as PEFT has it.

    The network is `encoder_hidden_size` wide. It is trained with the vectors that it reads.
    """

    info = MethodInfo(
        name="p_tuning",
        title="P-tuning",
        family="prompts",
        order=1,
        paper="Liu et al. 2024, arXiv:2103.10385",
        citations=("liu2024ptuning",),
        trained="virtual tokens before the text, and a network that computes them",
        about=(
            "trains a few virtual tokens before each text as prompt tuning does, and lets a small "
            "network compute their embeddings."
        ),
        aliases=r"\bp-?[\s_]?tuning(?![\s_-]?v?2)",
        saved_format="peft_methods",
        start_tolerance=None,
        strategies=("ddp",),
        learning_rates={
            "encoder": DefaultRate(1e-3, EXAMPLE),
            "decoder": UNTUNED,
        },
    )

    num_virtual_tokens: Count = 20
    encoder_hidden_size: Count = 128

    def encoded(self, reader: Any) -> Encoded:
        """Return vectors drawn at random, and the network."""
        import torch
        from torch import nn

        from peft_methods.methods.prompts.virtual_tokens import Encoded

        width, hidden = reader.get_input_embeddings().weight.shape[1], self.encoder_hidden_size
        network = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )
        return Encoded(torch.randn(self.num_virtual_tokens, width), network)

    def expected_trainable(self, architecture: Architecture) -> int:
        """A vector for each virtual token, and three linear maps with biases."""
        width, hidden = architecture.embedding_width, self.encoder_hidden_size
        network = (width + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * width
        return self.num_virtual_tokens * width + network
