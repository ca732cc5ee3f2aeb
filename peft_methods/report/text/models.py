"""Several models on the same rows as text: the best method of each, with quality and costs."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.models import BestOfModel, ModelsCompared
from peft_methods.analysis.pairs import PairwiseComparison
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING, source_name
from peft_methods.report.text.layout import Layout

COSTS = ("train_seconds", "peak_memory_bytes", "trainable_parameters")
MODELS_NOTE = (
    "Models are compared by the method that is best for each. They differ in size, pretraining and "
    "tokenizer, so a difference is not due to one of these alone, nor to the method. Intervals "
    "hold simultaneously over all methods of all models: they allow for the choice of the best."
)


def models_title(compared: ModelsCompared) -> str:
    """Return the title of the table."""
    return f"{compared.name}: different models, each with its best method"


def models_parts(compared: ModelsCompared, layout: Layout) -> Iterator[str]:
    """Yield title, table, and what is not compared."""
    metric = METRICS[compared.metric]
    difference = "To the best,\npoints" if metric.is_share else "To the\nbest"
    headings = ["Model", "Method", metric.title, difference, "Verdict"]
    headings += [METRICS[name].title for name in COSTS]
    lines = [_line(compared, one, layout) for one in compared.models]
    if lines:
        yield layout.prose(models_title(compared), "title")
        yield from layout.tables(headings, lines)
    for line in missing_models(compared):
        yield layout.prose(line, "warning")


def _line(compared: ModelsCompared, one: BestOfModel, layout: Layout) -> list[str]:
    pair = compared.against_best(one.recipe)
    costs = [cost_of(one, name) for name in COSTS]
    return [
        layout.escape(source_name(one.model)),
        layout.escape(one.row.title),
        _quality(compared, one),
        difference_of(pair),
        MISSING if pair is None else pair.verdict,
        *costs,
    ]


def cost_of(one: BestOfModel, name: str) -> str:
    """Format the mean cost of a model's best method with its unit."""
    return METRICS[name].format(one.row.mean(name)) if name in one.row.metrics else MISSING


def difference_of(pair: PairwiseComparison | None) -> str:
    """Format the difference to the best model with its interval, without its unit."""
    if pair is None:
        return MISSING
    ends = pair.metric.range_text((pair.low, pair.high), "+")
    return f"{pair.metric.plain(pair.difference, '+')} ({ends})"


def _quality(compared: ModelsCompared, one: BestOfModel) -> str:
    """Format the mean of a model's best method, without its unit."""
    return METRICS[compared.metric].plain(one.row.mean(compared.metric))


def missing_models(compared: ModelsCompared) -> list[str]:
    """Say which models are not compared, and why."""
    lines = []
    if compared.other_tokens:
        lines.append(
            f"{compared.name}: its models divide texts into different tokens, on which "
            f"{METRICS[compared.metric].in_text} depends, so its values are not compared. A metric "
            f"of generated texts can be: set data.rank_by."
        )
    elif compared.other_examples:
        lines.append(f"{compared.name}: its models were tested on other examples: no intervals.")
    elif len(compared.models) > 1 and not compared.pairs:
        lines.append(f"{compared.name}: one seed or no predictions: no intervals between models.")
    lines += [
        f"{recipe}: no method to compare with other models: each has an error finding or no result"
        for recipe in compared.not_compared
    ]
    return lines
