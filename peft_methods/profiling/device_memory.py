"""Peak device memory of this process, sampled by NVML."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from peft_methods.profiling.nvml import Gpu

SAMPLE_SECONDS = 0.01


class DeviceMemory:
    """Peak memory of this process on the device, including its CUDA context, by NVML.

    It is sampled in the background. If the container hides pids, it is the device's total above the
    level at the start; `kind` states which one it is.
    """

    def __init__(
        self, gpu: Gpu, *, level_at_start: int | None, interval: float = SAMPLE_SECONDS
    ) -> None:
        self._base = 0
        self._read: Callable[[], int | None] = gpu.own_bytes
        self.kind = "this process on the device, by NVML"
        if gpu.own_bytes() is None:
            self._read, self._base = gpu.used_bytes, level_at_start or 0
            self.kind = "whole device above its level at the start, by NVML (pids are hidden here)"
        self._interval, self._highest, self._done = interval, self._level(), threading.Event()

    def start(self) -> None:
        """Reset the highest sample to the current level."""
        self._highest = self._level()

    def read(self) -> float | None:
        """Return the highest sample since `start`, in bytes."""
        self._sample()
        return self._highest

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Context manager: sample in a background thread."""
        thread = threading.Thread(target=self._sample_until_done, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _sample_until_done(self) -> None:
        while not self._done.wait(self._interval):
            self._sample()

    def _level(self) -> float | None:
        level = self._read()
        return None if level is None else max(0, level - self._base)

    def _sample(self) -> None:
        level = self._level()
        if level is not None and (self._highest is None or level > self._highest):
            self._highest = level
