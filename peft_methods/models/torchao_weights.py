"""Weights quantised by torchao, a package that need not be installed: options, and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from peft_methods.utils.errors import ModelError


def options(kept: Sequence[str]) -> Any:
    """Return the options that load linear layers in 8-bit integers, with a scale for each row.

    `kept` names the modules that stay as they are. By default torchao would also set options of
    torch's compiler for the whole process. Raises `ModelError` if torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise ModelError(
            "a base model with weights quantised by torchao needs it: "
            "pip install peft-methods[torchao]"
        )
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    integers = Int8WeightOnlyConfig(set_inductor_config=False)
    return TorchAoConfig(integers, modules_to_not_convert=list(kept))


def is_from_torchao(tensor: Any) -> bool:
    """Whether torchao stores this tensor. It then has the dtype and the size of its values."""
    return type(tensor).__module__.startswith("torchao.")


def parts_of(tensor: Any) -> list[torch.Tensor]:
    """Return the tensors that torchao stores in place of this one: integers and scales."""
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]
