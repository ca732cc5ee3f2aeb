"""Full fine-tuning whose optimizer keeps its state in 8 bits (bitsandbytes)."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.methods.base import DefaultRate, MethodInfo
from peft_methods.methods.bitsandbytes_library import library_problem
from peft_methods.methods.selective.full import Full
from peft_methods.models.architecture import Architecture

AS_FULL = "as full: the state in 8 bits replaces that in 32 without other settings"


@dataclass(frozen=True, kw_only=True)
class Full8bit(Full):
    """Full fine-tuning with the moments of AdamW in blocks of 256 numbers of 8 bits."""

    info = MethodInfo(
        name="full_8bit",
        title="Full fine-tuning, 8-bit AdamW",
        family="selective",
        order=0,
        scope="all",
        paper="Dettmers et al. 2022, arXiv:2110.02861",
        citations=("dettmers2022eightbit",),
        trained="every weight, with AdamW's state in 8 bits (bitsandbytes)",
        about=(
            "trains every weight of the model. AdamW's moments are kept in 8 bits, those of "
            "embeddings and of small tensors in 32. The weights stay in fp32 (master weights), "
            "in mixed precision too, and no rounding is stochastic."
        ),
        aliases=r"\bfull.*8[\s_-]?bit|8[\s_-]?bit.*\bfull",
        color="#a0a0a0",
        marker="s",
        needs="any model",
        cost_in_forward_passes=3.0,
        optimizer="adamw_8bit",
        strategies=("ddp",),  # the blocks of a state are not rows of its weight
        learning_rates={
            kind: DefaultRate(rate.value, AS_FULL)
            for kind, rate in Full.info.learning_rates.items()
        },
    )

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As `full`, with bitsandbytes, whose steps on a CPU are newer than those on a GPU."""
        problem = library_problem(self.title, device)
        if problem is not None:
            return problem
        if device == "cpu" and not _steps_on_cpu():
            return (
                f"{self.title} on a CPU needs a newer bitsandbytes: this one has no 8-bit step for "
                f"CPUs"
            )
        return super().unsupported(architecture, device)


def _steps_on_cpu() -> bool:
    import bitsandbytes  # noqa: F401 - it registers its operations
    import torch

    found: bool = torch._C._dispatch_has_kernel_for_dispatch_key(
        "bitsandbytes::optimizer_update_8bit_blockwise", "CPU"
    )
    return found
