"""What a compiled layer stores for the backward pass, by torch's own partitioner.

The cuda_graphs engine trains decoders with compiled layers. The compiler traces a layer's forward
and backward passes together, and a minimal cut through that graph decides what is stored and what
is computed again (`torch._functorch.partitioners`). Here a layer without data is traced and cut in
the same way, and nothing is compiled.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import _pop_mode_temporarily
from torch.utils._pytree import tree_flatten, tree_unflatten

from peft_methods.training.cuda_graphs import compile as engine
from peft_methods.training.cuda_graphs import four_bit


@dataclass(frozen=True)
class StoredSizes:
    """The shapes and bytes an element of what a layer stores, for batches of so many tokens."""

    tokens: int
    stored: tuple[tuple[tuple[int, ...], int], ...]

    def bytes_for(self, tokens: int) -> list[int]:
        """Return the bytes of each for batches of another size."""
        return [
            math.prod(tokens if side == self.tokens else side for side in shape) * size
            for shape, size in self.stored
        ]


class _Partitioned(Exception):  # no error: it ends a trace whose cut is known
    """The graph is cut."""


def stored_by_compiler(
    layer: nn.Module, args: Sequence[Any], options: Mapping[str, Any]
) -> StoredSizes | None:
    """Return what a layer stores if it is compiled; None where it cannot be traced here.

    Its arguments and parameters have no data. Layers whose program depends on values cannot be
    traced. The dispatch mode that is on last, the recorder, sees nothing of it.
    """
    flat, form = tree_flatten((tuple(args), dict(options)))
    given = {n: one for n, one in enumerate(flat) if isinstance(one, torch.Tensor)}
    others = [None if n in given else one for n, one in enumerate(flat)]
    named = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    plain = {name: one for name, one in named.items() if not hasattr(one, "quant_state")}
    quantised = [one for one in layer.modules() if is_in_four_bits(one)]
    found: list[torch.Tensor] = []

    def run(
        own: list[torch.Tensor],
        in_bits: list[tuple[torch.Tensor, ...]],
        inputs: dict[int, torch.Tensor],
    ) -> Any:
        values = [inputs.get(n, one) for n, one in enumerate(others)]
        positional, keywords = tree_unflatten(values, form)
        with ExitStack() as replaced:
            replaced.enter_context(_reparametrize_module(layer, dict(zip(plain, own, strict=True))))
            for module, tensors in zip(quantised, in_bits, strict=True):
                replaced.enter_context(_with_weight(module, tensors))
            return layer.forward(*positional, **keywords)

    def cut(joint: torch.fx.GraphModule, inputs: Any, **how: Any) -> Any:
        weights = list(range(len(plain) + sum(map(len, map(_weight_of, quantised)))))
        how["static_lifetime_input_indices"] = weights  # they are there anyway
        found.extend(_saved(joint, inputs, **how))
        raise _Partitioned

    try:
        with _pop_mode_temporarily(), _as_the_compiler():
            inputs = {n: _same(one) for n, one in given.items()}
            _trace(run, cut)([*plain.values()], [*map(_weight_of, quantised)], inputs)
    except _Partitioned:
        shapes = tuple((tuple(map(int, one.shape)), one.element_size()) for one in found)
        return StoredSizes(tokens_of(args), shapes)
    except Exception:  # whatever tracing raises for a layer that it cannot follow
        return None
    return StoredSizes(1, ())  # nothing needs a gradient


def tokens_of(args: Sequence[Any]) -> int:
    """Return the number of tokens of a layer's input, its first argument: (1, tokens, width)."""
    return int(args[0].shape[-2])


def _same(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the same form: what a trace leaves behind must not keep the original."""
    return torch.empty_like(tensor).requires_grad_(tensor.requires_grad)


def is_in_four_bits(layer: nn.Module) -> bool:
    """Whether a layer's weight is one that bitsandbytes stores in 4 bits."""
    return hasattr(layer._parameters.get("weight"), "quant_state")


def _weight_of(layer: nn.Module) -> tuple[torch.Tensor, ...]:
    """Return the tensors of a weight in 4 bits, in the engine's order."""
    tensors: tuple[torch.Tensor, ...] = four_bit._parts(layer)[0]
    return tensors


@contextmanager
def _with_weight(layer: Any, tensors: tuple[Any, ...]) -> Iterator[None]:
    """Context manager: a layer in 4 bits has these tensors in place of its own."""
    before = dict(layer._parameters), dict(vars(layer))
    weight, *scales = tensors
    state = copy.copy(layer._parameters["weight"].quant_state)
    state.state2 = copy.copy(state.state2)
    state.absmax, state.state2.code, state.state2.absmax, state.offset, state.code = scales
    weight.quant_state = state
    layer._parameters["weight"], vars(layer)["quant_state"] = weight, state
    if "nf4" in vars(layer):
        vars(layer)["nf4"] = tensors, layer.nf4[1]
    try:
        yield
    finally:
        layer._parameters.update(before[0])
        vars(layer).update(before[1])


def _trace(run: Any, cut: Any) -> Any:
    from torch._functorch.aot_autograd import aot_function
    from torch._inductor.decomposition import select_decomp_table

    def as_it_is(gm: Any, example_inputs: Any) -> Any:
        return gm

    return aot_function(
        run, as_it_is, as_it_is, partition_fn=cut, decompositions=select_decomp_table()
    )


@contextmanager
def _as_the_compiler() -> Iterator[None]:
    """Context manager: torch's options are those of the engine, and constants may lack data.

    What torch's passes warn of is no concern of a user, whose warnings may be errors.
    """
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    with (
        warnings.catch_warnings(action="ignore"),
        functorch.patch(dict.fromkeys(engine.STORED_BY_DEFAULT, False)),
        inductor.patch({"joint_custom_post_pass": engine._recompute_tags(True)}),
        mock.patch("torch._dynamo.utils.assert_no_fake_params_or_buffers"),
    ):
        yield


def _saved(joint: torch.fx.GraphModule, inputs: Any, **how: Any) -> Iterator[torch.Tensor]:
    """Yield what the forward pass stores, once each, but for inputs and constants."""
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.compile_fx import _recursive_joint_graph_passes
    from torch._inductor.virtualized import V

    values = [one for node in joint.graph.nodes if _is_tensor(one := node.meta.get("val"))]
    with V.set_fake_mode(values[0].fake_mode):
        _recursive_joint_graph_passes(joint)
    forward, _ = min_cut_rematerialization_partition(joint, inputs, compiler="inductor", **how)
    nodes = list(forward.graph.nodes)
    known = {
        _storage(node.meta["val"])
        for node in nodes
        if node.op in {"placeholder", "get_attr"} and _is_tensor(node.meta.get("val"))
    }
    (output,) = (node for node in nodes if node.op == "output")
    for node in output.args[0][how["num_fwd_outputs"] :]:
        value = node.meta.get("val")
        if _is_tensor(value) and _storage(value) not in known:
            known.add(_storage(value))
            yield value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage()._cdata
