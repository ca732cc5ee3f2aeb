"""The encoder's layers as compiled code: the same losses, kept from run to run, and what a captured step can replay."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import CheckpointPolicy

from builders import prepared
from builders import train_with_both_engines as both
from peft_methods.engines import attention, layers
from peft_methods.engines.attention import capturable_attention
from peft_methods.engines.batches import Collator
from peft_methods.engines.graphs import ReplayedAdamW, StepGraphs
from peft_methods.engines.layers import checkpointing, compilations, compiled


def compiled_agrees(recipe: Path, folder: Path) -> dict[str, int]:
    both(recipe, folder, "lora", compile_layers=True)
    return compilations()


def test_compiled_layers_change_no_loss_and_are_kept(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own, as cells have: the compiler minds what others imported before it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    found = []
    for _ in range(2):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found.append(fresh.submit(compiled_agrees, tiny_recipe, tmp_path).result())
    assert found == [{"kept": 0, "anew": 2}, {"kept": 2, "anew": 0}], (
        "one forward and one backward for all layers"
    )


def warmed_up_for_all_lengths(recipe_path: Path) -> None:
    """Raises where a length between the two that are warmed up would be compiled for anew, as a capture would."""
    _, _, _, model, _ = prepared(recipe_path, "lora")
    optimizer = ReplayedAdamW([p for p in model.parameters() if p.requires_grad])
    padding, lengths = {"input_ids": 0, "attention_mask": 0}, range(8, 61, 4)
    own: dict[str, Any] = {
        "precision": "fp32",
        "accumulation": 1,
        "max_grad_norm": 0.0,
        "extra_loss": lambda model: None,
    }
    graphs = StepGraphs(model, optimizer, batch_size=6, padding=padding, buckets=lengths, **own)
    with compiled(model):
        graphs.capture()
        with torch.compiler.set_stance("fail_on_recompile"):
            for replay in graphs._replays.values():
                replay()


def fused_sums(recipe_path: Path) -> tuple[bool, bool, bool]:
    """torch's option before, within and after."""
    from torch._inductor.config import triton

    _, _, _, model, _ = prepared(recipe_path, "lora")
    before = triton.mix_order_reduction
    with compiled(model):
        within = triton.mix_order_reduction
    return before, within, triton.mix_order_reduction


def test_sums_over_rows_and_columns_stay_apart(tiny_recipe: Path) -> None:
    """Where torch renames its option, one graph for all lengths has to be seen to again."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        before, within, after = fresh.submit(fused_sums, tiny_recipe).result()
    assert (within, after) == (False, before)


def test_what_is_compiled_for_the_extremes_serves_every_length_between(tiny_recipe: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        fresh.submit(warmed_up_for_all_lengths, tiny_recipe).result()


def operations_of_both_passes(recipe_path: Path) -> tuple[list[str], list[str]]:
    """The operations that a checkpointed layer's forward and backward come to, with flash attention as on a GPU.

    No CPU has that kernel, so this ends where the compiler has parted the two.
    """
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.custom_graph_pass import CustomPartitionerFn

    found: list[list[str]] = []

    class Part(CustomPartitionerFn):
        def __call__(self, graph: Any, inputs: Any, **options: Any) -> Any:
            for one in min_cut_rematerialization_partition(graph, inputs, **options):
                found.append(
                    [str(node.target) for node in one.graph.nodes if node.op == "call_function"]
                )
            raise KeyboardInterrupt  # the compiler wraps exceptions, this it lets pass

        def uuid(self) -> str:
            return "test"

    _, _, base, model, tokens = prepared(recipe_path, "lora")
    batch = Collator(base.tokenizer)([tokens.train[row] for row in range(8)])
    batch.pop("labels")
    attention._fitting = lambda *_: attention.PACKED  # type: ignore[assignment]
    with (
        checkpointing(model, on=True),
        compiled(model),
        capturable_attention(model, "bf16"),
        torch._inductor.config.patch(custom_partitioner_fn=Part(), force_disable_caches=True),
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(KeyboardInterrupt),
    ):
        model.train()(**batch)
    forward, backward = found
    return forward, backward


def test_checkpointed_layers_keep_their_attention(tiny_recipe: Path) -> None:
    """Computed again it would need a random generator that a captured step knows nothing of."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        forward, backward = fresh.submit(operations_of_both_passes, tiny_recipe).result()
    assert [name for name in forward if "attention" in name or "rng" in name] == [
        "aten._flash_attention_forward.default"
    ]
    assert [name for name in backward if "attention" in name or "rng" in name] == [
        "aten._flash_attention_backward.default"
    ]
    assert backward.count("aten.erf.default") == 1 == forward.count("aten.erf.default"), (
        "all else is computed again"
    )


def test_what_a_layer_is_given_is_not_computed_again() -> None:
    """torch 2.11 marks sizes so; the versions that do not leave nothing to see in a compiled layer."""
    graph = torch.fx.Graph()
    given = graph.placeholder("size")
    made = graph.call_function(torch.neg, (given,))
    given.meta["recompute"] = made.meta["recompute"] = CheckpointPolicy.PREFER_RECOMPUTE
    layers._keep_inputs()(graph)
    assert ("recompute" in given.meta, "recompute" in made.meta) == (False, True)
