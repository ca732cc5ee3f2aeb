"""Operations that are not run a second time: their results are those of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from peft_methods.estimation.memory.fake_model import fake_mode
from peft_methods.estimation.memory.fake_run import build
from peft_methods.estimation.memory.program import RecordedProgram, record
from peft_methods.estimation.memory.repeated import Repeated
from peft_methods.estimation.memory.shapes import _form
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.loading import load_recipe

aten = torch.ops.aten


class Counting:
    """Runs operations, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, func: Any, args: Any, options: Any) -> Any:
        self.count += 1
        return func(*args, **options)


def test_results_are_like_those_of_the_operation() -> None:
    mode, computed = fake_mode(), Counting()
    repeated = Repeated(mode)
    with mode:
        first, second = torch.empty(4, 6), torch.empty(4, 6)

        def run(func: Any, *args: Any, **options: Any) -> Any:
            return repeated.run(func, args, options, computed)

        for func, more in (
            (aten.mm.default, (torch.empty(6, 2),)),
            (aten.t.default, ()),
            (aten.slice.Tensor, (1, 2, 5)),
            (aten.native_layer_norm.default, ([6], None, None, 1e-5)),
        ):
            computed.count = 0
            expected, found = run(func, first, *more), run(func, second, *more)
            assert computed.count == 1
            one, other = (x[0] if isinstance(x, tuple) else x for x in (expected, found))
            assert (one.shape, one.stride(), one.dtype) == (
                other.shape,
                other.stride(),
                other.dtype,
            )
            assert one.storage_offset() == other.storage_offset()
            shares = one.untyped_storage()._cdata == first.untyped_storage()._cdata
            assert shares == (other.untyped_storage()._cdata == second.untyped_storage()._cdata)
            assert other.device.type == "cpu"


def test_what_differs_in_anything_is_computed() -> None:
    mode, computed = fake_mode(), Counting()
    repeated = Repeated(mode)
    with mode:
        rows, half = torch.empty(4, 6), torch.empty(4, 6, dtype=torch.bfloat16)
        for one in (rows, half, rows.t(), rows[:, :2]):
            repeated.run(aten.add.Tensor, (one, 1), {}, computed)
        for number in (1.0, True, 2):
            repeated.run(aten.add.Tensor, (rows, number), {}, computed)
        assert computed.count == 7
        for _ in range(2):  # what is written to is not repeated
            assert repeated.run(aten.add_.Tensor, (rows, 1), {}, computed) is rows
        assert computed.count == 9


def sizes_of(program: RecordedProgram) -> list[int]:
    """The bytes of all blocks, in the order in which they were allocated."""
    return [event.size for event in program.recording.events if event.size]


@pytest.mark.parametrize("method", ["full", "lora", "shira", "qlora"])
def test_programs_are_the_same_to_the_byte(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LlamaConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
    ).save_pretrained(tmp_path)
    few = ("budget.batch_size=2", "budget.evaluation_batch_size=2", "data.max_length=32")
    recipe = load_recipe("imdb_decoder", ["model.weights=random", *few], model=str(tmp_path))
    options = {**METHODS[method].example_settings(), **recipe.methods.get(method, {})}
    built = METHODS.create(method, options, "imdb_decoder", recipe)

    def recorded() -> RecordedProgram:
        return record(build(recipe, built, 32, packs=True))

    quick = recorded()
    monkeypatch.setattr(
        Repeated, "run", lambda self, func, args, options, run: run(func, args, options)
    )
    slow = recorded()
    assert _form(quick) == _form(slow)  # autocast frees what it has cached in any order
    assert sizes_of(quick) == sizes_of(slow)
    assert quick.recording.operations == slow.recording.operations
    assert quick.owners == slow.owners
