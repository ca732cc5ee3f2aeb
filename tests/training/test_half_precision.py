"""Half precision: the products of losses are in it, also those after the model's forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from builders import Recorder, make_decoder, training_job
from language_builders import ready, recipe_of, write_pairs
from peft_methods.training.trainer import loop

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


class Products(TorchDispatchMode):
    """Notes the types of the inputs of all matrix products, with the sizes of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch.dtype, set[int]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().split(".")[0] in PRODUCTS:
            tensors = [one for one in args if isinstance(one, torch.Tensor)]
            self.found.append((tensors[-1].dtype, {size for one in tensors for size in one.shape}))
        return func(*args, **(kwargs or {}))

    def dtypes(self, size: int) -> set[torch.dtype]:
        """Return the types of the products in which a dimension has this size."""
        return {dtype for dtype, sizes in self.found if size in sizes}


def products_of_a_training(ready: Any, folder: Path) -> Products:
    """Train with the `trainer` engine. Evaluations of the epochs are part of it."""
    with Products() as products:
        loop.train(training_job(ready, folder), Recorder())
    return products


@pytest.mark.parametrize(
    ("precision", "wanted"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_projection_to_the_vocabulary_has_the_precision_of_the_recipe(
    tmp_path: Path, name: str, precision: str, wanted: torch.dtype
) -> None:
    model = make_decoder(tmp_path / "m")
    recipe = recipe_of(model, write_pairs(tmp_path / "d"), name, precision=precision, epochs=1)
    made = ready(recipe, name)
    products = products_of_a_training(made, tmp_path)
    assert products.dtypes(made[2].model.config.vocab_size) == {wanted}
