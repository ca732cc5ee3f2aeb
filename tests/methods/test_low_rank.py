"""What the low-rank methods promise beyond the contract: how they start, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from builders import Recorder, prepared, training_job
from peft_methods.methods.registry import METHODS
from peft_methods.models.quantization import is_quantized
from peft_methods.training.trainer import loop

DRAWN = ("vera", "pvera", "randlora", "tinylora", "unilora", "frod")


def buffers(recipe: Path, name: str, seed: int) -> dict[str, torch.Tensor]:
    """Return what a method keeps frozen beside the model's own weights."""
    model = prepared(recipe, name, seed=seed)[3]
    added = {n: b for n, b in model.named_buffers() if "position_ids" not in n}
    return {n: b.clone() for n, b in added.items() if "token_type_ids" not in n}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_follows_the_seed(name: str, tiny_recipe: Path) -> None:
    one, again, other = (buffers(tiny_recipe, name, seed) for seed in (1, 1, 2))
    assert one
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)


def test_loftq_starts_nearer_to_the_unrounded_model_than_qlora(tiny_recipe: Path) -> None:
    def weights(name: str) -> torch.Tensor:
        model = prepared(tiny_recipe, name)[3]
        layer = model.get_base_model().bert.encoder.layer[0].attention.self.query
        if not hasattr(layer, "lora_A"):
            return layer.weight.detach()  # type: ignore[no-any-return]
        identity = torch.eye(layer.in_features)
        with torch.no_grad():
            return (layer(identity) - layer.get_base_layer().bias).T  # type: ignore[no-any-return]

    exact, qlora, loftq = weights("ia3"), weights("qlora"), weights("loftq")
    assert (loftq - exact).norm() < 0.9 * (qlora - exact).norm()


def test_eva_starts_with_orthonormal_directions_of_the_inputs(tiny_recipe: Path) -> None:
    one, again = (prepared(tiny_recipe, "eva")[3] for _ in range(2))
    found = {n: p for n, p in one.named_parameters() if ".lora_A." in n}
    same = dict(again.named_parameters())
    assert len(found) == 4
    for name, rows in found.items():
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-4)
        assert torch.equal(rows, same[name])


def test_adalora_prunes_to_the_target_rank_and_a_better_epoch_keeps_its_own(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    ready = _, method, _, model, _ = prepared(tiny_recipe, "adalora", "budget.epochs=1")
    loop.train(training_job(ready, tmp_path), Recorder())
    values = [p for n, p in model.named_parameters() if ".lora_E." in n]
    assert sum(int((p != 0).sum()) for p in values) == method.target_r * len(values)
    assert all(len(p) == method.init_r for p in values)
    assert model.active_peft_config.rank_pattern is None  # nothing is left out when it is saved
    penalty = method.penalty(model)
    assert penalty is not None
    assert penalty.item() > 0


@pytest.mark.parametrize(("name", "bits"), [("qlora_fp4", "fp4"), ("qdora", "nf4")])
def test_four_bit_formats_are_those_named(name: str, bits: str, tiny_recipe: Path) -> None:
    model = prepared(tiny_recipe, name)[3]
    kinds = {p.quant_state.quant_type for p in model.parameters() if hasattr(p, "quant_state")}
    assert kinds == {bits}


def test_eight_bit_weights_are_in_the_encoder_and_biases_stay(tiny_recipe: Path) -> None:
    _, _, _, model, tokens = prepared(tiny_recipe, "lora_int8")
    quantized = {n for n, p in model.named_parameters() if is_quantized(p)}
    assert len(quantized) == 2 * 6
    assert not any("classifier" in name or "pooler" in name for name in quantized)
    biases = {n: p.clone() for n, p in model.named_parameters() if n.endswith("bias")}
    rows = torch.tensor([list(tokens.train[0]["input_ids"])])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(input_ids=rows)
    assert all(
        p.dtype == torch.float32 and torch.equal(p, biases[n])
        for n, p in model.named_parameters()
        if n in biases
    )


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("pissa", {"rank": 33}, "methods.pissa.rank = 33"),
        ("randlora", {"rank": 64}, "set it to 32 or less"),
        ("miss", {"rank": 64}, "has only 32 rows or columns"),
        ("vblora", {"vector_length": 24}, "set it to 32 or a divisor of 32"),
        ("vblora", {"vector_length": 8, "topk": 300}, "the bank has 256 vectors"),
        ("gralora", {"gralora_k": 3}, "does not divide rank = 8"),
        ("gralora", {"gralora_k": 64, "rank": 64}, "does not divide the sizes of its targets"),
        ("unilora", {"theta_d_length": 9999}, "have 1024 weights"),
        ("adalora", {"target_r": 13}, "above init_r = 12"),
        ("adalora", {"tinit": 0.5, "tfinal": 0.5}, "leaves no steps"),
        ("tinylora", {"rank": 40}, "set it to 32 or less"),
        ("adamss", {"rank": 8, "num_subspaces": 40}, "methods.adamss.num_subspaces = 40"),
    ],
)
def test_sizes_that_do_not_fit_the_model_are_refused(
    name: str, settings: dict[str, Any], expected: str, tiny_recipe: Path
) -> None:
    base = prepared(tiny_recipe, "full")[2]
    method = METHODS.create(name, {"learning_rate": 0.1, **settings}, "test")
    reason = method.unsupported(base.architecture, "cpu")
    assert reason is not None
    assert expected in reason
