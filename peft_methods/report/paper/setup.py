"""The experimental setup: data, model, budget, hyperparameters, hardware and measurement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peft_methods.recipes.schema import Recipe
from peft_methods.report.formatting import MISSING
from peft_methods.report.paper.english import capital, counted, joined, listed, number, was
from peft_methods.report.paper.references import (
    OF_LIBRARIES,
    cited,
    cited_model,
    data_name,
    of_data,
)
from peft_methods.report.paper.statistics import statistics
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.tuning import hyperparameters, rates
from peft_methods.report.paper.typst import escaped, table
from peft_methods.report.text.devices import gpus_of
from peft_methods.report.text.setup import kind_of_batches
from peft_methods.runs.record import Record
from peft_methods.tasks.registry import task_of

SPLITS = ("train", "validation", "test")
PRECISIONS = {
    "fp32": "32-bit floating point",
    "tf32": "32-bit floating point with TF32 matrix products",
    "bf16": "bfloat16 autocast over 32-bit weights",
    "fp16": "float16 autocast over 32-bit weights",
}
BATCHES = {
    "packed": (
        "The examples of a batch, in random order, are packed: one after the other and without "
        "attention between them, in rows of at most that length."
    ),
    "fixed": "All rows are padded to the maximum length.",
    "padded": "Batches are of rows of similar length, padded to the longest, and not packed.",
    "packed by the engine": (
        "Batches are of examples of similar length, packed: one after the other in a row of "
        "tokens, without padding between them and without attention between them."
    ),
    "both": (
        "Batches are of examples of similar length. In some runs they are padded to the longest, "
        "in others packed: one after the other in a row of tokens, without attention between them."
    ),
}
SCHEDULES = {
    "linear": "falls linearly to zero",
    "cosine": "falls along a cosine",
    "constant": "stays constant",
}


def setup(studies: Sequence[Study]) -> list[str]:
    """Return paragraphs and tables; the parts common to all recipes appear once."""
    parts = []
    for study in studies:
        one = len(studies) == 1
        parts += [
            "== Data and Model" if one else f"== {study.name}",
            _data(study),
            _sizes(study),
            _model(study),
        ]
        parts += ["== Budget and Hyperparameters"] * one
        parts += [
            budget_paragraph(study.settings, _engines(study)),
            rates(study),
            hyperparameters(study),
        ]
    parts += [
        "== Hardware and Software",
        _hardware(studies),
        "== Measurement",
        _measuring(studies),
        "== Statistics",
        statistics(studies),
    ]
    return [part for part in parts if part]


def _data(study: Study) -> str:
    data, spec = _first(study).data, study.settings.data
    if data.get("random"):
        lengths = (
            "with the lengths given by the recipe"
            if spec.token_lengths
            else f"of {spec.max_length} tokens"
        )
        return (
            f"Token ids and labels are random, in rows {lengths}. They suffice to measure the cost "
            "of training."
        )
    names = [escaped(str(name)) for name in data.get("label_names", [])]
    task = task_of(study.settings)
    has_classes = task.has_classes
    kind = ("class", "classes") if has_classes else ("label", "labels")
    if task.head.problem_type == "regression":
        kind = ("score", "scores")
    given = "in" if has_classes else "with"
    classes = f" {given} {counted(len(names), *kind)} ({listed(names, 10)})" if names else ""
    removed = sum(data.get("removed", {}).values())
    return joined(
        f"The texts are {data_name(spec.source)}{cited(*of_data(spec.source))}{classes}.",
        f"Train, validation, and test rows are disjoint; @t-data-{study.label} gives their numbers."
        if data.get("class_counts")
        else "",
        "The test rows are predicted once, with the weights of the best epoch by validation.",
        f"{capital(counted(removed, 'text'))} that occurred twice in the source or in two splits "
        f"{was(removed)} removed."
        if removed
        else "",
        *(escaped(note) for note in data.get("notes", ())),
    )


def _first(study: Study) -> Record:
    """Return a record with information on the data: a finished one, if there is any."""
    return (study.finished or study.records)[0]


def _sizes(study: Study) -> str:
    data = _first(study).data
    counts, truncated = data.get("class_counts", {}), data.get("truncated", {})
    has_classes = task_of(study.settings).has_classes
    lines = [
        [split.capitalize(), f"{sum(counts[split]):,}"] + [_per_class(counts[split])] * has_classes
        for split in SPLITS
        if split in counts
    ]
    head = ["Split", "Rows", *["Rows per class"] * has_classes]
    if any(share is not None for share in truncated.values()):
        head.append("Truncated")
        for line in lines:
            share = truncated.get(line[0].lower())
            line.append(MISSING if share is None else f"{100 * share:.1f}%")
    return table(f"t-data-{study.label}", f"Rows of each split{study.of}", head, lines)


def _per_class(counts: Sequence[int]) -> str:
    if len(counts) <= 4:
        return ", ".join(f"{count:,}" for count in counts)
    return f"{min(counts):,} to {max(counts):,}"


def _model(study: Study) -> str:
    source = study.settings.model.source
    total, head = (
        next((record.metrics[name] for record in study.finished if record.metrics.get(name)), None)
        for name in ("total_parameters", "head_parameters")
    )
    writes = task_of(study.settings).head.pretrained  # its head is a part of the stored model
    size = "" if head is None or writes else f"Its new head has {head:,.0f} parameters."
    if total is not None and writes:
        size = f"It has {total:,.0f} parameters."
    elif total is not None and head is not None:
        size = (
            f"With its new head, it has {total:,.0f} parameters, {head:,.0f} of them in the head."
        )
    kind = "pretrained" if study.settings.has_quality else "with random weights"
    return joined(f"The model is {cited_model(source, study.model_type)}, {kind}.", size)


SEVERAL_GPUS = {
    "ddp": "A run takes {} GPUs, each with the whole model and an equal share of every batch.",
    "fsdp": "A run takes {} GPUs, each with a part of the model and an equal share of every batch.",
}


def _engines(study: Study) -> set[str]:
    return {record.spec.engine for record in study.records}


def budget_paragraph(recipe: Recipe, engines: Iterable[str]) -> str:
    """Describe the budget of every method in a paragraph. `engines` have trained."""
    budget = recipe.budget
    patience, batches = budget.early_stopping, budget.gradient_accumulation
    epochs = f"{'at most ' if patience else ''}{counted(budget.epochs, 'epoch')}"
    steps = f", {number(batches)} of them per optimizer step" if batches > 1 else ""
    warmup = (
        f", after a warm-up over {100 * budget.warmup_ratio:g}% of the steps"
        if budget.warmup_ratio
        else ""
    )
    return joined(
        f"Every method has the same budget: {epochs} in batches of "
        f"{number(budget.batch_size)}{steps}, with rows truncated to "
        f"{number(recipe.data.max_length)} tokens.",
        f"Training stops after {counted(patience, 'epoch')} without a better validation score."
        if patience
        else "",
        f"The optimizer is AdamW{cited('loshchilov2019adamw')} with weight decay "
        f"{budget.weight_decay:g} and gradients clipped to a norm of "
        f"{budget.max_grad_norm:g}; its learning rate "
        f"{SCHEDULES[budget.schedule]}{warmup}.",
        f"Training runs in {PRECISIONS[budget.precision]}.",
        "Activations within layers are recomputed in the backward pass."
        if budget.gradient_checkpointing
        else "",
        SEVERAL_GPUS[budget.strategy].format(number(budget.gpus)) if budget.strategy else "",
        BATCHES.get(kind_of_batches(recipe, engines) or "", ""),
    )


def _distinct(records: Iterable[Record], name: str) -> list[str]:
    """Return the distinct values of a name in these records' environments, as markup."""
    found = (record.environment.get(name) for record in records)
    return list(dict.fromkeys(escaped(str(value)) for value in found if value not in {None, ""}))


def _hardware(studies: Sequence[Study]) -> str:
    records = [record for study in studies for record in study.finished]
    if not records:
        return "No run finished, so the hardware is not reported."
    devices = _distinct(records, "device_name")
    count = len(gpus_of(records))
    where = (
        (f"The runs used {count} {devices[0]}" if count > 1 else f"All runs used one {devices[0]}")
        if len(devices) == 1
        else f"The runs used {listed(devices)}"
    )
    host = [f"driver {driver}" for driver in _distinct(records, "driver")] + [
        f"CUDA {cuda}" for cuda in _distinct(records, "cuda")
    ]
    where += f" ({', '.join(host)})" if host else ""
    if {record.environment.get("device") for record in records} == {"cpu"}:
        threads = [
            f"{threads} thread{'s' * (threads != '1')}" for threads in _distinct(records, "threads")
        ]
        where += f", without a GPU, with {listed(threads)} per run"
    packages, source = (
        records[0].environment.get("packages", {}),
        records[0].environment.get("source") or {},
    )
    software = [f"Python {version}" for version in _distinct(records, "python")]
    software += [
        f"{name} {escaped(packages[key])}{cited(entry)}"
        for key, (name, entry) in OF_LIBRARIES.items()
        if packages.get(key)
    ]
    commit = (
        f"The code is at commit {escaped(str(source['commit'])[:10])}"
        if source.get("commit")
        else ""
    )
    return joined(
        f"{where}.",
        f"The software is {listed(software)}." if software else "",
        f"{commit}{', with uncommitted changes' if source.get('dirty') else ''}." if commit else "",
    )


def _measuring(studies: Sequence[Study]) -> str:
    """Define training time and peak memory."""
    kinds = _distinct([record for study in studies for record in study.finished], "memory_kind")
    return joined(
        "Training time covers the training steps only: loading, tokenizing, warm-up, evaluation, "
        "and saving are timed separately.",
        f"Peak memory is that of the training phase ({'; '.join(kinds)})." if kinds else "",
        "The resident set of a process only gives the order of magnitude."
        if any(kind.startswith("resident") for kind in kinds)
        else "",
        "Every run has a separate process, so no peak includes memory left by an earlier run.",
    )
