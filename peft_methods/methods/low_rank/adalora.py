"""AdaLoRA: low-rank updates whose ranks are divided among the layers while training (PEFT's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.methods.base import ApplyContext, MethodInfo
from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.methods.rates import AS_LORA, UNTUNED
from peft_methods.models.architecture import Architecture
from peft_methods.recipes.schema import Count, Dropout, NotNegative, Positive, Share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn

UNKNOWN = 2**31  # steps, until the first one is done


@dataclass(frozen=True, kw_only=True)
class AdaLoRA(TargetedPeftMethod):
    """The mean rank falls from `init_r` to `target_r`.

    `tinit` and `tfinal` are the shares of all steps before the ranks fall and after they have
    fallen; `deltaT` is the number of steps between two allocations. Ranks that are taken away are
    singular values set to zero, so the model keeps its size.
    """

    info = MethodInfo(
        name="adalora",
        title="AdaLoRA",
        family="low_rank",
        order=16,
        paper="Zhang et al. 2023, arXiv:2303.10512",
        citations=("zhang2023adalora",),
        trained="low-rank updates as singular values and vectors, the least important pruned",
        about=(
            "writes low-rank updates as singular values and vectors and sets the least important "
            "values to zero while training, so that important layers keep higher ranks."
        ),
        aliases=r"ada[\s_-]?lora",
        saved_format="peft",
        needs="linear layers",
        mergeable=True,
        strategies=("ddp",),  # importance is of whole weights
        learning_rates={**AS_LORA, "decoder": UNTUNED},
    )

    init_r: Count = 12
    target_r: Count = 8
    alpha: Positive = 32
    dropout: Dropout = 0.0
    tinit: Share = 0.04
    tfinal: Share = 0.1
    deltaT: Count = 1  # PEFT's name
    orth_reg_weight: NotNegative = 0.5

    def config(self, model: nn.Module, context: ApplyContext) -> PeftConfig:
        """Singular values start at zero, so the outputs are unchanged at first.

        PEFT adds its penalty to the model's own loss, which is not the task's: see `penalty`.
        """
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            **self.common(model, context),
            init_r=self.init_r,
            target_r=self.target_r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            deltaT=self.deltaT,
            total_step=UNKNOWN,
            orth_reg_weight=0.0,
        )

    def expected_trainable(self, architecture: Architecture) -> int:
        """init_r * (inputs + outputs + 1) for each linear layer in the targets."""
        sizes = architecture.linear_sizes(self.targets)
        return self.init_r * (sum(map(sum, sizes)) + len(sizes))

    def misfit(self, architecture: Architecture) -> str | None:
        """Ranks fall, and the shares of steps leave some in between."""
        if self.target_r > self.init_r:
            return (
                f"{self.title}: methods.{self.name}.target_r = {self.target_r} is above "
                f"init_r = {self.init_r}: ranks fall from init_r to target_r"
            )
        if self.tinit + self.tfinal >= 1:
            return (
                f"{self.title}: methods.{self.name}.tinit + tfinal = "
                f"{self.tinit + self.tfinal:g} leaves no steps in which ranks fall: set them to "
                f"less than 1 in all"
            )
        return self.too_large("init_r", architecture)

    def has_zero_gradient(self, name: str) -> bool:
        """Singular values have one, but start at zero and are set to zero again where pruned."""
        return ".lora_E." in name

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Keep singular vectors orthonormal: the mean distance of their products from identity."""
        import torch

        if not self.orth_reg_weight:
            return None
        distances = []
        for name, vectors in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                rows = vectors if ".lora_A." in name else vectors.T
                identity = torch.eye(len(rows), device=rows.device, dtype=rows.dtype)
                distances.append(torch.linalg.matrix_norm(rows @ rows.T - identity))
        return self.orth_reg_weight * torch.stack(distances).mean()

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Measure importance and set the least important singular values to zero.

        PEFT leaves out pruned ranks of the last step when it saves, also if the weights saved are
        those of an earlier, better epoch. It gets to see the pattern here alone, so all are saved.
        """
        tuner: Any = model.base_model
        allocator, config = tuner.rankallocator, tuner.peft_config[tuner.trainable_adapter_name]
        config.tinit, config.tfinal = int(self.tinit * steps), int(self.tfinal * steps)
        allocator.set_total_step(steps)
        config.rank_pattern = vars(allocator).get("pattern")
        tuner.update_and_allocate(step)
        allocator.pattern, config.rank_pattern = config.rank_pattern, None

    @classmethod
    def example_settings(cls) -> dict[str, int]:
        """Ranks that a tiny model has."""
        return {"init_r": 6, "target_r": 4}
