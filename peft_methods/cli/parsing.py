"""Parsers of single options and arguments, shared by the command line and `compare()`.

Their errors name the setting; `setting_help` and `api` add how to change it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.analysis.margin import MARGIN, parse_margin
from peft_methods.profiling.environment import usable_cores
from peft_methods.utils.errors import OptionError, first_line

if TYPE_CHECKING:
    from peft_methods.analysis.constraints import Constraints


EACH = "each"  # every part that seeds vary alone, beside all of them together


def names_of(values: Sequence[str], setting: str) -> tuple[str, ...]:
    """Parse the names of a comma-separated list that may be given more than once."""
    text = ",".join(values)
    names = [name.strip() for name in text.split(",")] if text or values else []
    if "" in names:
        raise OptionError(
            f"{setting} {text!r} has an empty name. Write names as a,b.", setting=setting
        )
    return tuple(dict.fromkeys(names))


def models_of(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Parse one model or several. Raises `OptionError`."""
    from peft_methods.recipes.several_models import parse_models

    return parse_models(value)


def path_of(value: str | Path, setting: str) -> Path:
    """Parse a path, whether or not it exists."""
    try:
        os.lstat(value)
    except (OSError, ValueError) as error:  # too long, a NUL, an incomplete character
        if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            raise OptionError(
                f"{setting} {str(value)!r} cannot be a path ({first_line(error)}). "
                "Give another path.",
                setting=setting,
            ) from None
    return Path(value)


def _is_whole(text: str) -> bool:
    """Whether the text is a whole number from 0 up, of at most ten digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 10


def parse_seeds(text: str) -> int | list[int]:
    """Parse '3' to 3 (seeds 0, 1, 2), and '4,7' or '4,' to these seeds. Raises `OptionError`."""
    parts = text.split(",")
    numbers = [part.strip() for part in parts if part.strip()]
    if not numbers or not all(map(_is_whole, numbers)):
        raise OptionError(
            f"seeds {text!r} should be a number of seeds (3 means 0, 1, 2) "
            "or a list of seeds (4,7).",
            setting="seeds",
        )
    seeds = [int(part) for part in numbers]
    if len(parts) == 1:
        if seeds[0] == 0:
            raise OptionError(
                "seeds 0 would train nothing. Give at least 1, or '0,' for seed 0 alone.",
                setting="seeds",
            )
        return seeds[0]
    return seeds


def seed_settings(seeds: int | Sequence[int] | None) -> tuple[str, ...]:
    """Convert seeds to a recipe field as `KEY=VALUE`; none for None."""
    if seeds is None:
        return ()
    return (f"budget.seeds={seeds if isinstance(seeds, int) else list(seeds)}",)


def curve_of(value: str | Sequence[int] | None) -> tuple[int, ...]:
    """Parse the sizes of a learning curve: '100,300' or [100, 300]; none for None."""
    if value is None:
        return ()
    from peft_methods.recipes.curve import parse_sizes

    return parse_sizes(value if isinstance(value, str) else ",".join(map(str, value)))


def vary_settings(parts: str | Sequence[str] | None) -> tuple[str, ...]:
    """Convert the parts that seeds vary to a recipe field as `KEY=VALUE`; none for 'each', None."""
    if parts is None or parts == EACH:
        return ()
    names = list(names_of([parts], "vary") if isinstance(parts, str) else parts)
    if EACH in names:
        raise OptionError(
            f"vary {EACH!r} trains every part of the recipe alone. Give it without other names, "
            f"and set budget.vary to the parts.",
            setting="budget.vary",
        )
    return (f"budget.vary={json.dumps(names)}",)


def with_task(settings: Sequence[str], task: str | None) -> tuple[str, ...]:
    """Return the settings with that of the task, if one is named."""
    return tuple(settings) if task is None else (*settings, f"task={task}")


def varied(
    settings: Sequence[str],
    seeds: int | Sequence[int] | None,
    vary: str | Sequence[str] | None,
) -> dict[str, Any]:
    """Return the fields of `Options` for seeds and what they vary: `settings` and `each_part`."""
    return {
        "settings": (*settings, *seed_settings(seeds), *vary_settings(vary)),
        "each_part": vary == EACH,
    }


def fresh_of(option: Any) -> bool:
    """Whether everything is trained again. Raises `OptionError` for both options at once."""
    if option.peft_fresh and option.peft_resume:
        raise OptionError(
            "--peft-fresh trains everything again and --peft-resume only missing runs. "
            "Give only one of them."
        )
    return bool(option.peft_fresh)


def trials_of(value: str | int | None) -> int | None:
    """Parse the number of tuning trials per method."""
    if value is None:
        return None
    text = str(value)
    if not (_is_whole(text) and int(text) >= 1):
        raise OptionError(
            f"tune {text!r} should be a whole number of trials per method, 1 or more.",
            setting="tune",
        )
    return int(text)


def workers_of(value: str | int | None, *, on_cluster: bool = False) -> int | None:
    """Parse the number of runs at a time. On a cluster, this machine does not limit it."""
    if value is None:
        return None
    text = str(value)
    if on_cluster:
        if not _is_whole(text) or int(text) < 1:
            raise OptionError(
                f"workers {text!r} should be a whole number of 1 or more.", setting="workers"
            )
        return int(text)
    if not (_is_whole(text) and 1 <= int(text) <= usable_cores()):
        raise OptionError(
            f"workers {text!r} should be a whole number from 1 to {usable_cores()}, "
            "the number of usable cores.",
            setting="workers",
        )
    return int(text)


def silenced_of(values: Sequence[str]) -> tuple[str, ...]:
    """Parse the ids of the rules to skip."""
    if not values:
        return ()
    from peft_methods.analysis.checks.rule import parse_silenced

    return parse_silenced(",".join(values))


def columns_of(values: str | Sequence[str]) -> tuple[str, ...]:
    """Parse the names of the table's columns."""
    if not values:
        return ()
    from peft_methods.report.text.columns import check_columns

    return check_columns(names_of([values] if isinstance(values, str) else values, "columns"))


def limits_of(text: str | None, setting: str = "budget") -> Constraints:
    """Parse limits on memory and time: those of recommendations, or of the runs to train."""
    if text is None:
        return {}
    from peft_methods.analysis.constraints import parse_constraints

    return parse_constraints(text, setting)


def margin_of(text: str | None) -> float:
    """Parse the margin within which methods are equal, as a fraction: '1pp' -> 0.01."""
    return MARGIN if text is None else parse_margin(text)


def trackers_of(values: str | Sequence[str]) -> tuple[str, ...]:
    """Parse the names of trackers, which must be installed."""
    if not values:
        return ()
    from peft_methods.runs.tracking.trackers import parse_trackers

    return parse_trackers(names_of([values] if isinstance(values, str) else values, "track"))


def report_of(value: str | Path | None) -> Path | None:
    """Parse the report's folder. Checks its requirements before anything is trained."""
    if value is None:
        return None
    from peft_methods.report.requirements import check_libraries

    check_libraries()
    return folder_of(value, "report")


def folder_of(value: str | Path | None, setting: str) -> Path | None:
    """Parse a folder. It is created and checked now, so that no result is lost at the end."""
    if value is None:
        return None
    from peft_methods.report.requirements import check_folder

    path = path_of(value, setting)
    check_folder(path, setting)
    return path


def paper_of(value: str | Path | None) -> Path | None:
    """Parse the paper's path: a PDF in a writable folder. Checks its requirements."""
    path = file_of(value, "paper")
    if path is None:
        return None
    from peft_methods.report.paper.typst import check_requirements

    if path.suffix.lower() != ".pdf":
        raise OptionError(
            f"paper {str(value)!r} should be the name of a PDF: {path.stem or 'paper'}.pdf.",
            setting="paper",
        )
    folder_of(path.parent, "paper")
    check_requirements()
    return path


def file_of(value: str | Path | None, setting: str) -> Path | None:
    """Parse a file's path, whose folder must exist."""
    if value is None:
        return None
    path = path_of(value, setting)
    if path.is_dir() or not path.absolute().parent.is_dir():
        problem = (
            "it is a folder; give a file"
            if path.is_dir()
            else f"the folder {path.parent} does not exist; create it or give another"
        )
        raise OptionError(f"{setting} {str(value)!r}: {problem}.", setting=setting)
    return path
