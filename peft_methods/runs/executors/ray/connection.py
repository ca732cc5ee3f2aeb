"""The connection to a Ray cluster: made once, with a clear error within seconds."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from peft_methods.utils.errors import OptionError, first_line

SETTING = "ray_address"
AUTO = "auto"
ANSWER_SECONDS, CONNECT_SECONDS = 2.0, 5.0
START = (
    "Start a cluster with `ray start --head`, join this machine with `ray start "
    "--address=HOST:6379 --num-cpus=0 --num-gpus=0`, and give that HOST:6379"
)


def connect(address: str) -> Any:
    """Return Ray, connected to the cluster at this address. Raises `OptionError` with one line.

    `auto` is the address in RAY_ADDRESS, or of the cluster that this machine belongs to. A
    connection that this process already has is used.
    """
    ray = import_ray()
    if ray.is_initialized():
        _check_same(address, ray.get_runtime_context().gcs_address)
        return ray
    address = os.environ.get("RAY_ADDRESS") or AUTO if address == AUTO else address
    _check(address)
    failed: list[BaseException] = []
    # In a thread, since Ray waits for up to a minute, and sets a SIGTERM handler in the main one.
    thread = threading.Thread(target=_connect, args=(ray, address, failed), daemon=True)
    with _silent():
        thread.start()
        thread.join(CONNECT_SECONDS)
    _restore_handlers()
    if failed or thread.is_alive():
        cause = f"no answer after {CONNECT_SECONDS:.0f} s"
        if failed:  # the text of this error recommends Ray's own options
            is_none = address == AUTO and isinstance(failed[0], ConnectionError)
            cause = "none was found" if is_none else first_line(failed[0])
        raise _unreachable(address, cause)
    return ray


def import_ray() -> Any:
    """Import Ray. Raises `OptionError` where it is not installed."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # else Ray warns of a change
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its errors are reported here
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise OptionError(
            f"the executor 'ray' needs Ray, which cannot be imported ({first_line(error)}). "
            "Install peft-methods[ray].",
            setting="executor",
        ) from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Context manager: drop what Ray's C++ code writes to stderr. Its error is reported here."""
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _connect(ray: Any, address: str, failed: list[BaseException]) -> None:
    try:
        ray.init(
            address, configure_logging=True, logging_level=logging.CRITICAL, log_to_driver=False
        )
    except BaseException as error:
        failed.append(error)


def _check_same(address: str, connected: str) -> None:
    """Raise `OptionError` if this process belongs to another cluster. A host has several names."""
    if address != AUTO and address.rpartition(":")[2] != connected.rpartition(":")[2]:
        raise OptionError(
            f"this process is connected to the Ray cluster at {connected}, not to {address}. Call "
            "ray.shutdown() first, or name that one.",
            setting=SETTING,
        )


def _restore_handlers() -> None:
    """Give SIGTERM and SIGINT back to Python, whose handlers Ray replaces below it."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _check(address: str) -> None:
    """Raise `OptionError` unless something answers at the address."""
    if address == AUTO:
        return
    if "://" in address:
        raise OptionError(
            f"Ray address {address!r} is one of Ray's client server, which cannot report a run's "
            f"progress. {START}.",
            setting=SETTING,
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OptionError(
            f"Ray address {address!r} should be HOST:PORT, for example 10.0.0.1:6379.",
            setting=SETTING,
        )
    try:
        with contextlib.closing(
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS)
        ):
            pass
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or first_line(error)) from None


def _unreachable(address: str, cause: str) -> OptionError:
    if address == AUTO:
        where = "this machine belongs to no running Ray cluster"
    else:
        where = f"no Ray cluster can be used at {address}"
    return OptionError(f"{where} ({cause}). {START}.", setting=SETTING)
