"""DeBERTa's attention in half precision, over projections that return fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders import TASK
from peft_methods.capabilities.cells import Cell
from peft_methods.capabilities.checks import measure
from peft_methods.capabilities.tiny import make_any
from peft_methods.capabilities.toy import Ground
from peft_methods.models import loading
from peft_methods.recipes.schema import ModelSpec

PROJECTIONS = {"deberta": ("in_proj",), "deberta-v2": ("query_proj", "key_proj", "value_proj")}


@pytest.fixture(scope="module", params=list(PROJECTIONS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("deberta")
    return make_any(root / request.param, request.param, vivid=True)


def logits(model: nn.Module, dtype: torch.dtype | None) -> torch.Tensor:
    """Return the logits of two rows, the second of which is padded."""
    ids = torch.tensor([[2, 7, 9, 12, 3], [2, 8, 3, 0, 0]])
    mask = (ids > 0).long()
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        found: torch.Tensor = model.eval()(input_ids=ids, attention_mask=mask).logits
    return found.float()


def returning_fp32(model: nn.Module, kind: str) -> nn.Module:
    """Let projections return fp32 within autocast, as most layers of PEFT's and 4-bit ones do."""
    for name, module in model.named_modules():
        if name.endswith(PROJECTIONS[kind]):
            module.register_forward_hook(lambda *given: given[2].float())
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_attention_masks_scores_of_projections_in_fp32(folder: Path, dtype: torch.dtype) -> None:
    base = loading.load(ModelSpec(str(folder)), TASK.head, ("no", "yes")).model
    exact = logits(base, None)
    plain = logits(base, dtype)
    assert torch.allclose(plain, exact, atol=0.05)
    assert torch.equal(logits(returning_fp32(base, folder.name), dtype), plain)


def test_transformers_has_the_fault(folder: Path) -> None:
    """If this fails, the library is mended: remove `with_masks_of_scores` and this test."""
    base: Any = loading.load(ModelSpec(str(folder)), TASK.head, ("no", "yes")).model
    own = type(base).from_pretrained(str(folder), config=base.config)
    with pytest.raises(RuntimeError, match="without overflow"):
        logits(returning_fp32(own, folder.name), torch.bfloat16)


@pytest.mark.parametrize("method", ["miss", "qlora"])
def test_method_whose_layers_return_fp32_trains_deberta(method: str, tmp_path: Path) -> None:
    ground = Ground.made(tmp_path / "ground", ["deberta-v2"], [TASK.name])
    cell = Cell(method, "deberta-v2", TASK.name, "bf16")
    result = measure(cell, ground, tmp_path / "work", tmp_path / "saved")
    assert (dict(result.failed), result.status) == ({}, "passed")
