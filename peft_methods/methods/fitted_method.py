"""Methods of PEFT whose settings have to fit the sizes of the linear layers that they change."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from peft_methods.methods.peft_method import TargetedPeftMethod
from peft_methods.models.architecture import Architecture

Sizes = tuple[tuple[int, int], ...]  # inputs and outputs of each target


@dataclass(frozen=True, kw_only=True)
class FittedPeftMethod(TargetedPeftMethod):
    """A method of PEFT for linear layers of certain sizes: `misfit` refuses the others."""

    def unsupported(self, architecture: Architecture, device: str) -> str | None:
        """As for every method of PEFT; the settings must fit the targets."""
        return super().unsupported(architecture, device) or self.misfit(
            architecture.linear_sizes(self.targets), architecture.model_type
        )

    def misfit(self, sizes: Sizes, model_type: str) -> str | None:
        """Return why the settings do not fit targets of these sizes, or None."""
        raise NotImplementedError

    def above_limit(self, setting: str, limit: int, model_type: str) -> str | None:
        """Return a message if the setting is above the limit that the targets' sizes give."""
        value = getattr(self, setting)
        if value <= limit:
            return None
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} is too large for the targets "
            f"in {model_type!r}; set it to {limit} or less"
        )

    def not_dividing(self, setting: str, widths: Iterable[int], model_type: str) -> str | None:
        """Return a message if the setting does not divide all of these widths."""
        value, common = getattr(self, setting), math.gcd(*widths)
        if common % value == 0:
            return None
        return (
            f"{self.title}: methods.{self.name}.{setting} = {value} does not divide the widths of "
            f"all targets in {model_type!r}; set it to a divisor of {common}"
        )


@contextmanager
def without_warnings() -> Iterator[None]:
    """Context manager: ignore warnings of PEFT and torch that say nothing about the method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
