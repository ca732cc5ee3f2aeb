"""Errors a user can mend: one line that says what is wrong, what is allowed and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from peft_methods import escaping


class PeftMethodsError(Exception):
    """A mistake in the user's input. Its text is the whole message: one line, shown without a traceback.

    `setting` names the setting to change, such as "data.max_length" or "workers". The message itself speaks of
    settings only; the command line and `compare()` each add how to change it there.
    """

    def __init__(self, message: str = "", *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting

    def __str__(self) -> str:
        return escaping.message(super().__str__())


class OptionError(PeftMethodsError):
    """A bad option or recipe. pytest exits with 4, or with 1 where only the GPU itself could tell."""


class DataError(PeftMethodsError):
    """Data that cannot be trained on, or cannot be had. The tests of that recipe fail; pytest exits with 1."""


class TookTooLong(DataError):
    """Data or a model that could not be read within the time given. `stack` is what the process was doing."""

    def __init__(self, message: str, stack: str) -> None:
        super().__init__(message)
        self.stack = stack


class ModelError(PeftMethodsError):
    """A model that cannot be loaded or cannot carry a classifier. As for `DataError`."""


class OutOfMemory(PeftMethodsError):
    """A cell whose model, batch or optimizer does not fit. Its record says `oom`."""


class EngineUnfit(PeftMethodsError):
    """An engine that cannot run this cell, found out while it tried. Another engine, in a fresh process, may."""


class Nondeterministic(PeftMethodsError):
    """An operation that cannot give the same bits twice, in a cell that was asked for them."""


ALLOCATOR_SAYS = (
    "not enough memory",
    "can't allocate memory",
)  # torch's CPU allocator has no error type of its own

OFFLINE = "OfflineModeIsEnabled"  # a setting, though its type is that of a lost connection
UNREACHABLE = (
    "ConnectionError",
    "TimeoutError",
    "Timeout",
    "TransportError",
)  # Python's own, those of requests and of httpx
DEVICE_SAYS = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS_", "CUDNN_STATUS_")
AT_FAULT = (
    "device-side assert",
    "no kernel image",
    "invalid configuration argument",
)  # the program, not the device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was what ran out, on the host or on a GPU."""
    if isinstance(error, (MemoryError, OutOfMemory)) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ALLOCATOR_SAYS)


def may_pass(error: BaseException) -> bool:
    """Whether trying again may help: the network, the GPU or its driver failed. Not for what comes again each time."""
    chain = list(_chain(error))
    return any(map(_passes, chain)) and not any(type(one).__name__ == OFFLINE for one in chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _passes(error: BaseException) -> bool:
    if any(base.__name__ in UNREACHABLE for base in type(error).__mro__) or _is_servers_fault(
        error
    ):
        return True
    return any(words in str(error) for words in DEVICE_SAYS) and not any(
        words in str(error) for words in AT_FAULT
    )


def _is_servers_fault(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and (status == 429 or status >= 500)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """' Did you mean 'lora'?' when one of `allowed` is close to `name`, else nothing."""
    close = difflib.get_close_matches(name.lower(), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that does not exist: the name, the nearest right one, and all that are allowed."""
    allowed = list(allowed)
    return f"unknown {what} {name!r}.{nearest(name, allowed)} Allowed: {', '.join(allowed)}."


def first_line(error: BaseException) -> str:
    """The error's type and the first line of its text, for places where one line is all there is."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
