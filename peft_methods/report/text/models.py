"""Several models on the same rows as text: the best method of each, with quality and costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peft_methods.analysis.models import BestOfModel, ModelsCompared
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING, source_name
from peft_methods.report.text.layout import Layout

COSTS = ("train_seconds", "peak_memory_bytes", "trainable_parameters")
MODELS_NOTE = (
    "Models are compared by the method that is best for each. They differ in size, pretraining and "
    "tokenizer, so a difference is not due to one of these alone, nor to the method. Intervals "
    "hold simultaneously over all methods of all models: they allow for the choice of the best."
)


def models_parts(compared: ModelsCompared, layout: Layout) -> Iterator[str]:
    """Yield title, table, and what is not compared."""
    yield layout.prose(f"{compared.name}: different models, each with its best method", "title")
    metric = METRICS[compared.metric]
    difference = "To the best,\npoints" if metric.is_share else "To the\nbest"
    headings = ["Model", "Method", metric.title, difference, "Verdict"]
    headings += [METRICS[name].title for name in COSTS]
    lines = [_line(compared, one, layout) for one in compared.models]
    yield from layout.tables(headings, lines)
    for line in missing_models(compared):
        yield layout.prose(line, "warning")


def model_sentences(found: Sequence[ModelsCompared]) -> list[str]:
    """Describe each comparison of models in a sentence per model, with the note that explains."""
    lines = [
        f"{compared.name}: {source_name(one.model)} with {one.row.title}: "
        f"{METRICS[compared.metric].in_text} {quality_of(compared, one)}"
        f"{_against(compared, one)}"
        for compared in found
        for one in compared.models
    ]
    lines += [line for compared in found for line in missing_models(compared)]
    return [*lines, *([MODELS_NOTE] if found else [])]


def _line(compared: ModelsCompared, one: BestOfModel, layout: Layout) -> list[str]:
    pair = compared.against_best(one.recipe)
    difference = MISSING
    if pair is not None:
        difference = (
            f"{pair.metric.plain(pair.difference, '+')} "
            f"({pair.metric.range_text((pair.low, pair.high), '+')})"
        )
    costs = [cost_of(one, name) for name in COSTS]
    return [
        layout.escape(source_name(one.model)),
        layout.escape(one.row.title),
        quality_of(compared, one),
        difference,
        MISSING if pair is None else pair.verdict,
        *costs,
    ]


def cost_of(one: BestOfModel, name: str) -> str:
    """Format the mean cost of a model's best method with its unit."""
    return METRICS[name].format(one.row.mean(name)) if name in one.row.metrics else MISSING


def quality_of(compared: ModelsCompared, one: BestOfModel) -> str:
    """Format the mean of a model's best method, without its unit."""
    return METRICS[compared.metric].plain(one.row.mean(compared.metric))


def _against(compared: ModelsCompared, one: BestOfModel) -> str:
    pair = compared.against_best(one.recipe)
    if pair is None:
        return ""
    return (
        f", {pair.verdict} against {source_name(compared.models[0].model)} "
        f"({pair.metric.plain(pair.difference, '+')} {pair.metric.points}".rstrip()
        + f", {pair.metric.range_text((pair.low, pair.high), '+')})"
    )


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
        f"{recipe}: no method to compare with other models" for recipe in compared.not_compared
    ]
    return lines
