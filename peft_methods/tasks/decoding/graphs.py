"""A function of the device captured as CUDA graphs, one for each argument, or called as it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from peft_methods.models.workspaces import free_cublas_workspaces

Function = Callable[[int], object]


class Replayed:
    """Calls of a function with a number, replayed from a CUDA graph after the first with a number.

    Without a GPU, and where the function makes the host wait for the device, it is just called. It
    must always be the same function, and work in place on the same tensors. It changes its state
    last: a call that fails changes nothing. Call `close` at the end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.captures = device.type == "cuda"
        if self.captures:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def call(self, function: Function, number: int, times: int) -> None:
        """Call the function this many times. The host does not wait for the device."""
        if self.captures and number not in self._graphs:
            times -= 1
            self._capture(function, number)
        for _ in range(times):
            if self.captures:
                self._graphs[number].replay()
            else:
                function(number)

    def _capture(self, function: Function, number: int) -> None:
        """Call the function once, on the stream that captures it, and capture it if it can be.

        The first call is a real one: it fills the caches of the libraries, which a capture may not.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            try:
                with _no_waiting():
                    function(number)
            except RuntimeError as error:
                if "synchroniz" not in str(error):
                    raise
                self.captures = False
        current.wait_stream(self._stream)
        if not self.captures:
            function(number)
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            function(number)
        self._graphs[number] = graph

    def close(self) -> None:
        """Free the graphs, and the workspace of the stream that captured them."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self._graphs.clear()
            free_cublas_workspaces()


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Context manager: what makes the host wait for the device raises `RuntimeError`.

    torch warns that this mode does not find everything that waits. A capture would fail then.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
