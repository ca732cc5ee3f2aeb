"""The kind of head that a task puts on a model, as data: `models` knows no task."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelHead:
    """A class of transformers that puts a head on a base model.

    `auto_model` is the name of the class. `tables` are names of transformers' tables of model
    types; a model must be in the first, which lists those with this head, and in all others.
    `encoder_decoders` allows models with both parts. `excluded` are model types of the tables that
    need more than texts. `needed` and `examples` describe fitting models in messages.
    """

    auto_model: str
    tables: tuple[str, ...]
    needed: str
    examples: str
    encoder_decoders: bool = False
    excluded: tuple[str, ...] = ()

    def auto_class(self) -> Any:
        """Return the class of transformers."""
        import transformers

        return getattr(transformers, self.auto_model)

    def fits(self, config: Any) -> bool:
        """Whether transformers has such a head for the model that this config describes."""
        kind = config.model_type
        listed = all(kind in table for table in self._tables()) and kind not in self.excluded
        return listed and (self.encoder_decoders or not config.is_encoder_decoder)

    def misfit(self, config: Any) -> str:
        """Return why the model that this config describes cannot carry the head."""
        kind = config.model_type
        if config.is_encoder_decoder and not self.encoder_decoders:
            return f"an encoder-decoder ({kind!r}), which is not {self.needed}"
        types = sorted({*self._tables()[0]} - {*self.excluded})
        close = difflib.get_close_matches(kind, types, n=1, cutoff=0.5)
        near = f" (the nearest type that can: {close[0]!r})" if close else ""
        return f"a {kind!r} model, which is not {self.needed}{near}"

    def _tables(self) -> list[Mapping[str, Any]]:
        from transformers.models.auto import modeling_auto

        return [getattr(modeling_auto, table) for table in self.tables]

    def is_custom(self, config: Any) -> bool:
        """Whether the model's own code includes a class with this head."""
        return self.auto_model in (getattr(config, "auto_map", None) or {})
