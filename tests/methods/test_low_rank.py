"""What the low-rank methods promise beyond the contract: formats, starts and ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import Recorder, prepared, training_job
from peft_methods.models.quantization import is_quantized
from peft_methods.training.trainer import loop


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
