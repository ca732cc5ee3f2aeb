"""`peft-methods estimate MODEL`: memory, time and what fits, before anything runs."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from typing import Any

from peft_methods.cli.parsing import file_of, names_of, path_of
from peft_methods.cli.probe import run_probe
from peft_methods.cli.setting_help import with_change
from peft_methods.report.text.layout import WIDTH_OF_A_LOG
from peft_methods.utils.errors import OptionError, PeftMethodsError
from peft_methods.utils.sanitize import visible

ALL = "all"  # methods
OPTIONS = {
    "budget.batch_size": "--batch",
    "budget.gradient_checkpointing": "--checkpointing",
    "budget.precision": "--precision",
    "data.max_length": "--length",
    "data.source": "--data",
    "model.source": "another MODEL",
    **{name: f"--{name}" for name in ("engine", "gpu", "json", "method", "recipe", "task")},
    "trust_remote_code": "--trust-remote-code",
}  # how settings are changed
ESTIMATED, NOTHING = 0, 1  # exit codes


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `estimate`."""
    command = commands.add_parser(
        "estimate",
        help="what training will cost: memory, time, and whether it fits into a GPU",
        description="Estimate what each method's training needs: memory with its parts, whether "
        "it fits into a GPU and what would make it fit, time and energy. It needs no GPU, no "
        "weights and no download beyond a config. Exit code: 0, 1 if nothing can be estimated or "
        "compared, 2 for an unusable model or data, 4 for a bad option.",
    )
    command.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a hub id, a folder with config.json, that file, or a preset such as roberta-base",
    )
    command.add_argument(
        "--recipe", help="a recipe by name or TOML path (default: the usual one for the model)"
    )
    command.add_argument(
        "--data", metavar="SOURCE", help="other data: a file or folder, or a hub id"
    )
    command.add_argument("--task", help="the task of the data, where its columns leave a doubt")
    command.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="A,B",
        help="only these methods, by name, family or pattern (default: all)",
    )
    command.add_argument(
        "--gpu",
        metavar="GPU",
        help="its name (T4), its memory (16GB), or cpu for the processor of this machine",
    )
    command.add_argument("--batch", metavar="N", help="rows of a batch (default: the recipe's)")
    command.add_argument("--length", metavar="N", help="most tokens of a row")
    command.add_argument("--precision", help="fp32, tf32, bf16 or fp16")
    command.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing")
    command.add_argument(
        "--engine", default="auto", metavar="NAME", help="auto, trainer or cuda_graphs"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a recipe field, e.g. methods.lora.rank=16",
    )
    command.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model"
    )
    command.add_argument("--json", metavar="FILE", help="write everything as JSON")
    _add_others(command)
    command.set_defaults(run=run)


def _add_others(command: argparse.ArgumentParser) -> None:
    """Register what the command does instead of an estimate."""
    command.add_argument(
        "--probe",
        action="store_true",
        help="measure this machine's GPU instead, or its processor, within 30 seconds and without "
        "a MODEL: estimates of its times use the rates from then on",
    )
    command.add_argument(
        "--validate",
        metavar="RESULTS",
        help="compare estimates with the records in this folder instead, without a MODEL",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print estimates. Raises `PeftMethodsError` for wrong input, with the option to change."""
    try:
        if arguments.probe:
            return _probe(arguments)
        return _run(arguments) if arguments.validate is None else _validate(arguments)
    except PeftMethodsError as error:
        if not error.setting:
            raise
        change = OPTIONS.get(error.setting, f"--set {error.setting}=VALUE")
        raise type(error)(with_change(str(error), change)) from None


def _run(arguments: argparse.Namespace) -> int:
    if arguments.model is None:
        raise OptionError("name a MODEL: a hub id, a folder with config.json or a preset.")
    from peft_methods.estimation.api import estimate
    from peft_methods.report.text.estimate import estimates_text

    file = file_of(arguments.json, "json")
    estimates = estimate(
        arguments.model,
        data=arguments.data,
        recipe=arguments.recipe,
        task=arguments.task,
        methods=names_of(arguments.method, "method") or ALL,
        gpu=arguments.gpu,
        batch_size=_number(arguments.batch, "--batch"),
        max_length=_number(arguments.length, "--length"),
        precision=arguments.precision,
        checkpointing=arguments.checkpointing or None,
        engine=arguments.engine,
        settings=arguments.set,
        trust_remote_code=arguments.trust_remote_code,
        progress=_show_progress,
    )
    print(estimates_text(estimates, shutil.get_terminal_size((WIDTH_OF_A_LOG, 24)).columns))
    if file is not None:
        estimates.write_json(file)
    return ESTIMATED if any(one.memory is not None for one in estimates) else NOTHING


def _probe(arguments: argparse.Namespace) -> int:
    """Measure the device of this machine."""
    if arguments.model is not None or arguments.validate is not None:
        raise OptionError("--probe has no MODEL and no --validate: it measures this machine.")
    run_probe(arguments.gpu, file_of(arguments.json, "json"))
    return ESTIMATED


def _validate(arguments: argparse.Namespace) -> int:
    """Print the errors of estimates over stored records."""
    if arguments.model is not None:
        raise OptionError("--validate has no MODEL: its records name their models.")
    from peft_methods.analysis.validation import validate
    from peft_methods.estimation.connected import default_estimator
    from peft_methods.report.text.estimate_errors import validation_text
    from peft_methods.runs.store import Store

    folder = path_of(arguments.validate, "validate")
    if not folder.is_dir():
        raise OptionError(f"--validate {arguments.validate!r}: there is no such folder.")
    records, bad = Store(folder).records()
    for one in bad:
        print(visible(str(one)), file=sys.stderr)
    found = validate(records, default_estimator())
    print(validation_text(found, shutil.get_terminal_size((WIDTH_OF_A_LOG, 24)).columns))
    return ESTIMATED if found.errors else NOTHING


def _number(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?\d{1,12}", text, re.ASCII):
        raise OptionError(f"{option} {text!r} should be a whole number of 1 or more.")
    return int(text)


def _show_progress(done: int, count: int, name: str) -> None:
    """Show which method is next, on a terminal, in a line that the next one replaces."""
    if sys.stderr.isatty() and count > 1:
        print(f"\r\x1b[K{done}/{count} {name}", end="", file=sys.stderr, flush=True)
        if done == count:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
