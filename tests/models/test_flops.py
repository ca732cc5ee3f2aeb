"""Closed-form FLOPs, compared with a count by hand and with torch's counter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from builders import TASK
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.architecture import Architecture
from peft_methods.models.flops import forward_flops, training_flops
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.recipes.schema import ModelSpec

ARCHITECTURE = Architecture(
    "bert",
    MODULE_MAPS["bert"],
    layers=2,
    distinct_layers=2,
    hidden=4,
    embedding=4,
    intermediate=8,
    embedding_rows=9,
    pooler=False,
    extra_parameters=0,
    extra_biases=0,
    head_parameters=10,
    labels=2,
)


def test_flops_equal_a_count_by_hand() -> None:
    linear, attention = forward_flops(ARCHITECTURE, [3, 5])
    assert linear == 8 * 2 * (4 * 2 * 4 * 4 + 2 * 2 * 4 * 8)
    assert attention == 2 * (4 * 9 * 4 + 4 * 25 * 4)
    assert training_flops(ARCHITECTURE, [3, 5], 3) == 3 * (linear + attention)
    assert training_flops(ARCHITECTURE, [3, 5], 2) == 2 * linear + 3 * attention
    assert training_flops(ARCHITECTURE, [3, 5], 1) == linear + attention


@pytest.mark.parametrize(("name", "passes"), [("full", 3), ("ia3", 2), ("head_only", 1)])
def test_training_flops_agree_with_torchs_counter(
    name: str, passes: float, tiny_models: dict[str, Path]
) -> None:
    """The tolerance covers the pooler, the head and the first layer's missing input gradient."""
    base = loading.load(ModelSpec(str(tiny_models["bert"])), TASK.head, ("no", "yes"))
    base.model.set_attn_implementation("eager")
    method = METHODS.create(name, {"learning_rate": 1e-3}, "test")
    model = method.apply(base.model, ApplyContext(base.architecture, base.head, TASK.peft_type))
    ids = torch.randint(5, 40, (4, 48))
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
        loss.backward()
    assert method.info.cost_in_forward_passes == passes
    assert counter.get_total_flops() == pytest.approx(
        training_flops(base.architecture, [48] * 4, passes), rel=0.12
    )
