"""Compilation of a model's layers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from peft_methods.models.packed_virtual_tokens import virtual_tokens_of
from peft_methods.tasks.linear_cross_entropy import CHUNK_LOSSES
from peft_methods.training.activation_checkpointing import layers_of, recompute_all_but_attention
from peft_methods.training.cuda_graphs.compat import undo_compile
from peft_methods.training.cuda_graphs.four_bit import faster_products

# torch's options that store cheap values: those that a product of the backward pass reads, and
# those that are computed long before they are used again.
STORED_BY_DEFAULT = ("ban_recompute_materialized_backward", "ban_recompute_used_far_apart")
LARGEST_RANK = 256  # of LoRA's products that are computed again
# A kind of layer takes about 10 s to compile (MPNet-base with LoRA, an H200). The first and last
# layers of a model may differ from the others.
MOST_KINDS = 4
# Part of the key of the compiler's cache: increase it whenever `_checkpoint_policy` changes.
recompute_all_but_attention.cache_hash = "1"  # type: ignore[attr-defined]


@contextmanager
def compiled(model: nn.Module, *, on: bool = True, recomputes: bool = False) -> Iterator[None]:
    """Context manager: run each layer as compiled code. All layers share one compilation.

    The losses of a language model's tokens are compiled too, and products with 4-bit weights are
    replaced by faster ones.

    Dynamo raises an error where it would otherwise silently stop compiling (recompile limits).

    One compilation serves all lengths and all layers. If any layer is trained, the first layer's
    input is made to require a gradient, as the inputs of the other layers do. Otherwise the first
    layer would be traced and compiled separately.

    Plain numbers (LoRA's scaling) are compiled as constants. As inputs they would be computed on
    the host, by C++ code that takes a minute to build and that a captured step cannot replay.

    Sums over rows and sums over columns stay separate kernels. Fusing them (torch's default) made a
    second graph for long batches, which took full fine-tuning a second to trace. Its steps were
    also slower: 13.1 ms fused, 12.6 ms separate (roberta-base, 16 reviews, an H100).

    With `recomputes`, the outputs of norms and of activation functions are computed again in the
    backward pass from what is stored anyway. By torch's defaults the compiler stores them, since
    products there read them: LoRA at the shape of Llama-3.2-1B needed 17,950 instead of 15,126 MiB.
    """
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    layers = layers_of(model) if on else []
    modules = [*layers, CHUNK_LOSSES] if on else []
    products = faster_products(model) if on else nullcontext()
    for module in modules:
        module.compile(dynamic=True)
    limited = dynamo.patch(
        recompile_limit=64,
        accumulated_recompile_limit=1024,
        fail_on_recompile_limit_hit=True,
        specialize_float=True,
    )
    unfused = (
        {"triton.mix_order_reduction": False}
        if hasattr(inductor.triton, "mix_order_reduction")
        else {}
    )
    kernels = inductor.patch({"joint_custom_post_pass": _recompute_tags(recomputes), **unfused})
    stored = functorch.patch(dict.fromkeys(STORED_BY_DEFAULT, not recomputes))
    try:
        with limited, kernels, stored, products, _gradients_of_inputs(model, layers):
            yield
    finally:
        for module in modules:
            undo_compile(module)


def compiling_problem(model: nn.Module) -> str | None:
    """Return why the compilation of the model's layers would take too long, or None.

    Layers share compiled code if their parameters have the same shapes: the compiler treats those
    as constants. AdaMSS divides the rows of each matrix into clusters of other sizes, so each of
    MPNet-base's twelve layers is a kind of its own, and they did not compile within five minutes.
    """
    layers = layers_of(model)
    if (kinds := len({_kind(layer) for layer in layers})) <= MOST_KINDS:
        return None
    return (
        f"the shapes of parameters differ among the model's {len(layers)} layers, so that "
        f"{kinds} kinds of layers would be compiled one by one (at most {MOST_KINDS} are)"
    )


def _kind(layer: nn.Module) -> frozenset[tuple[str, tuple[int, ...], bool]]:
    named = layer.named_parameters()
    return frozenset((name, tuple(one.shape), one.requires_grad) for name, one in named)


@contextmanager
def _gradients_of_inputs(model: Any, layers: list[nn.Module]) -> Iterator[None]:
    """Context manager: make the layers' inputs require gradients if those of some layers do.

    An input does so behind a layer that is trained, or that reads trained keys and values. The
    gradients of the token embeddings are computed in each step and never used. That costs 1 % of
    LoRA's time on an H100. Without it, tracing a second time took a second per run.
    """
    trained = any(parameter.requires_grad for layer in layers for parameter in layer.parameters())
    virtual = virtual_tokens_of(model) if layers else None
    if not trained and (virtual is None or virtual.are_in_rows):
        yield
        return
    model.enable_input_require_grads()
    try:
        yield
    finally:
        model.disable_input_require_grads()


def _recompute_tags(recomputes: bool) -> Any:
    """Return a compiler pass over the joint graph that decides what may be recomputed.

    Graph inputs are never marked for it. torch 2.11 marks the input sizes of a checkpointed layer
    with flash attention, and then fails to find them ("was invalid, but is output"). torch 2.13
    does not.

    With `recomputes`, LoRA's second products are marked for it where their sum with a layer's
    output is in fp32, as beside layers in 4 bits. By default the compiler stores both products.
    """
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
    from torch.utils.checkpoint import CheckpointPolicy

    class RecomputeTags(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            for node in graph.find_nodes(op="placeholder"):
                node.meta.pop("recompute", None)
            products = graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default)
            for node in products if recomputes else ():
                if _is_of_a_rank(node) and _is_summed_in_fp32(node):
                    node.meta["recompute"] = CheckpointPolicy.MUST_RECOMPUTE

        def uuid(self) -> bytes:
            return get_hash_for_files((__file__,), extra=str(recomputes))

    return RecomputeTags()


def _is_of_a_rank(product: torch.fx.Node) -> bool:
    """Whether it is LoRA's second product: one of a product with few columns and stored weights.

    Weights in 4 bits do not count. Their values are computed, and the compiler would store them to
    compute such a product again.
    """
    first, second = map(_origin, product.args)
    rank = product.args[0].meta["val"].shape[1]  # type: ignore[union-attr]
    return (
        isinstance(rank, int)
        and rank <= LARGEST_RANK
        and first.target is torch.ops.aten.mm.default
        and second.op == "placeholder"
    )


def _origin(node: Any) -> torch.fx.Node:
    """Return what a node's values come from, but for scaling, views and conversions."""
    aten, prims = torch.ops.aten, torch.ops.prims
    kept = {aten.permute.default, aten.view.default, aten.mul.Tensor}
    while node.target in {*kept, prims.convert_element_type.default}:
        node = node.args[0]
    found: torch.fx.Node = node
    return found


def _is_summed_in_fp32(product: torch.fx.Node) -> bool:
    """Whether a product in half precision is at most scaled, and then summed or stored in fp32."""
    aten, node = torch.ops.aten, product
    while len(node.users) == 1:
        (node,) = node.users
        value = node.meta.get("val")  # the graph's outputs have none
        if isinstance(value, torch.Tensor) and value.dtype is torch.float32:
            return product.meta["val"].dtype is not torch.float32
        if node.target not in {aten.view.default, aten.mul.Tensor}:
            return False
    return False


def compiled_graph_counts() -> dict[str, int]:
    """Count the graphs that this process has made since `count_compiled_anew`.

    "cached" counts graphs found in the compiler's cache, "compiled" those that were compiled. Code
    that an earlier run of the process has left is in neither.
    """
    from torch._dynamo.utils import counters

    found = counters["inductor"]
    return {
        "cached": found["fxgraph_cache_hit"],
        "compiled": found["fxgraph_cache_miss"] + found["fxgraph_cache_bypass"],
    }


def count_compiled_anew() -> None:
    """Count from zero: call it before a run."""
    from torch._dynamo.utils import counters

    counters.clear()


def forget_compiled() -> None:
    """Drop all compiled code of this process. The compiler's cache on disk stays."""
    if "torch._dynamo" in sys.modules:
        import torch._dynamo

        torch._dynamo.reset()
