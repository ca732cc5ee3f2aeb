"""TODO."""

from __future__ import annotations

from peft_methods.utils.errors import PeftMethodsError

RECIPE_OPTIONS = {
    "budget.seeds": "--peft-seeds",
    "data.source": "--peft-data",
    "model.source": "--peft-model",
    "model.weights": "--peft-weights",
}  # settings of a recipe with an option of their own
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
        *("recipe", "method", "seeds", "model", "weights", "data", "trust_remote_code", "dry_run"),
        *("results", "resume", "fresh", "workers", "timeout", "retries", "engine", "tune"),
        *("save_models", "checkpoint", "deterministic", "rules", "track", "silence", "markdown"),
        *("csv", "report", "paper", "baseline", "fail", "allow_missing", "allow_reused"),
        *("save_baseline", "budget"),
    }
)


def how_to_change(setting: str) -> str:
    """Name the option for a setting: 'workers' -> '--peft-workers'; '' -> ''.

    Settings of a recipe without an option: 'budget.epochs' -> '--peft-set budget.epochs=VALUE'.
    """
    if not setting:
        return ""
    if setting in RECIPE_OPTIONS:
        return RECIPE_OPTIONS[setting]
    name = OPTION_NAMES.get(setting, setting)
    if name in OPTIONS:
        return f"--peft-{name.replace('_', '-')}"
    return f"--peft-set {setting}=VALUE"


def explained(error: PeftMethodsError) -> str:
    """Return the error's message and how to change its setting on the command line."""
    message, change = str(error), how_to_change(error.setting)
    return f"{message} Change it with {change}." if change else message
