"""The encoder's layers: computed again in the backward pass, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The encoder's layers: the outermost list of modules of one class."""
    lists = (list(module) for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((layers for layers in lists if len({type(layer) for layer in layers}) == 1), [])


@contextmanager
def checkpointing(model: nn.Module, *, on: bool) -> Iterator[None]:
    """Within it, each layer keeps its input alone (compiled: and its attention) and is computed again in the backward pass.

    Our own, since not every encoder of transformers has it (MPNet 5.17). Not reentrant: then a layer's trained
    parameters get their gradients also where its input has none, as with a frozen encoder.
    """
    layers = layers_of(model) if on else []
    for layer in layers:
        layer.forward = MethodType(_computed_again, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


def _computed_again(layer: nn.Module, *inputs: Any, **options: Any) -> Any:
    forward: Callable[..., Any] = MethodType(type(layer).forward, layer)
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    if torch.compiler.is_compiling():
        return checkpoint(
            forward, *inputs, use_reentrant=False, context_fn=_all_but_attention, **options
        )
    return checkpoint(forward, *inputs, use_reentrant=False, **options)


def _all_but_attention() -> Any:
    """In compiled code what an attention kernel gives is kept: its dropout draws within, and would draw anew when computed again.

    The compiler's own remedy keeps the state of a random generator of its own, which a captured step would not know of.
    """
    return create_selective_checkpoint_contexts(_kept_or_again)  # type: ignore[no-untyped-call]


_all_but_attention.cache_hash = "1"  # type: ignore[attr-defined]  # the compiler's cache keeps code by it: another rule, another number


def _kept_or_again(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return (
        CheckpointPolicy.MUST_SAVE
        if "attention" in str(operation)
        else CheckpointPolicy.PREFER_RECOMPUTE
    )


@contextmanager
def compiled(model: nn.Module, *, on: bool = True) -> Iterator[None]:
    """Within it, each layer runs as compiled code, which all layers share; what dynamo would do silently is an error.

    One compilation serves all lengths and all layers: where one is trained, the first one's input is made to need a gradient as
    the others' do, or the first would be traced and compiled for itself. Plain numbers (LoRA's scaling) are constants of it: as
    inputs they would be computed with on the host, by C++ code that takes a minute to set up and that a captured step could not replay.
    Sums over rows and sums over columns stay kernels of their own. Fused (torch's default) they made a second graph for long batches, which
    took full fine-tuning a second to trace, and its steps were slower: 13.1 ms, and 12.6 apart (roberta-base, 16 reviews, an H100).
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    layers = layers_of(model) if on else []
    for layer in layers:
        layer.compile(dynamic=True)
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
    kernels = inductor.patch({"joint_custom_post_pass": _keep_inputs(), **unfused})
    try:
        with limited, kernels, _gradients_of_inputs(model, layers):
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


@contextmanager
def _gradients_of_inputs(model: Any, layers: list[nn.Module]) -> Iterator[None]:
    """Within it, what the encoder's layers are given needs gradients, if one of them is trained: those of the embedded tokens.

    Nobody needs these, and each step computes them: 1 % of LoRA's time on an H100, where tracing once more took a second a cell.
    """
    if not any(parameter.requires_grad for layer in layers for parameter in layer.parameters()):
        yield
        return
    model.enable_input_require_grads()
    try:
        yield
    finally:
        model.disable_input_require_grads()


def _keep_inputs() -> Any:
    """A pass over forward and backward together: what comes in from outside is kept.

    torch 2.11 marks the sizes that a checkpointed layer with flash attention is given as to be computed again, and then
    misses them ("was invalid, but is output"); 2.13 does not.
    """
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class KeepInputs(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            for node in graph.find_nodes(op="placeholder"):
                node.meta.pop("recompute", None)

        def uuid(self) -> bytes:
            return get_hash_for_files((__file__,))

    return KeepInputs()


def compilations() -> dict[str, int]:
    """This process's compiled graphs: how many were found in the compiler's cache and how many were made anew."""
    from torch._dynamo.utils import counters

    found = counters["inductor"]
    return {
        "kept": found["fxgraph_cache_hit"],
        "anew": found["fxgraph_cache_miss"] + found["fxgraph_cache_bypass"],
    }
