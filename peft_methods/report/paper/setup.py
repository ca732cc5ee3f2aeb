"""The experimental setup: data, model, budget, hyperparameters, hardware, what is measured, and the statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peft_methods.records import Record
from peft_methods.report.paper.english import counted, listed, number, sentence, tidy
from peft_methods.report.paper.references import OF_LIBRARIES, cited, data_name, model_name, of_data, of_model
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, table

SPLITS = ("train", "validation", "test")
PRECISIONS = {
    "fp32": "32-bit floating point",
    "tf32": "32-bit floating point with TF32 matrix products",
    "bf16": "bfloat16 autocast over 32-bit weights",
    "fp16": "float16 autocast over 32-bit weights",
}


def setup(studies: Sequence[Study]) -> list[str]:
    """Paragraphs and tables; what is common to all recipes comes once."""
    parts = []
    for study in studies:
        parts += [f"== {study.name}"] if len(studies) > 1 else ["== Data and Model"]
        parts += [_data(study), _sizes(study), _model(study)]
        parts += ["== Budget and Hyperparameters"] if len(studies) == 1 else []
        parts += [_budget(study.spec), _rates(study), _hyperparameters(study)]
    parts += ["== Hardware and Software", _hardware(studies), "== Measuring", measuring(studies), "== Statistics", statistics(studies)]
    return [part for part in parts if part]


def _data(study: Study) -> str:
    data, spec = _first(study).data, study.spec["data"]
    if data.get("random"):
        return (
            "No texts were read: token ids and labels were drawn at random, in rows "
            + ("of the lengths that the recipe gives" if spec.get("token_lengths") else f"of {spec['max_length']} tokens")
            + ". They show what training costs and nothing of what it gives."
        )
    names = data.get("label_names", [])
    classes = f" in {counted(len(names), 'class', 'classes')} ({listed([escaped(str(name)) for name in names], 10)})" if names else ""
    found = [f"The texts are {data_name(spec['source'])}{cited(*of_data(spec['source']))}{classes}."]
    if "class_counts" in data:
        found.append(f"Train, validation, and test rows are disjoint; @t-data-{study.label} has their numbers.")
        found.append("The test rows are predicted once, with the weights of the best epoch by validation.")
    removed = sum(data.get("removed", {}).values())
    if removed:
        found.append(f"{counted(removed, 'text').capitalize()} that stood in the source twice or in two splits {'was' if removed == 1 else 'were'} removed.")
    return " ".join(found)


def _first(study: Study) -> Record:
    """A record that knows its data: one that finished, if any did."""
    return (study.finished or study.records)[0]


def _sizes(study: Study) -> str:
    data = _first(study).data
    counts, truncated = data.get("class_counts"), data.get("truncated", {})
    if not counts:
        return ""
    lines = [
        [
            split.capitalize(),
            f"{sum(counts[split]):,}",
            _per_class(counts[split]),
            f"{100 * truncated[split]:.1f}%" if truncated.get(split) is not None else "–",
        ]
        for split in SPLITS
        if split in counts
    ]
    head = ("Split", "Rows", "Rows a class", "Cut short")
    return table(f"t-data-{study.label}", f"Rows of each split{study.of}", head, lines)


def _per_class(counts: Sequence[int]) -> str:
    if len(counts) <= 4:
        return ", ".join(f"{count:,}" for count in counts)
    return f"{min(counts):,} to {max(counts):,}"


def _model(study: Study) -> str:
    model = study.spec["model"]
    random = model["weights"] == "random"
    found = [f"The encoder is {model_name(model['source'])}{cited(*of_model(model['source']))}{', with its weights drawn at random' if random else ', pretrained'}."]
    total = next((r.metrics["total_parameters"] for r in study.finished if r.metrics.get("total_parameters")), None)
    head = next((r.metrics["head_parameters"] for r in study.finished if r.metrics.get("head_parameters")), None)
    if total is not None and head is not None:
        found.append(f"With its classification head it has {total:,.0f} parameters, {head:,.0f} of them in the head.")
    elif head is not None:
        found.append(f"The classification head has {head:,.0f} parameters.")
    return " ".join(found)


def _budget(spec: dict[str, Any]) -> str:
    """What every method may spend, in a paragraph."""
    budget = spec["budget"]
    epochs = counted(budget["epochs"], "epoch")
    patience, batches = budget.get("early_stopping"), budget.get("gradient_accumulation", 1)
    found = [f"Every method has the same budget: {f'at most {epochs}' if patience else epochs} in batches of {number(budget['batch_size'])}"]
    if batches > 1:
        found[0] += f", {number(batches)} of them to a step of the optimizer"
    found[0] += f", and rows cut at {number(spec['data']['max_length'])} tokens."
    if patience:
        found.append(f"Training ends after {counted(patience, 'epoch')} without a better validation score.")
    warmup = f", after a warm-up over {100 * budget['warmup_ratio']:g}% of the steps" if budget.get("warmup_ratio") else ""
    schedule = {"linear": "falls linearly to zero", "cosine": "falls along a cosine", "constant": "stays constant"}[budget["schedule"]]
    found.append(
        f"The optimizer is AdamW{cited('loshchilov2019adamw')} with weight decay {budget['weight_decay']:g} and gradients clipped at a norm of "
        f"{budget['max_grad_norm']:g}; its learning rate {schedule}{warmup}."
    )
    found.append(f"Training runs in {PRECISIONS[budget['precision']]}.")
    if budget.get("gradient_checkpointing"):
        found.append("Activations within layers are computed again in the backward pass (gradient checkpointing).")
    if budget.get("padding") == "fixed":
        found.append("All rows are padded to the greatest length.")
    return " ".join(found)


def _rates(study: Study) -> str:
    """Seeds, and whether and how hyperparameters were searched for."""
    seeds = listed([str(seed) for seed in study.seeds])
    found = [f"Each method is trained with {counted(len(study.seeds), 'seed')} ({seeds}), which set the head's first weights and the order of rows."]
    tuned = {row.method: next((r.tuning for r in study.finished if r.method_name == row.method and r.tuning), None) for row in study.measured}
    searched = {method: tuning for method, tuning in tuned.items() if tuning}
    rest = [study.title(method) for method, tuning in tuned.items() if not tuning]
    if not searched:
        return " ".join([*found, f"@t-rates-{study.label} has the hyperparameters; they are the recipe's, and none was tuned in this run."])
    some = next(iter(searched.values()))
    same = {(len(t["trials"]), t["epochs"], len(t["grid"]["learning_rate"])) for t in searched.values()}
    trials, epochs, values = next(iter(same))
    found.append(
        f"Before that, {listed([study.title(method) for method in searched], 8)} {'was' if len(searched) == 1 else 'were each'} tuned with "
        + (f"{counted(trials, 'trial')} of {counted(epochs, 'epoch')}" if len(same) == 1 else "trials of a share of the epochs")
        + f", chosen by a Parzen estimator{cited('bergstra2011tpe', 'akiba2019optuna')} from a grid of {number(values)} learning rates around the "
        f"recipe's own and judged by validation {some['select_by'].replace('_', ' ')}; test rows took no part."
    )
    found += [f"{listed(rest, 8)} kept the recipe's settings."] * bool(rest)
    return " ".join([*found, f"@t-rates-{study.label} has what was chosen."])


def _hyperparameters(study: Study) -> str:
    first = {record.method_name: record for record in reversed(study.records)}
    lines = [
        [study.title(row.method), f"{first[row.method].cell['method']['learning_rate']:.3g}", _settings(first[row.method].cell["method"])]
        for row in study.rows
    ]
    caption = f"Hyperparameters{study.of}"
    return table(
        f"t-rates-{study.label}", caption, ("Method", "Rate", "Other settings"), lines, columns="(auto, auto, 1fr)", align="(left, right, left)"
    )


def _settings(method: dict[str, Any]) -> str:
    shown = {key: value for key, value in method.items() if key not in {"name", "learning_rate"} and value is not None}
    return ", ".join(f"{escaped(key.replace('_', ' '))} {_value(value)}" for key, value in shown.items()) or "–"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " + ".join(_value(one) for one in value)
    return f"{value:.3g}" if isinstance(value, float) else escaped(str(value).removeprefix("embedded:").replace("_", " "))


def _distinct(records: Iterable[Record], name: str) -> list[str]:
    return list(dict.fromkeys(str(r.environment[name]) for r in records if r.environment.get(name) not in {None, ""}))


def _hardware(studies: Sequence[Study]) -> str:
    records = [record for study in studies for record in study.finished]
    if not records:
        return "No cell finished, so nothing is said of what it ran on."
    devices = _distinct(records, "device_name")
    found = [f"All cells ran on one {escaped(devices[0])}" if len(devices) == 1 else f"The cells ran on {listed([escaped(d) for d in devices])}"]
    drivers, cuda = _distinct(records, "driver"), _distinct(records, "cuda")
    if drivers or cuda:
        found[0] += " (" + ", ".join([f"driver {escaped(d)}" for d in drivers] + [f"CUDA {escaped(c)}" for c in cuda]) + ")"
    if {record.environment.get("device") for record in records} == {"cpu"}:
        threads = _distinct(records, "threads")
        found[0] += f", without a GPU, with {listed([f'{t} thread' + 's' * (t != '1') for t in threads])} a cell"
    packages = records[0].environment.get("packages", {})
    named = [f"{name} {escaped(packages[key])}{cited(entry)}" for key, (name, entry) in OF_LIBRARIES.items() if packages.get(key)]
    named = [f"Python {escaped(version)}" for version in _distinct(records, "python")] + named
    if named:
        found.append(f"The software is {listed(named)}")
    source = records[0].environment.get("source") or {}
    if source.get("commit"):
        found.append(f"The code is at commit {escaped(str(source['commit'])[:10])}{', with changes' if source.get('dirty') else ''}")
    return ". ".join(found) + "."


def measuring(studies: Sequence[Study]) -> str:
    """What training time and peak memory are."""
    kinds = _distinct([record for study in studies for record in study.finished], "memory_kind")
    found = ["Training time is that of the training steps alone: loading, tokenizing, warm-up, evaluation, and saving are timed apart."]
    if kinds:
        found.append(f"Peak memory is that of the training phase ({escaped('; '.join(kinds))}).")
    if any(kind.startswith("resident") for kind in kinds):
        found.append("The resident set of a process is good for orders of size only.")
    found.append("Every cell runs in a process of its own, so that no peak contains what an earlier one left.")
    return " ".join(found)


def statistics(studies: Sequence[Study]) -> str:
    """How methods are compared, and what is not compared."""
    if not any(study.standing.intervals for study in studies):
        return "Without two methods of two seeds or more and their predictions there is nothing to test; no test was made."
    found = [
        "Another seed gives another model, and another test set other examples, so both are treated as samples: the variance of a mean is that of "
        f"the two-way layout with both factors random{cited('gallas2006')}, with Satterthwaite's degrees of freedom{cited('satterthwaite1946')}. "
        f"The interval of one method is Wilson's{cited('wilson1927')} with the sample size that this variance speaks of{cited('korn1998')}."
    ]
    if any(study.standing.metric == "macro_f1" for study in studies):
        found.append(f"The variance of macro F1 over examples is by the infinitesimal jackknife{cited('efron1982')}.")
    if any(study.is_compared for study in studies):
        found.append(
            "Every two methods are compared on the same test examples. "
            f"Values of _p_ are Holm's over all pairs{cited('holm1979')}, and intervals of differences hold for all pairs of a recipe at once (95%). "
            "A pair is called separable where _p_ \\< 0.05; only then is one method called better than the other. "
            f"Methods that share a letter cannot be told apart{cited('piepho2004')}."
        )
    found.append("Costs are given as means and standard deviations over seeds; their differences were not tested.")
    return tidy(" ".join(found))
