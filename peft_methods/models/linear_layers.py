"""The linear layers and sizes of a loaded model, for model types without a module map.

Their role is known by their name. Methods that need no more than linear layers train such models
too, and their counts are computed from the sizes found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.models.layer_parts import LinearLayer
from peft_methods.models.module_names import has_transposed_weights, in_modules, is_bias

if TYPE_CHECKING:
    from torch import nn

# Last names of linear layers, by role. Names of layers that hold query, key and value in one matrix
# are in all three.
FUSED = ("Wqkv", "in_proj", "qkv", "qkv_proj", "query_key_value", "c_attn")
NAMES = {
    "query": ("query", "query_global", "query_proj", "q", "q_lin", "q_proj", "q_head", *FUSED),
    "key": ("key", "key_global", "key_proj", "k", "k_lin", "k_proj", "k_head", *FUSED),
    "value": ("value", "value_global", "value_proj", "v", "v_lin", "v_proj", "v_head", *FUSED),
    "attention_output": ("out_proj", "o_proj", "out_lin", "post_proj", "o"),
    "ffn_input": (
        *("fc1", "lin1", "linear_1", "dense1", "w1", "w3", "Wi", "wi", "wi_0", "wi_1", "ffn"),
        *("c_fc", "up_proj", "gate_proj", "gate_up_proj", "dense_h_to_4h"),
    ),
    "ffn_output": (
        *("fc2", "lin2", "linear_2", "dense2", "w2", "wo", "ffn_output"),
        *("down_proj", "dense_4h_to_h"),
    ),
}
ATTENTION = re.compile(r"\.[^.]*att(n|ention)[^.]*\.")


@dataclass(frozen=True)
class CountedModel:
    """Sizes counted on a model before any method is applied, without its head.

    `linear_layers` are those with a known role. `is_transposed` says whether they store
    (inputs, outputs), as GPT-2's do.
    """

    parameters: int
    biases: int
    linear_layers: tuple[LinearLayer, ...]
    is_transposed: bool = False

    def in_roles(self, roles: Iterable[str]) -> tuple[LinearLayer, ...]:
        """Return the layers with at least one of these roles."""
        wanted = set(roles)
        return tuple(layer for layer in self.linear_layers if wanted & set(layer.roles))

    def pattern(self, roles: Iterable[str]) -> str:
        """Return a pattern that fully matches the layers with these roles, whatever their number.

        PEFT prepends names of its own to theirs.
        """
        names = (re.escape(layer.name) for layer in self.in_roles(roles))
        paths = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\\\.)", r"\\d+", name) for name in names)
        return rf"(.*\.)?({'|'.join(paths)})"


def count_model(model: nn.Module, head: tuple[str, ...]) -> CountedModel:
    """Count a model's parameters and biases, and find its linear layers."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from peft_methods.models.parameters import size_of

    sizes = {n: size_of(p) for n, p in model.named_parameters() if not in_modules(n, head)}
    biases = (n for n, p in model.named_parameters() if n in sizes and is_bias(n, p))
    layers = (
        LinearLayer(name, *_sizes_of(module), roles, module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and (roles := roles_of(name))
        if f"{name}.weight" in sizes
    )
    return CountedModel(
        sum(sizes.values()),
        sum(sizes[name] for name in biases),
        tuple(layers),
        has_transposed_weights(model),
    )


def _sizes_of(module: Any) -> tuple[int, int]:
    """Return the inputs and outputs of a linear layer. GPT-2's, a Conv1D, names them otherwise."""
    return (
        (module.nx, module.nf)
        if hasattr(module, "nf")
        else (
            module.in_features,
            module.out_features,
        )
    )


def roles_of(name: str) -> tuple[str, ...]:
    """Return the roles of a linear layer with this path; none outside the numbered layers."""
    last = name.rpartition(".")[2]
    if not re.search(r"\.\d+\.", name):
        return ()
    if last in ("dense", "Wo", "c_proj"):
        return _role_of_dense(name, last)
    return tuple(role for role, names in NAMES.items() if last in names)


def _role_of_dense(name: str, last: str) -> tuple[str, ...]:
    """Return the role of a layer whose last name says nothing: the names before it tell."""
    if ATTENTION.search(name):
        return ("attention_output",)
    if last in ("Wo", "c_proj") or name.endswith(".output.dense"):
        return ("ffn_output",)
    return ("ffn_input",) if name.endswith(".intermediate.dense") else ()
