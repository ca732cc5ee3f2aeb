"""Saved adapters of PEFT's, loaded with all of their tensors."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from peft_methods.methods.base import Method
from peft_methods.models import loading
from peft_methods.models.stored_weights import require_all
from peft_methods.utils.errors import ModelError, first_line

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def load_peft(loaded: loading.LoadedModel, method: Method, folder: Path) -> nn.Module:
    """Load an adapter of PEFT's into its base model. Raises `ModelError`."""
    from peft import PeftModel
    from safetensors import safe_open

    for name in (PEFT_CONFIG, PEFT_WEIGHTS):  # PEFT would look for a missing one on the hub
        if not (folder / name).is_file():
            raise ModelError(f"{folder} cannot be loaded: it has no file {name}.")
    try:
        with getattr(method, "wrapping", nullcontext)(), warnings.catch_warnings():
            # It also names what PEFT never saves. What it saves is compared below.
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            model: nn.Module = PeftModel.from_pretrained(loaded.model, str(folder))
        with safe_open(folder / PEFT_WEIGHTS, framework="pt") as file:
            names = set(file.keys())
    except Exception as error:  # file errors have a dozen types
        raise ModelError(f"{folder} cannot be loaded: {first_line(error)}") from None
    require_all(_trained_by_peft(model) - names, folder / PEFT_WEIGHTS)
    return model


def _trained_by_peft(model: Any) -> set[str]:
    """Return the names of PEFT's tensors that training can change, as its files have them."""
    from peft import get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = get_peft_model_state_dict(model, save_embedding_layers=False).keys()
    fixed = {name.replace(f".{model.active_adapter}", "") for name, _ in model.named_buffers()}
    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    constants = {name for layer in layers for name in layer.other_param_names}
    return {name for name in found - fixed if not constants & set(name.split("."))}
