"""The kind of head that a task puts on a model, as data: `models` knows no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelHead:
    """A class of transformers that puts a head on a base model.

    `auto_model` is the name of the class. `tables` are names of transformers' tables of model
    types; a model must be in the first, which lists those with this head, and in all others, and in
    none of the tables `not_in`.
    `encoder_decoders` allows models with both parts. `needed` and `examples` describe fitting
    models in messages. A `pretrained` head is a part of the stored model: nothing in it is new, and
    methods train it only with the rest.
    """

    auto_model: str
    tables: tuple[str, ...]
    needed: str
    examples: str
    encoder_decoders: bool = False
    pretrained: bool = False
    not_in: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """The part of a model that is pretrained, in messages."""
        return "language model" if self.pretrained else "encoder"

    def auto_class(self) -> Any:
        """Return the class of transformers."""
        import transformers

        return getattr(transformers, self.auto_model)

    def fits(self, config: Any) -> bool:
        """Whether transformers has such a head for the model that this config describes."""
        from transformers.models.auto import modeling_auto

        listed = all(config.model_type in getattr(modeling_auto, table) for table in self.tables)
        other = any(config.model_type in getattr(modeling_auto, table) for table in self.not_in)
        return listed and not other and (self.encoder_decoders or not config.is_encoder_decoder)

    def is_custom(self, config: Any) -> bool:
        """Whether the model's own code includes a class with this head."""
        return self.auto_model in (getattr(config, "auto_map", None) or {})
