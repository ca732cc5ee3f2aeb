"""The check of saved models, in a process that trained none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from peft_methods.capabilities.cells import Cell
from peft_methods.capabilities.checks import OUTPUTS
from peft_methods.capabilities.toy import Ground, batch_of, load, outputs_of, tokens_of
from peft_methods.runs.export import load_trained
from peft_methods.utils.errors import first_line

ROUNDING = 1e-6  # of sums in another order, relative to the largest prediction


def problem_of(cell: Cell, ground: Ground, saved: Path, device: str) -> str:
    """Load a saved model and return what is wrong with its predictions; empty if nothing is."""
    try:
        expected = torch.from_numpy(np.load(saved / OUTPUTS))
        base = load(cell, ground, device)
        tokens = tokens_of(cell, ground, base)
        torch.manual_seed(1)  # other weights than in the training are drawn anew
        model = load_trained(saved, device=device)
        batch = batch_of(ground.recipe(cell), base, tokens.test, device)
        outputs = outputs_of(model, batch, cell, device)
    except Exception as error:  # of any library
        return first_line(error)
    difference = float((outputs - expected).abs().max())
    if difference <= ROUNDING * max(1.0, float(expected.abs().max())):
        return ""
    return f"predictions differ by up to {difference:.2g}"
