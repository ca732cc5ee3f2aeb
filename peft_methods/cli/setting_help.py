"""How to change a setting on the command line, for errors that name one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from peft_methods.cli.arguments import PREFIX
from peft_methods.utils.errors import PeftMethodsError

# How options begin on the command line in use: `peft-methods run` has no prefix.
_START: ContextVar[str] = ContextVar("start of options", default=PREFIX)
RECIPE_OPTIONS = {
    "budget.seeds": "--peft-seeds",
    "budget.vary": "--peft-vary",
    "data.source": "--peft-data",
    "data.train_subset": "--peft-curve",
    "model.source": "--peft-model",
    "model.weights": "--peft-weights",
}  # settings of a recipe that have an option
OPTION_NAMES = {
    "limits": "budget",
    "methods": "method",
    "recipes": "recipe",
    "trackers": "track",
    "trials": "tune",
    "tolerances": "fail",
}  # settings whose option has another name
OPTIONS = frozenset(
    {
        *("recipe", "method", "seeds", "model", "weights", "data", "trust_remote_code"),
        *("vary", "curve", "dry_run", "fit"),
        *("results", "resume", "fresh", "workers", "devices", "executor", "timeout", "retries"),
        *("slurm", "detach", "isolation", "no_estimates"),
        *("ray_address", "ray_kind"),
        *("engine", "tune", "decide", "seeds_max", "decide_time"),
        *("save_models", "checkpoint", "deterministic", "rules", "track", "silence", "columns"),
        *("markdown", "csv", "report", "paper"),
        *("baseline", "fail", "allow_missing", "allow_reused"),
        *("save_baseline", "append", "budget", "margin"),
    }
)
COMMAND_OPTIONS = frozenset({"output", "paper", "silence", "budget", "margin", "charts"})


def how_to_change(setting: str) -> str:
    """Name the option for a setting: 'workers' -> '--peft-workers'; '' -> ''.

    Settings of a recipe without an option: 'budget.epochs' -> '--peft-set budget.epochs=VALUE'.
    The option is named as the command line in use names it.
    """
    if not setting:
        return ""
    if setting in RECIPE_OPTIONS:
        return in_use(RECIPE_OPTIONS[setting])
    name = OPTION_NAMES.get(setting, setting)
    if name in OPTIONS:
        return in_use(f"{PREFIX}{name.replace('_', '-')}")
    return in_use(f"{PREFIX}set {setting}=VALUE")


def how_to_change_in_command(setting: str) -> str:
    """Name the option of `peft-methods COMMAND` for a setting; '' if it has none."""
    return f"--{setting}" if setting in COMMAND_OPTIONS else ""


def explained(error: PeftMethodsError) -> str:
    """Return the error's message and how to change its setting, in the command line in use."""
    return in_use(with_change(str(error), how_to_change(error.setting)))


def in_use(text: str) -> str:
    """Return a text with its options as the command line in use names them."""
    return text.replace(PREFIX, _START.get())


@contextmanager
def options_start_with(start: str) -> Iterator[None]:
    """Context manager: name options with this start in place of `--peft-`."""
    token = _START.set(start)
    try:
        yield
    finally:
        _START.reset(token)


def with_change(message: str, change: str) -> str:
    """Add how to change the setting to an error's message."""
    return f"{message} Change it with {change}." if change else message
