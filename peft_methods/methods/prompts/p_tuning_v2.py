"""P-tuning v2: trained keys and values in every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from peft_methods.utils.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from peft_methods.methods.prompts.virtual_tokens import Encoded

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")  # their attention has a cache
WINDOWED = ("gemma2", "gemma3_text")  # layers that read a window of the text would lose the prefix


@dataclass(frozen=True, kw_only=True)
class PTuningV2(Method):
    """Keys and values of `num_virtual_tokens` in each layer, trained themselves.

    Prefix tuning computes them by a network. What PEFT calls prefix tuning is this, by default.
    """

    info = MethodInfo(
        name="p_tuning_v2",
        title="P-tuning v2",
        family="prompts",
        order=3,
        paper="Liu et al. 2022, arXiv:2110.07602",
        citations=("liu2022ptuningv2",),
        trained="keys and values of virtual tokens in all layers",
        about=(
            "trains keys and values of a few virtual tokens in every layer, which the tokens of "
            "the text attend to. Unlike in prefix tuning, no network computes them."
        ),
        aliases=r"\bp-?[\s_]?tuning[\s_-]?v?2|deep prompt tuning",
        saved_format="peft_methods",
        start_tolerance=None,
        strategies=("ddp",),
        learning_rates={
            "encoder": DefaultRate(1e-2, "PEFT's example of prefixes, for RoBERTa-large on MRPC"),
            "decoder": compared(1e-3),
        },
    )

    num_virtual_tokens: Count = 20

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Fewer virtual tokens than words: an untrained prefix hides a short text from the head."""
        return {"num_virtual_tokens": 4}

    @property
    def virtual_tokens(self) -> int:
        """The positions that the prefix takes before each text."""
        return self.num_virtual_tokens

    def apply(self, model: nn.Module, context: ApplyContext) -> nn.Module:
        """Freeze the model and attach the prefix. Raises `ModelError` for sliding windows."""
        from peft_methods.methods.prompts.virtual_tokens import Prefix, attention_of, reader_of

        freeze_all_but(model, context.head)
        architecture = context.architecture
        is_decoder = architecture.model_type in DECODER_MAPS
        reader = reader_of(model, architecture.parts, is_decoder=is_decoder)
        config = reader.config
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise ModelError(f"{self.title} {_windows(architecture.model_type)}")
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        encoded = self.encoded(architecture)
        attention = attention_of(model, architecture.parts)
        Prefix(encoded, attention, heads, is_causal=is_decoder).attach(reader)
        return model.to(next(model.parameters()).device)

    def encoded(self, architecture: Architecture) -> Encoded:
        """Return keys and values drawn at random."""
        import torch

        from peft_methods.methods.prompts.virtual_tokens import Encoded

        return Encoded(torch.randn(self.num_virtual_tokens, prefix_width(architecture)))

    def expected_trainable(self, architecture: Architecture) -> int:
        """A key and a value for each virtual token in each layer."""
        return self.num_virtual_tokens * prefix_width(architecture)

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """Attention has to take a prefix, and to read it from every place of the text."""
        if reason := super().unsupported(architecture, device):
            return reason
        kind = architecture.model_type
        if kind in WINDOWED:
            return f"{self.title} {_windows(kind)}"
        if kind in DECODER_MAPS or kind in ENCODERS:
            return None
        return (
            f"{self.title}: the attention of {kind!r} takes no prefix; of the encoders "
            f"{', '.join(ENCODERS)} can be trained"
        )


def prefix_width(architecture: Architecture) -> int:
    """Return the size of the keys and values of one virtual token in all layers."""
    by_role = {role: one for one in architecture.linear_layers for role in one.roles}
    key, queries = by_role["key"], by_role["attention_output"].inputs
    width = (key.outputs - queries) // 2 if "query" in key.roles else key.outputs
    return 2 * architecture.layers * width


def _windows(kind: str) -> str:
    return f"needs layers that read the whole text; {kind!r} has some that read a sliding window"
