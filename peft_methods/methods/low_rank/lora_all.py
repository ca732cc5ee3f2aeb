"""LoRA on all linear layers of the model's layers, not on queries and values alone (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import MethodInfo
from peft_methods.methods.low_rank.lora import VARIANTS, LoRA
from peft_methods.methods.peft_method import Targets
from peft_methods.methods.rates import AS_LORA
from peft_methods.models.architecture import Architecture
from peft_methods.models.layer_parts import ROLES


@dataclass(frozen=True, kw_only=True)
class LoRAAll(LoRA):
    """Roles that a model has no layers for are left out; it needs one at least."""

    info = MethodInfo(
        name="lora_all",
        title="LoRA on all linear layers",
        family="low_rank",
        order=2,
        paper="Dettmers et al. 2023, arXiv:2305.14314",
        citations=("dettmers2023qlora",),
        trained="low-rank updates of all linear layers",
        about=(
            "adds low-rank updates to the feed-forward blocks as well as to all of attention, as "
            "QLoRA's authors found necessary to match full fine-tuning."
        ),
        aliases=r"lora[\s_-]*\(?(on[\s_-])?all\b|\ball[\s_-](linear|layers).*lora",
        not_aliases=VARIANTS,
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        learning_rates=AS_LORA,
    )

    targets: Targets = ROLES

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As LoRA; at least one of the targets must be there."""
        if not architecture.linear_sizes(self.targets):
            return (
                f"{self.title} needs a linear layer in a known role, and "
                f"{architecture.model_type!r} has none"
            )
        return super().unsupported(architecture, device)

    def needed_roles(self) -> tuple[str, ...]:
        """None is needed: those that are there are trained."""
        return ()
