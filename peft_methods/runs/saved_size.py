"""What a trained model takes on disk: for each task, and in the format that it is saved in."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peft_methods.methods.base import Method
from peft_methods.models import loading
from peft_methods.models.safetensors_size import safetensors_bytes
from peft_methods.runs import export
from peft_methods.runs.spec import RunSpec

PYTORCH = {"format": "pt"}  # the metadata in files of transformers and PEFT


@dataclass(frozen=True)
class SavedSize:
    """Bytes of a trained model.

    `checkpoint_bytes` must be stored for each task beside the base model: the weights that were
    trained, the head included, and frozen ones that came with them, such as the adapters that a
    fusion mixes. `saved_model_bytes` is the size of the folder that `save_trained` writes, whose
    format may repeat the base model.
    """

    checkpoint_bytes: int
    saved_model_bytes: int


def saved_size(
    model: nn.Module,
    run: RunSpec,
    base: loading.LoadedModel,
    scratch: Path,
    data_sha256: str = "",
) -> SavedSize:
    """Compute both sizes. No weights are written; all other files are, to the folder `scratch`.

    A model whose weights transformers renames when it saves them may differ by some bytes.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    _save_configs(model, run.method, scratch)
    export.save_other_files(run, base, scratch, data_sha256)
    small = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    return SavedSize(
        checkpoint_bytes=safetensors_bytes(run.method.saved_parameters(model)),
        saved_model_bytes=small + _weights_bytes(model, run.method),
    )


def _save_configs(model: Any, method: Method, folder: Path) -> None:
    """Save what `save_pretrained` saves beside the weights."""
    if method.info.saved_format == "transformers":
        model.save_pretrained(str(folder), state_dict={})
        for path in folder.glob("*.safetensors"):
            path.unlink()  # a file without weights
    elif method.info.saved_format == "peft":
        config = copy.copy(model.peft_config["default"])
        config.inference_mode = True
        config.save_pretrained(str(folder))


def _weights_bytes(model: nn.Module, method: Method) -> int:
    """Return the size of the file of weights in the method's format."""
    if method.info.saved_format == "peft_methods":
        return safetensors_bytes(method.saved_parameters(model))
    if method.info.saved_format == "transformers":
        return safetensors_bytes(_without_ties(model.state_dict()), PYTORCH)
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, **export.PEFT_SAVING)
    return safetensors_bytes(state, PYTORCH)


def _without_ties(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return one name of every tensor: tied weights are saved once."""
    parts = {name: getattr(t, "_local_tensor", t) for name, t in tensors.items()}
    by_place = {(t.data_ptr(), t.shape, t.stride()): name for name, t in parts.items()}
    return {name: tensors[name] for name in by_place.values()}
