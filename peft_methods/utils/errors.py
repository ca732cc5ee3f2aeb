"""Errors that a user can fix: one line that says what is wrong, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from peft_methods.utils import sanitize


class PeftMethodsError(Exception):
    """A mistake in the user's input. The text is one line and is shown without a traceback.

    `setting` names the setting to change, such as "data.max_length" or "workers". The message
    itself speaks of settings only; the command line and `compare()` each add how to change it
    there.
    """

    def __init__(self, message: str = "", *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting

    def __str__(self) -> str:
        return sanitize.message(super().__str__())


class OptionError(PeftMethodsError):
    """A bad option or recipe. pytest exits with 4.

    The exit code is 1 if only the GPU itself could reveal the mistake.
    """


class DataError(PeftMethodsError):
    """Data that cannot be loaded or trained on. The recipe's tests fail; pytest exits with 1."""


class PreparationTimedOut(DataError):
    """Data or a model that could not be read in time. `stack` is the reading process's stack."""

    def __init__(self, message: str, stack: str) -> None:
        super().__init__(message)
        self.stack = stack


class ModelError(PeftMethodsError):
    """A model that cannot be loaded or cannot carry a classifier. Reported like `DataError`."""


class OutOfMemory(PeftMethodsError):
    """A run whose model, batch or optimizer does not fit into memory. Recorded as `oom`."""


class EngineUnfit(PeftMethodsError):
    """An engine that turned out, during the attempt, to be unable to execute this run.

    Another engine may be able to, in a fresh process.
    """


class Nondeterministic(PeftMethodsError):
    """An operation that is not bitwise reproducible, in a run that must be deterministic."""


# torch's CPU allocator raises a plain RuntimeError, so only the text shows the cause.
ALLOCATOR_MESSAGES = ("not enough memory", "can't allocate memory")

OFFLINE = "OfflineModeIsEnabled"  # a setting, although the type derives from a connection error
# Type names of Python itself, requests and httpx.
CONNECTION_ERRORS = ("ConnectionError", "TimeoutError", "Timeout", "TransportError")
DEVICE_MESSAGES = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS_", "CUDNN_STATUS_")
# Device messages that are caused by the program, not by the device.
PROGRAM_FAULTS = ("device-side assert", "no kernel image", "invalid configuration argument")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory ran out, on the host or on a GPU."""
    if isinstance(error, (MemoryError, OutOfMemory)) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ALLOCATOR_MESSAGES)


def is_transient(error: BaseException) -> bool:
    """Whether a retry may help: the network, the GPU or its driver failed.

    False for errors that recur on every attempt.
    """
    chain = list(_chain(error))
    return any(map(_is_transient, chain)) and not any(
        type(one).__name__ == OFFLINE for one in chain
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_transient(error: BaseException) -> bool:
    if any(base.__name__ in CONNECTION_ERRORS for base in type(error).__mro__):
        return True
    if _is_server_error(error):
        return True
    return any(words in str(error) for words in DEVICE_MESSAGES) and not any(
        words in str(error) for words in PROGRAM_FAULTS
    )


def _is_server_error(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and (status == 429 or status >= 500)


def nearest(name: str, allowed: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ` Did you mean 'lora'?` if one of `allowed` is close to `name`, else an empty text.

    `cutoff`: the least similarity, from 0 to 1.
    """
    spelled = {one.lower(): one for one in reversed(list(allowed))}
    close = difflib.get_close_matches(name.lower(), list(spelled), n=1, cutoff=cutoff)
    return f" Did you mean {spelled[close[0]]!r}?" if close else ""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Describe an unknown name in one line: the name, the nearest match and all allowed names."""
    allowed = list(allowed)
    return f"unknown {kind} {name!r}.{nearest(name, allowed)} Allowed: {', '.join(allowed)}."


def first_line(error: BaseException) -> str:
    """Return the error's type and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
