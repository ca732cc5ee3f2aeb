"""The kind of head that a task puts on a model, as data: `models` knows no task."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENCODER_DECODERS = (  # tables of transformers that list them
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
)


@dataclass(frozen=True)
class ModelHead:
    """A class of transformers that puts a head on a base model.

    `auto_model` is the name of the class. `tables` are names of transformers' tables of model
    types; a model must be in the first, which lists those with this head, and in all others, and in
    none of the tables `not_in`. `excluded` are model types of the tables that need more than texts,
    or whose outputs depend on padding. `encoder_decoders` allows models with both parts. `needed`
    and `examples` describe fitting models in messages. A `pretrained` head is a part of the stored
    model: nothing in it is new, and methods train it only with the rest. `problem_type` is what
    transformers calls the kind of labels; a saved model has it in its config, so that its own loss
    and `pipeline()` take the outputs as they are meant.
    """

    auto_model: str
    tables: tuple[str, ...]
    needed: str
    examples: str
    encoder_decoders: bool = False
    excluded: tuple[str, ...] = ()
    pretrained: bool = False
    not_in: tuple[str, ...] = ()
    problem_type: str = ""

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
        kind = config.model_type
        return self._has(kind) and (self.encoder_decoders or not config.is_encoder_decoder)

    def misfit(self, config: Any) -> str:
        """Return why the model that this config describes cannot carry the head."""
        kind = config.model_type
        if config.is_encoder_decoder and not self.encoder_decoders:
            return f"an encoder-decoder ({kind!r}), which is not {self.needed}"
        types = sorted(
            one for one in self._tables()[0] if self._has(one) and one not in self._both()
        )
        close = difflib.get_close_matches(kind, types, n=1, cutoff=0.62)
        near = f" (the nearest type that can: {close[0]!r})" if close else ""
        return f"a {kind!r} model, which is not {self.needed}{near}"

    def _has(self, kind: str) -> bool:
        """Whether models of this type have the head."""
        return all(kind in table for table in self._tables()) and kind not in self._others()

    def _both(self) -> set[str]:
        """Return the types of encoder-decoders, unless they are allowed."""
        from transformers.models.auto import modeling_auto

        return {
            kind
            for table in ENCODER_DECODERS * (not self.encoder_decoders)
            for kind in getattr(modeling_auto, table)
        }

    def _tables(self) -> list[Mapping[str, Any]]:
        from transformers.models.auto import modeling_auto

        return [getattr(modeling_auto, table) for table in self.tables]

    def _others(self) -> set[str]:
        """Return the model types that are in the tables but do not fit."""
        from transformers.models.auto import modeling_auto

        return {*self.excluded, *(kind for t in self.not_in for kind in getattr(modeling_auto, t))}

    def is_custom(self, config: Any) -> bool:
        """Whether the model's own code includes a class with this head."""
        return self.auto_model in (getattr(config, "auto_map", None) or {})
