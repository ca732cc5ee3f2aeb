"""Files that programs write about a run: PEFT's method comparison, the Trainer, lm-eval, logs.

Each is turned into records that map a header to a text, in units that the header names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Texts = dict[str, str]


def run_records(path: Path, values: Any) -> list[Texts] | None:
    """Return the runs of a file of a known program; None for any other."""
    if isinstance(values, list):
        if values and all(_is_step(one) for one in values):
            return [{"method": _name(path), **of_log(values)}]
        return [_of_peft(one) for one in values] if values and all(map(_is_peft, values)) else None
    if _is_peft(values):
        return [_of_peft(values)]
    if isinstance(values, dict) and isinstance(values.get("log_history"), list):
        return [{"method": _name(path), **of_state(values)}]
    return _of_lm_eval(path, values) if _is_lm_eval(values) else None


def _name(path: Path) -> str:
    folder = path.parent.parent if path.parent.name.startswith("checkpoint") else path.parent
    return folder.name or path.stem


def _given(**values: Any) -> Texts:
    """Return what is known, as texts; a header's words are joined by `_`."""
    return {name: str(value) for name, value in values.items() if value not in (None, "", [])}


def _inside(values: Any, *names: str) -> Any:
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _is_peft(values: Any) -> bool:
    """Whether it is a result of `method_comparison` in the repository of PEFT."""
    return isinstance(values, dict) and all(
        isinstance(values.get(name), dict) for name in ("run_info", "train_info")
    )


def _of_peft(values: Mapping[str, Any]) -> Texts:
    """Convert one result. Its memory is in bytes, its times are in seconds, without an evaluation.

    `train samples` are those seen in training, not the rows of the data, so they are left out.
    """
    run, train = values["run_info"], values["train_info"]
    config, peft = run.get("train_config") or {}, run.get("peft_config") or {}
    metrics = [one for one in train.get("metrics") or () if isinstance(one, dict)]
    last = metrics[-1] if metrics else {}
    packages = _inside(values, "meta_info", "package_info") or {}
    system = _inside(values, "meta_info", "system_info") or {}
    failed = train.get("status") not in {None, "success"}
    error = str(run.get("error_msg") or "")
    memory = "OOM" if failed and "out of memory" in error.casefold() else None
    return _given(
        method=peft.get("peft_type") or "full-finetuning",
        name=run.get("experiment_name"),
        model=config.get("model_id"),
        precision=config.get("dtype"),
        seed=config.get("seed"),
        batch_size=config.get("batch_size"),
        max_length=config.get("max_seq_length"),
        learning_rate=_inside(config, "optimizer_kwargs", "lr"),
        total_steps=last.get("step", config.get("max_steps")),
        trainable_parameters=train.get("num_trainable_params"),
        total_parameters=train.get("num_total_params"),
        peak_memory_bytes=memory or train.get("accelerator_memory_max"),
        train_seconds=None if failed else train.get("train_time"),
        accuracy=last.get("test accuracy"),
        validation_accuracies=_series(metrics, "valid accuracy"),
        device=system.get("accelerator") or system.get("gpu"),
        **adapter_settings(peft),
        **{name: packages.get(f"{name}-version") for name in ("torch", "transformers", "peft")},
    )


def adapter_settings(config: Mapping[str, Any]) -> Texts:
    """Return the settings of an `adapter_config.json` of PEFT."""
    targets = config.get("target_modules")
    rank = config.get("r")
    return _given(
        rank=rank if isinstance(rank, int) and rank else None,
        virtual_tokens=config.get("num_virtual_tokens"),
        targets="+".join(sorted(targets)) if isinstance(targets, list) else targets,
        bias=config.get("bias"),
    )


def _series(steps: Sequence[Mapping[str, Any]], name: str) -> str:
    found = [step[name] for step in steps if isinstance(step.get(name), int | float)]
    return ";".join(map(repr, found))


def _is_step(values: Any) -> bool:
    """Whether it is a line of a Trainer's log (`loss`, `epoch`) or of LLaMA-Factory's."""
    return isinstance(values, dict) and (
        "current_steps" in values
        or ("epoch" in values and any(name.endswith(("loss", "runtime")) for name in values))
    )


def of_state(state: Mapping[str, Any]) -> Texts:
    """Convert a `trainer_state.json`.

    Its batch size is that of one device without accumulation, so it is left out.
    """
    history = [one for one in state["log_history"] if isinstance(one, dict)]
    return {**of_log(history), **_given(total_steps=state.get("global_step"))}


def of_log(steps: Sequence[Mapping[str, Any]]) -> Texts:
    """Convert the steps of a log. Training losses are means over the steps of each epoch."""
    by_epoch: dict[int, list[float]] = {}
    for step in steps:
        loss, epoch = step.get("loss"), step.get("epoch")
        if isinstance(loss, int | float) and isinstance(epoch, int | float) and epoch > 0:
            by_epoch.setdefault(math.ceil(epoch), []).append(loss)
    merged: dict[str, Any] = {name: value for step in steps for name, value in step.items()}
    epochs, done = merged.get("epoch"), merged.get("current_steps")
    finished = done is not None and done == merged.get("total_steps")
    return _given(
        train_losses=";".join(repr(sum(one) / len(one)) for one in by_epoch.values()),
        validation_losses=_series(steps, "eval_loss"),
        validation_accuracies=_series(steps, "eval_accuracy"),
        epochs=epochs,
        train_seconds=merged.get("train_runtime"),
        train_time=merged.get("elapsed_time")
        if finished and "train_runtime" not in merged
        else None,
        samples_per_second=merged.get("train_samples_per_second"),
        total_steps=merged.get("total_steps") if finished else None,
    )


def _is_lm_eval(values: Any) -> bool:
    """Whether these are lm-eval's results; names of older ones have no filter behind a comma."""
    results = _inside(values, "results")
    is_old = isinstance(_inside(values, "versions"), dict)
    return isinstance(results, dict) and any(
        isinstance(task, dict)
        and any("," in name or name == "alias" or (is_old and "_stderr" in name) for name in task)
        for task in results.values()
    )


def _of_lm_eval(path: Path, values: Mapping[str, Any]) -> list[Texts]:
    """Convert lm-eval's results: a row for each task, named by the adapter or the model."""
    arguments = _inside(values, "config", "model_args") or ""
    if not isinstance(arguments, dict):
        pairs = (one.partition("=") for one in str(arguments).split(","))
        arguments = {name.strip(): value for name, _, value in pairs}
    model = arguments.get("pretrained") or values.get("model_name")
    method = arguments.get("peft") or values.get("model_name") or path.stem
    counts = values.get("n-samples") or {}
    found = []
    for task, figures in values["results"].items():
        scores: dict[str, float] = {}
        for name, value in figures.items():
            if isinstance(value, int | float) and "stderr" not in name:
                scores.setdefault(
                    name.partition(",")[0], value
                )  # the first filter is the strictest
        if scores:
            accuracy = scores.pop("acc", None)
            rows = _inside(counts, task, "effective")
            known = _given(method=method, model=model, data=task, accuracy=accuracy, n_test=rows)
            found.append(known | _given(**scores))
    return found
