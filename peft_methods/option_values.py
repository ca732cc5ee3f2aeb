"""What single `--peft-` options may be: each from its text to its value, or one line that says what is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.environment import find_device, usable_cores
from peft_methods.errors import OptionError, first_line

if TYPE_CHECKING:
    from peft_methods.recommending import Limits


def names_of(values: list[str], option: str) -> tuple[str, ...]:
    """The names of a comma list that may be given more than once."""
    names = [name.strip() for value in values for name in value.split(",")]
    if "" in names:
        raise OptionError(f"{option} {','.join(values)!r} has an empty name; write a,b.")
    return tuple(dict.fromkeys(names))


def path_of(value: str, option: str) -> Path:
    """What can be a path, whether there is something or not."""
    try:
        os.lstat(value)
    except (OSError, ValueError) as error:  # too long, a NUL, half a character
        if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            raise OptionError(
                f"{option} {value!r} cannot be a path ({first_line(error)}); give another."
            ) from None
    return Path(value)


def _is_whole(text: str) -> bool:
    """Whether it is a whole number from 0 up that could be meant."""
    return text.isascii() and text.isdecimal() and len(text) <= 10


def parse_seeds(text: str) -> int | list[int]:
    """'3' -> 3 (seeds 0, 1, 2); '4,7' or '4,' -> those. Raises `OptionError`."""
    parts = text.split(",")
    numbers = [part.strip() for part in parts if part.strip()]
    if not numbers or not all(map(_is_whole, numbers)):
        raise OptionError(
            f"--peft-seeds {text!r} should be a number of seeds (3 means 0, 1, 2) or a list of them (4,7)."
        )
    seeds = [int(part) for part in numbers]
    if len(parts) == 1:
        if seeds[0] == 0:
            raise OptionError(
                "--peft-seeds 0 would train nothing; give at least 1, or '0,' for seed 0 alone."
            )
        return seeds[0]
    return seeds


def fresh_of(option: Any) -> bool:
    """Whether everything is trained again."""
    if option.peft_fresh and option.peft_resume:
        raise OptionError(
            "--peft-fresh trains everything again and --peft-resume only what is missing: give one of them."
        )
    return bool(option.peft_fresh)


def trials_of(text: str | None) -> int | None:
    """How many trials a method is tuned by."""
    if text is None:
        return None
    if not (_is_whole(text) and int(text) >= 1):
        raise OptionError(
            f"--peft-tune {text!r} should be a whole number of trials a method, 1 or more."
        )
    return int(text)


def workers_of(text: str | None) -> int | None:
    """How many cells run side by side."""
    if text is None:
        return None
    if not (_is_whole(text) and 1 <= int(text) <= usable_cores()):
        raise OptionError(
            f"--peft-workers {text!r} should be a whole number from 1 to {usable_cores()}, the cores there are."
        )
    if int(text) > 1 and find_device() != "cpu":
        raise OptionError(
            f"--peft-workers {text}: on a GPU one cell runs at a time; two would measure each other."
        )
    return int(text)


def silenced_of(values: list[str]) -> tuple[str, ...]:
    """Rules that are not asked."""
    if not values:
        return ()
    from peft_methods.validity import silenced

    return silenced(",".join(values), "--peft-silence")


def limits_of(text: str | None) -> Limits:
    """What may be recommended."""
    if text is None:
        return {}
    from peft_methods.recommending import parse_limits

    return parse_limits(text)


def trackers_of(values: list[str]) -> tuple[str, ...]:
    """Trackers that are there."""
    if not values:
        return ()
    from peft_methods.execution.tracking import checked

    return checked(names_of(values, "--peft-track"), "--peft-track")


def report_of(value: str | None) -> Path | None:
    """Where the report goes; what it needs is there, or the run ends before anything is trained."""
    if value is None:
        return None
    from peft_methods.report.needs import check_report

    check_report("--peft-report")
    return folder_of(value, "--peft-report")


def folder_of(value: str | None, option: str) -> Path | None:
    """A folder that exists from now on and can be written, so that nothing is lost at the end for want of one."""
    if value is None:
        return None
    from peft_methods.report.needs import check_folder

    path = path_of(value, option)
    check_folder(path, option)
    return path


def paper_of(value: str | None) -> Path | None:
    """Where the paper goes: a PDF in a folder that takes files, with what makes it installed."""
    path = file_of(value, "--peft-paper")
    if path is None:
        return None
    from peft_methods.report.paper import check_possible

    if path.suffix.lower() != ".pdf":
        raise OptionError(
            f"--peft-paper {value!r} should be the name of a PDF: {path.stem or 'paper'}.pdf."
        )
    folder_of(str(path.parent), "--peft-paper")
    check_possible("--peft-paper")
    return path


def file_of(value: str | None, option: str) -> Path | None:
    """A file in a folder that exists."""
    if value is None:
        return None
    path = path_of(value, option)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise OptionError(
            f"{option} {value!r}: {'that is a folder' if path.is_dir() else f'the folder {path.parent} does not exist'}."
        )
    return path
