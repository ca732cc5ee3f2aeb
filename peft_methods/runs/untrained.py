"""The scores of the model before training: the trivial baseline of tasks that have no other.

They are measured once for the same model, rows and settings, and remembered in the user's cache.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from torch import nn

from peft_methods.data.facts import TokenData, fingerprint
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.models.loading import LoadedModel
from peft_methods.profiling.environment import describe, fingerprint_part
from peft_methods.runs import scores
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.cache import cached_value

if TYPE_CHECKING:
    from peft_methods.tasks.collate import Collator


class LoadedRun(Protocol):
    """The parts of a run that is ready to train which are needed here."""

    @property
    def base(self) -> LoadedModel:
        """The loaded model."""

    @property
    def model(self) -> nn.Module:
        """The same with the method applied, which changes no output before training."""

    @property
    def tokens(self) -> TokenData:
        """The rows as token ids."""

    @property
    def test_texts(self) -> LabelledTexts:
        """The test rows as texts."""

    @property
    def collate(self) -> Collator:
        """The collator of the recipe."""


def untrained_scores(run: RunSpec, loaded: LoadedRun) -> dict[str, float]:
    """Return the test metrics of a run's model before training; empty where there is no use for it.

    A model in 4 bits is its own baseline.
    """
    base, model, tokens, table = loaded.base, loaded.model, loaded.tokens, loaded.test_texts
    task = TASKS[run.recipe.task]
    is_needed = task.baseline_is_untrained and run.role == "main" and run.recipe.has_quality
    if not is_needed or not len(tokens.test):
        return {}

    def measure() -> dict[str, float]:
        predicted = scores.predict_last(run, model, tokens, loaded.collate)
        predicted = scores.generate_last(run, model, base, predicted, table)
        found = scores.quality_of(run, predicted, tokens.facts.label_names)
        further = scores.further_scores(run, model, base.tokenizer)
        return {**({} if found is None else found.scores), **further}

    key = [
        base.weights_sha256,
        base.config_sha256,
        base.tokenizer_sha256,
        asdict(run.recipe.data),
        asdict(run.recipe.budget)["precision"],
        fingerprint({"test": table}),
        fingerprint_part(describe(run.device)),
        code_fingerprint(scores),
        code_fingerprint(type(task)),
    ]
    return cached_value("untrained", key, measure)
