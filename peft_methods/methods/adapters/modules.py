"""The modules of bottleneck adapters and AdapterFusion, and their places in an encoder layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from peft_methods.models.layer_parts import LayerEnds

Wrapper = TypeVar("Wrapper", bound=nn.Module)
NONLINEARITIES = {"relu": nn.ReLU, "swish": nn.SiLU, "gelu": nn.GELU}


class Bottleneck(nn.Module):
    """up(act(down(x))), (…, hidden) -> (…, hidden), without its residual.

    The up-projection starts at zero, and so does the output.
    """

    def __init__(self, hidden: int, width: int, nonlinearity: str) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, width)
        self.activation = NONLINEARITIES[nonlinearity]()
        self.up = nn.Linear(width, hidden)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the addend of the residual."""
        result: torch.Tensor = self.up(self.activation(self.down(x)))
        return result


class Fusion(nn.Module):
    """Attention over several bottlenecks (Pfeiffer et al. 2021, section 3.2).

    (…, hidden) -> (…, hidden).

    With u_i the i-th bottleneck's output: softmax_i(query(x) · key(u_i)) weighs value(u_i). Both
    maps are linear, so the key map is moved to the query's side and the value map behind the sum:
    the same result for a third of the work. The value map starts as the identity.
    """

    def __init__(self, hidden: int, bottlenecks: list[Bottleneck], dropout: float) -> None:
        super().__init__()
        self.bottlenecks = nn.ModuleList(bottlenecks)
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Softmax(dim=-1)
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.value.weight.fill_(1e-6).fill_diagonal_(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of all bottlenecks' outputs."""
        outputs = torch.stack([bottleneck(x) for bottleneck in self.bottlenecks], dim=-2)
        query = self.query(x)
        towards = (query @ self.key.weight).unsqueeze(-1)
        scores = (outputs @ towards).squeeze(-1) + query @ self.key.bias.unsqueeze(-1)
        shares = self.attention(self.dropout(scores)).unsqueeze(-2)
        mixed: torch.Tensor = self.value((shares @ outputs).squeeze(-2))
        return mixed

    def distance_from_identity(self) -> torch.Tensor:
        """Squared distance of the value map from the identity. The paper keeps it small."""
        eye = torch.eye(self.value.in_features, device=self.value.weight.device)
        return (eye - self.value.weight).pow(2).sum()


class BeforeResidual(nn.Module):
    """Houlsby's place: the adapter transforms a sublayer's output before the residual sum."""

    def __init__(self, wrapped: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.wrapped, self.adapter = wrapped, adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """h + adapter(h) for the sublayer's output h."""
        h: torch.Tensor = self.wrapped(x)
        added: torch.Tensor = h + self.adapter(h)
        return added


class AroundNorm(nn.Module):
    """Pfeiffer's place, around the norm of the residual sum s: norm(s + adapter(norm(s)))."""

    def __init__(self, wrapped: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.wrapped, self.adapter = wrapped, adapter

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Norm of the residual sum s and the adapter's output."""
        normed: torch.Tensor = self.wrapped(s + self.adapter(self.wrapped(s)))
        return normed


class InputKept(nn.Module):
    """Keeps the input of the first map of a feed-forward block for `ParallelSum` at its end."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.x: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map's output."""
        self.x = x
        result: torch.Tensor = self.wrapped(x)
        return result

    def taken(self) -> torch.Tensor:
        """Return the input, and keep it no longer."""
        x, self.x = self.x, None
        assert x is not None, "a feed-forward block ends after it began"
        return x


class ParallelSum(nn.Module):
    """The end of a feed-forward block: its output plus `scaling` times adapter(its input)."""

    def __init__(
        self, wrapped: nn.Module, adapter: nn.Module, begin: InputKept, scaling: float
    ) -> None:
        super().__init__()
        self.wrapped, self.adapter, self.scaling = wrapped, adapter, scaling
        self.taken = begin.taken  # the module itself is a part of the block already

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        added: torch.Tensor = self.wrapped(h) + self.scaling * self.adapter(self.taken())
        return added


def adapted_layers(
    model: nn.Module, ends: Iterable[LayerEnds]
) -> list[tuple[nn.Module, LayerEnds]]:
    """Return the layers of a model with a head, each with its ends.

    Layers that share their weights occur once.
    """
    base: nn.Module = getattr(model, str(model.base_model_prefix))
    found = [
        (layer, own)
        for own in ends
        for name, module in base.named_modules()
        if re.fullmatch(own.layers_pattern(), name) and isinstance(module, nn.ModuleList)
        for layer in module
    ]
    assert found, "the model has no layers where its type should have them"
    return found


def wrap_end(layer: nn.Module, ends: LayerEnds, adapter: nn.Module) -> None:
    """Put one adapter into the layer, as Pfeiffer et al. 2021 do: around its last norm.

    A pre-norm layer has no norm after its last sum: there the adapter transforms the output of the
    feed-forward block before it is added (the series adapter of Hu et al. 2023, arXiv:2304.01933).
    """
    if ends.ffn_norm:
        wrap(layer, ends.ffn_norm, AroundNorm, adapter)
    else:
        wrap(layer, ends.ffn_end, BeforeResidual, adapter)


def wrap(layer: nn.Module, path: str, wrapper: type[Wrapper], *arguments: Any) -> Wrapper:
    """Put `wrapper` with its arguments around the module at `path` of the layer, and return it."""
    parent, _, name = path.rpartition(".")
    owner = layer.get_submodule(parent)
    wrapped = wrapper(getattr(owner, name), *arguments)
    setattr(owner, name, wrapped)
    return wrapped
