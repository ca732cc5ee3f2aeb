"""The kind of head that a task puts on a model, as data: `models` knows no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelHead:
    """A class of transformers that puts a head on a base model.

    `auto_model` is the name of the class. `tables` are names of transformers' tables of model
    types; a model must be in the first, which lists those with this head, and in all others.
    `encoder_decoders` allows models with both parts. `needed` and `examples` describe fitting
    models in messages. `problem_type` is what transformers calls the kind of labels; a saved model
    has it in its config, so that its own loss and `pipeline()` take the outputs as they are meant.
    """

    auto_model: str
    tables: tuple[str, ...]
    needed: str
    examples: str
    encoder_decoders: bool = False
    problem_type: str = ""

    def auto_class(self) -> Any:
        """Return the class of transformers."""
        import transformers

        return getattr(transformers, self.auto_model)

    def fits(self, config: Any) -> bool:
        """Whether transformers has such a head for the model that this config describes."""
        from transformers.models.auto import modeling_auto

        listed = all(config.model_type in getattr(modeling_auto, table) for table in self.tables)
        return listed and (self.encoder_decoders or not config.is_encoder_decoder)

    def is_custom(self, config: Any) -> bool:
        """Whether the model's own code includes a class with this head."""
        return self.auto_model in (getattr(config, "auto_map", None) or {})
