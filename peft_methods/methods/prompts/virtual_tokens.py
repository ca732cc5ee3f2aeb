"""The modules of trained prompts: virtual tokens as embeddings, or as keys and values of layers.

Both are hooks of the model without its head, so that every head and loss sees the tokens of the
text alone: their number, places and padding are as without a prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from peft_methods.models.layer_parts import ModuleMap
from peft_methods.models.packed_prefix import all_places, token_places, with_prefix
from peft_methods.models.packed_virtual_tokens import give_prefix

Arguments = dict[str, Any]


class Encoded(nn.Module):
    """Trained vectors (count, width), passed through `network` if there is one."""

    def __init__(self, vectors: torch.Tensor, network: nn.Module | None = None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)
        self.network = network

    def forward(self) -> torch.Tensor:
        """Return the vectors of the virtual tokens, (count, outputs)."""
        return self.vectors if self.network is None else self.network(self.vectors)


def reader_of(model: Any, parts: ModuleMap, *, is_decoder: bool) -> Any:
    """Return the part of a model that every head calls with the ids of a text.

    It is the model without its head. In OPT it is the decoder within: its language model calls that
    alone.
    """
    backbone = getattr(model, str(model.base_model_prefix))
    inner = parts.layers.rpartition(".")[0] if is_decoder else ""
    return backbone.get_submodule(inner)


def attention_of(model: Any, parts: ModuleMap) -> list[nn.Module]:
    """Return the module of each layer that computes its attention: the one with its keys."""
    layers = getattr(model, str(model.base_model_prefix)).get_submodule(parts.layers)
    return [layer.get_submodule(parts.key.rpartition(".")[0]) for layer in layers]


class VirtualTokens(nn.Module):
    """What is common to both: `attach` makes a model read the virtual tokens of `encoded`.

    Rows of several texts have `borders`, as `models/packed_virtual_tokens.py` describes.
    """

    adds_tokens = True  # decoding in slots knows the tokens of the text alone
    are_in_rows = True
    attention: tuple[nn.Module, ...] = ()

    def __init__(self, encoded: Encoded) -> None:
        super().__init__()
        self.encoded = encoded
        self.borders: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """The number of virtual tokens."""
        return len(self.encoded.vectors)

    def attach(self, backbone: nn.Module) -> None:
        """Become a part of the model without its head, as `virtual_tokens`."""
        backbone.add_module("virtual_tokens", self)
        backbone.register_forward_pre_hook(self.before, with_kwargs=True)
        backbone.register_forward_hook(self.after, with_kwargs=True)

    def before(
        self, backbone: nn.Module, values: tuple[Any, ...], named: Arguments
    ) -> tuple[tuple[()], Arguments]:
        """Add the tokens to the arguments of the forward pass."""
        parameters = inspect.signature(type(backbone).forward).bind(backbone, *values, **named)
        given = dict(parameters.arguments)
        given.pop("self")
        given |= given.pop("kwargs", {})
        cache = given.get("past_key_values")
        length = 0 if cache is None else cache.get_seq_length()
        ids = given["input_ids"]
        mask = given.get("attention_mask")
        if mask is None:
            mask = ids.new_ones((len(ids), max(0, length - self.count) + ids.shape[1]))
        if length == 0:
            return (), self.first(backbone, {**given, "attention_mask": mask})
        if given.get("position_ids") is not None:  # a later step of generation
            given["position_ids"] = given["position_ids"] + self.count
        return (), {**given, "attention_mask": self.extended(mask, 0)}

    def extended(self, values: torch.Tensor, place: int, filler: int = 1) -> torch.Tensor:
        """Insert a column of fillers for each virtual token into (rows, length)."""
        new = values.new_full((len(values), self.count), filler)
        return torch.cat((values[:, :place], new, values[:, place:]), dim=1)

    def first(self, backbone: nn.Module, given: Arguments) -> Arguments:
        """Return the arguments of the first forward pass over a text."""
        raise NotImplementedError

    def after(
        self, backbone: nn.Module, values: tuple[Any, ...], named: Mapping[str, Any], output: Any
    ) -> Any:
        """Return the output for the tokens of the text alone."""
        return output


class Prompt(VirtualTokens):
    """Embeddings in front of each row, or behind its first token (`place` 1).

    Encoders classify by the first token, which stays the first.
    """

    def __init__(self, encoded: Encoded, place: int) -> None:
        super().__init__(encoded)
        self.place = place

    def first(self, backbone: nn.Module, given: Arguments) -> Arguments:
        """Embed the text, and insert the prompt."""
        embed: Any = backbone.get_input_embeddings()  # type: ignore[operator]
        texts, place = embed(given.pop("input_ids")), self.place
        if self.borders is not None:
            return self._before_each(given, texts)
        prompt = self.encoded().to(texts.dtype).expand(len(texts), -1, -1)
        embeds = torch.cat((texts[:, :place], prompt, texts[:, place:]), dim=1)
        given["attention_mask"] = self.extended(given["attention_mask"], place)
        if given.get("token_type_ids") is not None:
            given["token_type_ids"] = self.extended(given["token_type_ids"], place, 0)
        if (positions := given.get("position_ids")) is not None:
            own = torch.arange(self.count, device=positions.device).expand(len(positions), -1)
            given["position_ids"] = torch.cat((own, positions + self.count), dim=1)
        return {**given, "inputs_embeds": embeds}

    def _before_each(self, given: Arguments, texts: torch.Tensor) -> Arguments:
        """Insert the prompt before each text of a row (1, tokens, width)."""
        if self.place > 0:
            raise NotImplementedError("packed texts have no prompt behind their first token")
        assert self.borders is not None
        places = all_places(self.borders, texts.shape[1], self.count)
        # not a view: for one the first layer would be compiled apart from the others
        embeds = with_prefix(texts[0], self.encoded(), places)[None].clone()
        own = torch.arange(self.count, device=places.device)
        positions = with_prefix(given["position_ids"][0] + self.count, own, places)[None]
        mask = given["attention_mask"].new_ones(embeds.shape[:2])
        changed = {"attention_mask": mask, "position_ids": positions, "inputs_embeds": embeds}
        return {**given, **changed}

    def after(
        self, backbone: nn.Module, values: tuple[Any, ...], named: Mapping[str, Any], output: Any
    ) -> Any:
        """Leave out the states of the prompt."""
        if named.get("inputs_embeds") is not None:
            states, end = output["last_hidden_state"], self.place + self.count
            if self.borders is not None:
                tokens = states.shape[1] - self.count * (len(self.borders) - 1)
                places = token_places(self.borders, tokens, self.count)
                output["last_hidden_state"] = states.index_select(1, places)
                return output
            output["last_hidden_state"] = torch.cat(
                (states[:, : self.place], states[:, end:]), dim=1
            )
        return output


class ReadOnlyCache(DynamicCache):
    """A cache of the prefix alone, for forward passes outside generation.

    Layers may be computed twice, as in gradient checkpointing: they must not add to it.
    """

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prefix's keys and values of a layer, followed by the given ones."""
        kept: Any = self.layers[layer_idx]
        return (
            torch.cat((kept.keys, key_states), dim=-2),
            torch.cat((kept.values, value_states), dim=-2),
        )


class Prefix(VirtualTokens):
    """Keys and values in each layer: `encoded` has (count, layers * 2 * heads * width).

    `attention` has the modules that compute each layer's attention. They read the prefix from a
    cache, or from an attribute of their own while `borders` are set.
    """

    are_in_rows = False

    def __init__(
        self, encoded: Encoded, attention: Sequence[nn.Module], heads: int, *, is_causal: bool
    ) -> None:
        super().__init__(encoded)
        self.attention, self.heads, self.is_causal = tuple(attention), heads, is_causal
        self.dtype = torch.float32

    def attach(self, backbone: nn.Module) -> None:
        """See `VirtualTokens.attach`. The prefix has the type of the model's weights.

        It is that of now: an engine may hold frozen weights in half precision while it trains.
        """
        self.dtype = next(backbone.parameters()).dtype
        super().attach(backbone)

    def first(self, backbone: nn.Module, given: Arguments) -> Arguments:
        """Begin the cache with the prefix, or give it to the attention."""
        pairs = self.encoded().to(self.dtype)
        pairs = pairs.view(self.count, len(self.attention), 2, self.heads, -1)
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + self.count
        if self.borders is not None:
            give_prefix(self.attention, pairs.permute(1, 2, 0, 3, 4))
            return given
        return self._in_cache(backbone, given, pairs.permute(1, 2, 3, 0, 4))

    def _in_cache(self, backbone: nn.Module, given: Arguments, pairs: torch.Tensor) -> Arguments:
        """Return the arguments with a cache of keys and values (layers, 2, heads, count, width)."""
        mask, ids = given["attention_mask"], given["input_ids"]
        config: Any = backbone.config
        cache = given.get("past_key_values")
        cache = ReadOnlyCache(config=config) if cache is None else cache
        for number, (keys, values) in enumerate(pairs):
            rows = (len(ids), -1, -1, -1)
            DynamicCache.update(cache, keys.expand(rows), values.expand(rows), number)
        given["past_key_values"] = cache
        whole = self.extended(mask, 0)
        if not self.is_causal:  # encoders take a mask as long as the text, unless it is complete
            hidden = (whole == 0)[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
            whole = torch.zeros_like(hidden, dtype=pairs.dtype).masked_fill(
                hidden, torch.finfo(pairs.dtype).min
            )
        return {**given, "attention_mask": whole}
