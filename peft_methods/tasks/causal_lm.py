"""Causal language modelling (instruction tuning): a completion after a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.labelling import ParsedData
from peft_methods.data.raw import RawData
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.schema import DataSpec, Recipe
from peft_methods.tasks.base import Batch, LossSum, Quality, Scores, Task
from peft_methods.tasks.evaluations import Evaluation
from peft_methods.tasks.forgetting import FORGETTING_METRICS, forgetting, perplexity
from peft_methods.tasks.generation_scores import SCORES, generation_facts
from peft_methods.tasks.lm_columns import language_columns, parse_examples
from peft_methods.tasks.lm_encoding import encode_rows, labelled_tokens, remarks
from peft_methods.tasks.lm_predictions import LanguagePredictions, row_digests
from peft_methods.tasks.lm_views import fallback_remark, language_views, samples
from peft_methods.tasks.metrics import NATS, NUMBER, Metric, quality
from peft_methods.tasks.views import View

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from peft_methods.data.token_rows import TokenRows
    from peft_methods.tasks.collate import Collator


class CausalLM(Task):
    """Text after a prompt. The loss is the cross-entropy of a token, in nats.

    A token is an example of the loss. Loss and perplexity are of the first reference; texts are
    generated for test rows alone.
    """

    name = "causal_lm"
    title = "Causal language modelling"
    peft_type = "CAUSAL_LM"
    trivial = "the untrained model"
    texts_repeat = True
    baseline_is_untrained = True
    checks_tokens = True
    packs = True
    head = ModelHead(
        auto_model="AutoModelForCausalLM",
        tables=("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
        needed="a decoder that writes text from left to right",
        examples="a decoder such as Llama, Qwen, Gemma, SmolLM2, Mistral or GPT-2",
        pretrained=True,
        not_in=("MODEL_FOR_MASKED_LM_MAPPING_NAMES",),  # encoders, built as decoders
    )
    metrics = (
        Metric("token_loss", "Loss per token", NATS, higher_is_better=False, of_tokens=True),
        Metric("perplexity", "Perplexity", NUMBER, False, bounds=(1.0, None), of_tokens=True),
        quality("exact_match", "Exact match"),
        quality("rouge_l", "ROUGE-L", label="ROUGE-L"),
        quality("chrf", "chrF", label="chrF"),
        quality("bleu", "BLEU", label="BLEU"),
    )
    further_metrics = FORGETTING_METRICS

    @property
    def selection_metrics(self) -> tuple[Metric, ...]:
        """The loss and the perplexity: texts are generated once, for the test rows."""
        return self.metrics[:2]

    def recognises(self, raw: RawData, spec: DataSpec) -> str:
        """Return whether there are prompts with completions, or turns of a chat."""
        return language_columns(raw, spec)

    def parse(self, raw: RawData, spec: DataSpec) -> ParsedData:
        """Return prompts and completions. Raises `DataError` that names the cause."""
        return parse_examples(raw, spec)

    def random_label_names(self, spec: DataSpec) -> tuple[str, ...]:
        """Return nothing: there are no classes."""
        return ()

    def random_labels(self, rng: np.random.Generator, rows: int, names: int) -> list[str]:
        """Return no completions, so that all tokens of the random texts are learnt."""
        return [""] * rows

    def example_columns(self, rows: int) -> Mapping[str, list[Any]]:
        """Return prompts that ask for a word which their completion repeats."""
        words = ("good", "bad", "fine", "poor")
        chosen = [words[i % 4] for i in range(rows)]
        prompts = [
            f"plot {word} {chr(97 + i // 26)} {chr(97 + i % 26)}" for i, word in enumerate(chosen)
        ]
        return {"prompt": prompts, "completion": [f"{word} end" for word in chosen]}

    def encode(
        self,
        table: LabelledTexts,
        tokenizer: PreTrainedTokenizerBase,
        spec: DataSpec,
        cut: int | None,
    ) -> TokenRows:
        """Return prompts with their completions as token ids, and a label for each token."""
        return encode_rows(table, tokenizer, spec, cut)

    def encoding_settings(self, spec: DataSpec) -> tuple[Any, ...]:
        """Return what the loss is computed on."""
        return (spec.loss_on,)

    def check_tokens(self, rows: Mapping[str, TokenRows], spec: DataSpec) -> tuple[str, ...]:
        """Return remarks on prompts that are too long. Raises `DataError` for many of them."""
        return remarks(rows, spec)

    def collator(self, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> Collator:
        """Return a collator whose batches have one label per token."""
        from peft_methods.tasks.lm_loss import LanguageCollator

        return LanguageCollator(tokenizer, length)

    def packed_collator(self, tokenizer: PreTrainedTokenizerBase, length: int) -> Collator:
        """Return a collator of packed batches, whose learnt tokens are those of padded ones."""
        from peft_methods.tasks.lm_packing import PackedCollator

        return PackedCollator(tokenizer, length)

    def loss(self, model: nn.Module, batch: Batch) -> LossSum:
        """Sum the cross-entropy of the learnt tokens."""
        from peft_methods.tasks.collate import NO_LABEL, PLACES
        from peft_methods.tasks.lm_loss import summed_loss

        labels = batch["labels"] if PLACES in batch else batch["labels"][:, 1:]
        return LossSum(total=summed_loss(model, batch), count=(labels != NO_LABEL).sum())

    def examples_in_batch(self, batch: Batch) -> int:
        """Return the number of learnt tokens, which the collator has counted."""
        from peft_methods.tasks.collate import EXAMPLES
        from peft_methods.tasks.lm_loss import predicted_tokens

        return int(batch[EXAMPLES]) if EXAMPLES in batch else predicted_tokens(batch["labels"])

    def examples_in_rows(self, rows: TokenRows) -> int:
        """Return the number of learnt tokens of these rows."""
        return int(labelled_tokens(rows).sum())

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the summed loss of each row (rows,), in 64 bits."""
        import torch

        from peft_methods.tasks.lm_loss import token_losses

        losses, rows = token_losses(model, batch)
        sums = torch.zeros(len(batch["labels"]), dtype=torch.float64, device=losses.device)
        return sums.index_add_(0, rows, losses.double())

    def gather(
        self, outputs: Sequence[Tensor], order: NDArray[np.intp], rows: TokenRows
    ) -> LanguagePredictions:
        """Return the losses in the order of the rows. They are copied to the host once."""
        import torch

        totals = np.empty(len(rows))
        totals[order] = torch.cat(list(outputs)).cpu().numpy() if outputs else 0.0
        return LanguagePredictions(totals, labelled_tokens(rows), row_digests(rows))

    def generate(
        self,
        predictions: Any,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        table: LabelledTexts,
        recipe: Recipe,
    ) -> LanguagePredictions:
        """Add the texts that the model writes after each prompt; none for texts without one."""
        from peft_methods.tasks.generation import generate_texts

        found: LanguagePredictions = predictions
        if not found.is_finite or any(label == "" for label in table.labels):
            return found
        return replace(found, generated=generate_texts(model, tokenizer, table, recipe))

    def restore(self, read: Callable[[str], NDArray[Any]]) -> LanguagePredictions:
        """Return stored predictions. Raises `ValueError` for arrays that do not fit."""
        return LanguagePredictions.restore(read)

    def evaluate(self, predictions: LanguagePredictions, label_names: tuple[str, ...]) -> Quality:
        """Compute loss and perplexity, and for generated texts all other metrics and samples."""
        made = predictions.generated
        details = (
            {}
            if made is None
            else {
                "generation": generation_facts(made),
                "samples": samples(made),
            }
        )
        return Quality(self.scores(predictions), details)

    def examples_of(self, predictions: LanguagePredictions, metric: str) -> NDArray[Any]:
        """Identify rows by their tokens, and generated texts by the right answers."""
        made = predictions.generated
        if metric not in SCORES or made is None:
            return predictions.labels
        return np.asarray(["\0".join(answers) for answers in made.references])

    def example_scores(self, predictions: LanguagePredictions, metric: str) -> Scores:
        """Return the score of each row's text, or its influence on the loss or the perplexity.

        The loss L is a ratio: all losses over all learnt tokens. A row with the summed loss l and n
        tokens has the influence rows * (l - L n) / tokens on it, so that long rows do not count as
        uncertain by being long. That on the perplexity P = exp(L) is P times as large (delta
        method).
        """
        if metric in SCORES:
            assert predictions.generated is not None, "texts were generated for the test rows"
            return SCORES[metric](predictions.generated)
        loss, counts = predictions.loss, predictions.counts
        own = predictions.totals - loss * counts
        influence = np.asarray(own * len(counts) / max(1, counts.sum()))
        if metric == "token_loss":
            return loss + influence
        return perplexity(loss) * (1 + influence)

    def scores(self, predictions: LanguagePredictions) -> Mapping[str, float]:
        """Compute loss and perplexity, and the metrics of generated texts where there are any."""
        found = {"token_loss": predictions.loss, "perplexity": perplexity(predictions.loss)}
        if predictions.generated is not None:
            made = predictions.generated
            found |= {name: float(score(made).mean()) for name, score in SCORES.items()}
        return found

    def trivial_baseline(
        self, splits: Mapping[str, LabelledTexts], label_names: tuple[str, ...]
    ) -> Mapping[str, float]:
        """Return nothing: the untrained model is measured instead."""
        return {}

    def extra_evaluations(self, recipe: Recipe) -> Sequence[Evaluation]:
        """Return the evaluation of forgetting, if the recipe names a general text."""
        return forgetting(recipe)

    def views(self, qualities: Sequence[Mapping[str, Any]]) -> Sequence[View]:
        """Return facts about the generated texts, and samples of them."""
        return language_views(qualities)

    def remark(self, qualities: Sequence[Mapping[str, Any]]) -> str:
        """Say why texts were generated the slow way, if they were."""
        return fallback_remark(qualities)
