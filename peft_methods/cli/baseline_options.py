"""Options of the regression check: which baselines are read, and which are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from peft_methods.cli import parsing as values
from peft_methods.cli.setting_help import how_to_change
from peft_methods.utils.errors import OptionError

if TYPE_CHECKING:
    from peft_methods.analysis.regression import RegressionCheck
    from peft_methods.runs.plan import RunGroup


class Planned(Protocol):
    """The part of a session's options that says what is to be trained."""

    @property
    def recipes(self) -> tuple[str, ...]:
        """The names or paths of the recipes."""

    @property
    def curve(self) -> tuple[int, ...]:
        """The sizes of the training data for a learning curve."""

    @property
    def device_name(self) -> str:
        """The GPU's name, or 'cpu'."""

    def tasks(self) -> Sequence[RunGroup]:
        """Return every recipe and method to benchmark."""


def regression_check_of(option: Any, options: Planned) -> RegressionCheck | None:
    """Build the regression check. Its baselines are read before anything is trained."""
    if option.peft_baseline is None:
        unused = next(
            (
                name
                for name in ("fail", "allow_missing", "allow_reused")
                if getattr(option, f"peft_{name}")
            ),
            None,
        )
        if unused is not None:
            raise OptionError(
                f"--peft-{unused.replace('_', '-')} needs a baseline to compare with: "
                "add --peft-baseline FILE|auto."
            )
        return None
    from peft_methods.analysis.baseline import AUTO, read_baseline
    from peft_methods.analysis.regression import RegressionCheck
    from peft_methods.analysis.tolerances import parse_tolerances

    tolerances = parse_tolerances(option.peft_fail) or None
    saving = how_to_change("save_baseline")
    if option.peft_baseline == AUTO:
        baselines = {
            recipe: read_baseline(path, saving) for recipe, path in _auto_baselines(options).items()
        }
    else:
        baseline = read_baseline(values.path_of(option.peft_baseline, "baseline"), saving)
        baselines = dict.fromkeys((task.recipe.name for task in options.tasks()), baseline)
    return RegressionCheck(
        baselines,
        tolerances,
        option.peft_allow_missing,
        option.peft_allow_reused,
        how_to_change,
    )


def saved_baselines_of(option: Any, options: Planned) -> dict[str, Path]:
    """Return the path to write each recipe's baseline to.

    Those that a session is added to are read before anything is trained.
    """
    value = option.peft_save_baseline
    if value is None:
        if option.peft_append:
            raise OptionError(
                "--peft-append needs a baseline to add this session to: "
                "add --peft-save-baseline FILE|auto."
            )
        return {}
    from peft_methods.analysis.baseline import AUTO, read_baseline

    if value == AUTO:
        paths = _auto_baselines(options)
    else:
        path = values.file_of(value, "save_baseline")
        paths = {task.recipe.name: path for task in options.tasks() if path is not None}
    for old in dict.fromkeys(paths.values()) if option.peft_append else ():
        if old.exists():
            read_baseline(old, how_to_change("save_baseline"))
    return paths


def _auto_baselines(options: Planned) -> dict[str, Path]:
    """Return the stored baseline of every recipe that can run on this device."""
    from peft_methods.analysis.baseline import auto_path
    from peft_methods.recipes.loading import find_recipe

    device = options.device_name
    recipes = {task.recipe.name: task.recipe for task in options.tasks()}
    files = [file for file in options.recipes for _ in options.curve or (None,)]
    return {
        recipe.name: auto_path(find_recipe(file), recipe, device)
        for file, recipe in zip(files, recipes.values(), strict=True)
        if not (recipe.gpu and device == "cpu")
    }
