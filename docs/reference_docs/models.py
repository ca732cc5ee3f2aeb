"""The table of model types: their family, and the methods that train or skip them."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

from peft_methods.methods import METHODS
from peft_methods.methods.base import Method
from peft_methods.models.architecture import Architecture, architecture_of
from peft_methods.models.encoder_decoder_maps import ENCODER_DECODER_ENDS
from peft_methods.models.families import TITLES, family_of
from peft_methods.models.linear_layers import count_model
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.models.module_names import top_modules
from reference_docs.markdown import code, codes, table

# Types without a module map that the tests train.
OTHERS = ("deberta", "fnet", "funnel", "longformer", *ENCODER_DECODER_ENDS)


def methods_by_model() -> str:
    """Format which methods train which model types, and why the others do not."""
    rows, reasons = [], {}
    for kind in (*MODULE_MAPS, *OTHERS):
        config = _config(kind)
        skipped = {name: reason for name in METHODS if (reason := _reason(name, config))}
        for name, reason in skipped.items():
            reasons.setdefault(_general(reason, kind), []).append((kind, name))
        trained = [name for name in METHODS if name not in skipped]
        family = TITLES[family_of(config)].partition(" ")[2]
        rows.append((code(kind), family, codes(trained), codes(skipped) if skipped else "–"))
    lines = [f"- {reason} ({_subjects(pairs)})" for reason, pairs in reasons.items()]
    headings = ("model type", "family", "trained by", "skipped by")
    return f"{table(headings, rows)}\n\nReasons:\n\n" + "\n".join(lines)


def _config(kind: str) -> Any:
    """Return a type's default config, for two classes."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind)
    config.num_labels = 2
    return config


def _reason(name: str, config: Any) -> str | None:
    """Return why a method cannot train the type.

    A quantising method does as its counterpart: its library may be missing where the docs are made.
    """
    name = METHODS[name].info.unquantized_counterpart or name
    settings = {"learning_rate": 1e-3, **METHODS[name].example_settings()}
    method: Method = METHODS.create(name, settings, "docs")
    return method.unsupported(_architecture(config), "cpu")


def _architecture(config: Any) -> Architecture:
    counted = None
    if config.model_type not in MODULE_MAPS:
        import torch
        from transformers import AutoModelForSequenceClassification

        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch, by DeBERTa's code
            model = AutoModelForSequenceClassification.from_config(config)
        counted = count_model(model, top_modules(model))
    return architecture_of(config, head_parameters=0, pooler=False, counted=counted)


def _general(reason: str, kind: str) -> str:
    """Return a reason without what is special to one type, so that equal ones are listed once."""
    start, _, rest = reason.partition(" (")
    if rest.partition("), ")[2] == f"not {kind!r}":
        return start
    return reason.replace(f", and {kind!r} has none", ", and these have none").partition(";")[0]


def _subjects(pairs: list[tuple[str, str]]) -> str:
    """List the types of a reason, with equal types named once."""
    return ", ".join(code(kind) for kind, _ in itertools.groupby(pairs, key=lambda one: one[0]))
