"""Compiled layers: same losses, code cached for later runs, and capturable by CUDA graphs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from attention_builders import flash_attention_on_a_cpu
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy

from builders import TASK, make_decoder, make_trainer, prepared, train_with_both_engines
from language_builders import ready, recipe_of, write_pairs
from peft_methods.models.layer_parts import ROLES
from peft_methods.tasks.collate import Collator
from peft_methods.training.activation_checkpointing import checkpointing
from peft_methods.training.collate import BucketCollator
from peft_methods.training.cuda_graphs import attention, compile, loop, packed_attention
from peft_methods.training.cuda_graphs.attention import capturable_attention
from peft_methods.training.cuda_graphs.compile import (
    compiled,
    compiled_graph_counts,
    compiling_problem,
)
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.cuda_graphs.optimizer import ReplayedAdamW
from peft_methods.training.cuda_graphs.step import StepGraphs
from peft_methods.training.cuda_graphs.token_buckets import TokenBucket
from peft_methods.utils.errors import EngineUnfit


def compiled_agrees(recipe: Path, folder: Path) -> dict[str, int]:
    train_with_both_engines(recipe, folder, "lora", compile_layers=True)
    return compiled_graph_counts()


@pytest.mark.slow
def test_compiled_layers_change_no_loss_and_are_cached(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use fresh processes, as training runs do: earlier imports change the compiled code."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    found = []
    for _ in range(2):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found.append(fresh.submit(compiled_agrees, tiny_recipe, tmp_path).result())
    assert found == [{"cached": 0, "compiled": 2}, {"cached": 2, "compiled": 0}], (
        "one forward and one backward for all layers"
    )


def adapted(settings: peft.PeftConfig, layers: int) -> tuple[nn.Module, list[nn.Module]]:
    """Return a small BERT with an adapter of PEFT's, and its layers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=50, num_hidden_layers=layers, **sizes)
    bert = transformers.BertModel(config)
    return peft.get_peft_model(bert, settings), list(bert.encoder.layer)


ADAMSS = peft.AdamssConfig(target_modules=["query"], r=8, num_subspaces=5, subspace_rank=1)
LORA = peft.LoraConfig(target_modules=["query"])


@pytest.mark.parametrize(
    ("settings", "layers", "fits"), [(ADAMSS, 6, False), (ADAMSS, 4, True), (LORA, 6, True)]
)
def test_layers_of_too_many_shapes_are_not_compiled(
    settings: peft.PeftConfig, layers: int, fits: bool
) -> None:
    problem = compiling_problem(adapted(settings, layers)[0])
    assert (problem is None) == fits
    assert fits or "6 kinds of layers" in str(problem)


def test_the_engine_leaves_such_a_model_to_the_trainer(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile, "MOST_KINDS", 1)
    made = prepared(tiny_recipe, "adamss")
    with pytest.raises(EngineUnfit, match="with AdaMSS, the shapes of parameters differ"):
        make_trainer(made, tmp_path, kind=CudaGraphsTrainer)


def graphs_of_layers(settings: peft.PeftConfig) -> int:
    """Return how often the compiler traces three layers."""
    model, layers = adapted(settings, 3)
    made: list[torch.fx.GraphModule] = []

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        made.append(graph)
        return graph.forward

    for layer in layers:
        layer.compile(dynamic=True, backend=counting)
    model.get_input_embeddings().requires_grad_(True)  # type: ignore[operator]
    model(input_ids=torch.arange(24).view(2, 12))
    return len(made)


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "graphs"), [(ADAMSS, 3), (LORA, 1)])
def test_layers_share_code_if_their_parameters_have_the_same_shapes(
    settings: peft.PeftConfig, graphs: int
) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        assert fresh.submit(graphs_of_layers, settings).result() == graphs


def replays_all_buckets(graphs: StepGraphs, model: nn.Module) -> None:
    """Raise an error if a length between the two warmed-up ones needs another compilation."""
    with compiled(model):
        graphs.capture()
        with torch.compiler.set_stance("fail_on_recompile"):
            for replay in graphs._replays.values():
                replay()


def warmed_up_for_all_lengths(recipe_path: Path) -> None:
    _, _, base, model, _ = prepared(recipe_path, "lora")
    optimizer = ReplayedAdamW([p for p in model.parameters() if p.requires_grad])
    collate = BucketCollator(Collator(base.tokenizer), 6, range(8, 61, 4))
    columns = ("input_ids", "attention_mask")
    graphs = StepGraphs(
        model,
        optimizer,
        batches=[collate.empty(length, columns) for length in collate.buckets],
        precision="fp32",
        accumulation=1,
        max_grad_norm=0.0,
        loss=TASK.loss,
        penalty=lambda model: None,
    )
    replays_all_buckets(graphs, model)


def packed_with_the_kernel(folder: Path, name: str) -> None:
    """Do the same with torch's operators of flash attention, which are computed on a CPU here."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    for module in (loop, packed_attention):
        module.has_kernel = lambda *_: True
    with flash_attention_on_a_cpu():
        packed_for_all_sizes(folder, name)


def packed_for_all_sizes(folder: Path, name: str) -> None:
    """Train a decoder; its buckets differ in tokens, in learnt places and in sequences."""
    model, data = make_decoder(folder / "model"), write_pairs(folder / "data")
    settings = {"max_length": 40, "batch_size": 5, "precision": "bf16"}
    made = ready(recipe_of(model, data, name, **settings), name)
    trainer = make_trainer(made, folder, kind=CudaGraphsTrainer)
    collate, optimizer = trainer.data_collator, trainer.create_optimizer()
    buckets = [TokenBucket(64 * number, 64 * -(-number // 2)) for number in range(1, 6)]
    graphs = StepGraphs(
        trainer.model,
        optimizer,
        batches=[collate.empty(bucket) for bucket in buckets],
        precision="bf16",
        accumulation=2,
        max_grad_norm=1.0,
        loss=trainer.task_loss,
        penalty=lambda model: None,
        around=partial(trainer.packing.applied, trainer.model, "bf16"),
    )
    replays_all_buckets(graphs, trainer.model)
    found = compiled_graph_counts()
    if name != "qlora":
        assert sum(found.values()) == 3, "two of the layers, one of the losses"


def fused_sums(recipe_path: Path) -> tuple[bool, bool, bool]:
    """Return torch's option before, within and after `compiled`."""
    from torch._inductor.config import triton

    _, _, _, model, _ = prepared(recipe_path, "lora")
    before = triton.mix_order_reduction
    with compiled(model):
        within = triton.mix_order_reduction
    return before, within, triton.mix_order_reduction


@pytest.mark.slow
def test_compiled_does_not_fuse_sums_over_rows_and_columns(tiny_recipe: Path) -> None:
    """If torch renames its option, check again that one graph serves all lengths."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        before, within, after = fresh.submit(fused_sums, tiny_recipe).result()
    assert (within, after) == (False, before)


@pytest.mark.slow
def test_code_compiled_for_extreme_lengths_serves_lengths_between(tiny_recipe: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        fresh.submit(warmed_up_for_all_lengths, tiny_recipe).result()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "name"),
    [
        (packed_for_all_sizes, "lora"),
        (packed_for_all_sizes, "qlora"),
        (packed_with_the_kernel, "prompt_tuning"),
        (packed_with_the_kernel, "prefix_tuning"),
    ],
)
def test_code_compiled_for_extreme_packed_batches_serves_those_between(
    train: Callable[[Path, str], None], name: str, tmp_path: Path
) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        fresh.submit(train, tmp_path, name).result()


def stopped_when_divided(see: Callable[[Any, Any, int], None]) -> Any:
    """Return a partitioner that shows the graphs of both passes and the number of the outputs.

    It stops then: a CPU has no kernel for what follows.
    """
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.custom_graph_pass import CustomPartitionerFn

    class Partitioner(CustomPartitionerFn):
        def __call__(self, graph: Any, inputs: Any, *, num_fwd_outputs: int, **options: Any) -> Any:
            forward, backward = min_cut_rematerialization_partition(
                graph, inputs, num_fwd_outputs=num_fwd_outputs, **options
            )
            see(forward.graph, backward.graph, num_fwd_outputs)
            raise KeyboardInterrupt  # unlike exceptions, the compiler does not wrap it

        def uuid(self) -> str:
            return "test"

    return torch._inductor.config.patch(
        custom_partitioner_fn=Partitioner(), force_disable_caches=True
    )


def operations_of_both_passes(recipe_path: Path) -> tuple[list[str], list[str]]:
    """Return the operations of a checkpointed layer's forward and backward graphs.

    They use flash attention, as on a GPU.
    """
    found: list[list[str]] = []

    def see(*graphs: Any) -> None:
        found.extend(
            [str(node.target) for node in graph.nodes if node.op == "call_function"]
            for graph in graphs[:2]
        )

    _, _, base, model, tokens = prepared(recipe_path, "lora")
    batch = Collator(base.tokenizer)([tokens.train[row] for row in range(8)])
    batch.pop("labels")
    attention._choose_attention = lambda *_: attention.PACKED  # type: ignore[assignment]
    with (
        checkpointing(model, on=True),
        compiled(model),
        capturable_attention(model, "bf16"),
        stopped_when_divided(see),
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(KeyboardInterrupt),
    ):
        model.train()(**batch)
    forward, backward = found
    return forward, backward


@pytest.mark.slow
def test_checkpointed_layers_store_their_attention_output(tiny_recipe: Path) -> None:
    """To recompute it, the step would need a random generator that a captured step lacks."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        forward, backward = fresh.submit(operations_of_both_passes, tiny_recipe).result()
    assert [name for name in forward if "attention" in name or "rng" in name] == [
        "aten._flash_attention_forward.default"
    ]
    assert [name for name in backward if "attention" in name or "rng" in name] == [
        "aten._flash_attention_backward.default"
    ]
    assert backward.count("aten.erf.default") == 1 == forward.count("aten.erf.default"), (
        "everything else is recomputed"
    )


def test_compiler_pass_never_recomputes_graph_inputs() -> None:
    """torch 2.11 marks sizes for recomputation. Other versions do not, so a graph is made here."""
    graph = torch.fx.Graph()
    size = graph.placeholder("size")
    result = graph.call_function(torch.neg, (size,))
    size.meta["recompute"] = result.meta["recompute"] = CheckpointPolicy.PREFER_RECOMPUTE
    compile._recompute_tags(False)(graph)
    assert ("recompute" in size.meta, "recompute" in result.meta) == (False, True)


@pytest.mark.parametrize(
    ("rank", "computed", "converted", "tagged"),
    [
        (8, False, True, True),
        (8, False, False, False),  # the graph's output, in half precision
        (8, True, True, False),  # as weights in 4 bits, whose values are computed
        (512, False, True, False),
    ],
)
def test_compiler_pass_recomputes_small_products_that_are_summed_in_fp32(
    rank: int, computed: bool, converted: bool, tagged: bool
) -> None:
    graph = torch.fx.Graph()

    def value(node: torch.fx.Node, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Any:
        node.meta["val"] = torch.empty(shape, dtype=dtype, device="meta")
        return node

    states, first, second = (
        value(graph.placeholder(name), *shape)
        for name, shape in (("states", (9, 32)), ("first", (32, rank)), ("second", (rank, 64)))
    )
    product = torch.ops.aten.mm.default
    inner = value(graph.call_function(product, (states, first)), 9, rank)
    if computed:
        second = value(graph.call_function(torch.neg, (second,)), rank, 64)
    small = value(graph.call_function(product, (inner, second)), 9, 64)
    to_fp32 = torch.ops.prims.convert_element_type.default
    ends = graph.call_function(to_fp32, (small, torch.float32)) if converted else small
    graph.output((value(ends, 9, 64, dtype=torch.float32) if converted else ends,))
    compile._recompute_tags(True)(graph)
    assert [node for node in graph.nodes if "recompute" in node.meta] == ([small] if tagged else [])


def stored_feed_forward_values(folder: Path, method: str, recomputes: bool) -> int:
    """Return how many values of a decoder layer's feed-forward part are stored for each token."""
    model, data = make_decoder(folder / "model"), write_pairs(folder / "data")
    config = transformers.AutoConfig.from_pretrained(model)
    config.intermediate_size = 8 * config.hidden_size  # as Gemma has it
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(model)
    recipe = recipe_of(model, data, method, max_length=40, batch_size=5, precision="bf16")
    made = ready(recipe, method, targets=ROLES)
    trainer = make_trainer(made, folder, kind=CudaGraphsTrainer)
    width, found = trainer.model.config.intermediate_size, []

    def see(forward: Any, _: Any, outputs: int) -> None:
        kept = [node.meta["val"] for node in forward.output_node().args[0][outputs:]]
        of_tokens = [
            one
            for one in kept
            if isinstance(one, torch.Tensor) and isinstance(one.numel(), torch.SymInt)
        ]
        widths = [one.shape[-1] for one in of_tokens]
        found.append(sum(isinstance(own, int) and own == width for own in widths))

    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(5)])
    torch.set_autocast_enabled("cuda", True)  # PEFT asks for it, and adds in fp32 as on a GPU
    with (
        compiled(trainer.model, recomputes=recomputes),
        trainer.packing.applied(trainer.model, "bf16"),
        stopped_when_divided(see),
        pytest.raises(KeyboardInterrupt),
    ):
        trainer.compute_loss(trainer.model, batch)
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "recomputes", "stored"), [("lora", False, 3), ("lora", True, 2), ("qlora", True, 2)]
)
def test_layers_of_decoders_recompute_what_activation_functions_give(
    tmp_path: Path, method: str, recomputes: bool, stored: int
) -> None:
    """The outputs of two products are stored, and not that of the function between them.

    Beside layers in 4 bits, LoRA's share of an output is not stored either.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        found = fresh.submit(stored_feed_forward_values, tmp_path, method, recomputes).result()
    assert found == stored
