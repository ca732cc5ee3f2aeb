"""Prompt tuning: trained embeddings that the frozen model reads before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import (
    ApplyContext,
    DefaultRate,
    Method,
    MethodInfo,
    freeze_all_but,
)
from peft_methods.methods.rates import compared
from peft_methods.models.architecture import Architecture
from peft_methods.models.decoder_maps import DECODER_MAPS
from peft_methods.recipes.schema import Count

if TYPE_CHECKING:
    from torch import nn

    from peft_methods.methods.prompts.virtual_tokens import Encoded

EXAMPLE = "PEFT's example, for RoBERTa-large on MRPC"


@dataclass(frozen=True, kw_only=True)
class PromptTuning(Method):
    """`num_virtual_tokens` embeddings, which begin as those of tokens drawn from the vocabulary.

    They come before the text; in an encoder behind its first token, by which it classifies. Heads
    and losses do not see them. PEFT has them before an encoder's first token too, so that the
    classifier reads one of them; hence this is not PEFT's.
    """

    info = MethodInfo(
        name="prompt_tuning",
        title="Prompt tuning",
        family="prompts",
        order=0,
        paper="Lester et al. 2021, arXiv:2104.08691",
        citations=("lester2021prompt",),
        trained="embeddings of virtual tokens before the text",
        about=(
            "trains the embeddings of a few virtual tokens, which the frozen model reads before "
            "each text."
        ),
        aliases=r"\bprompt[\s_-]?tuning",
        saved_format="peft_methods",
        start_tolerance=None,  # the model reads other tokens from the start
        strategies=("ddp",),
        learning_rates={
            "encoder": DefaultRate(1e-3, EXAMPLE),
            "decoder": compared(1e-3),
        },
    )

    num_virtual_tokens: Count = 10

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Fewer virtual tokens than words: an untrained prompt hides a short text from the head."""
        return {"num_virtual_tokens": 4}

    @property
    def virtual_tokens(self) -> int:
        """The tokens by which each text becomes longer."""
        return self.num_virtual_tokens

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze the model and attach the prompt to its part without the head."""
        from peft_methods.methods.prompts.virtual_tokens import Prompt, reader_of

        freeze_all_but(model, context.head)
        architecture = context.architecture
        is_decoder = architecture.model_type in DECODER_MAPS
        reader = reader_of(model, architecture.parts, is_decoder=is_decoder)
        Prompt(self.encoded(reader), 0 if is_decoder else 1).attach(reader)
        return model.to(next(model.parameters()).device)

    def encoded(self, reader: Any) -> Encoded:
        """Return the virtual tokens, as embeddings of random tokens."""
        import torch

        from peft_methods.methods.prompts.virtual_tokens import Encoded

        table = reader.get_input_embeddings().weight
        chosen = torch.randint(len(table), (self.num_virtual_tokens,))
        return Encoded(table.detach()[chosen.to(table.device)].clone().float())

    def expected_trainable(self, architecture: Architecture) -> int:
        """One embedding for each virtual token."""
        return self.num_virtual_tokens * architecture.embedding_width
