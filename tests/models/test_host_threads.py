"""Threads that draw and hash weights: torch's, or those of the cores that a run on a GPU leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from peft_methods.models.host_threads import LEFT_CORES, host_threads, run_is_on_gpu


@pytest.fixture(autouse=True)
def on_cpu_afterwards() -> Iterator[None]:
    yield
    run_is_on_gpu(answer=False)


def test_a_run_on_the_cpu_has_torch_s_threads() -> None:
    run_is_on_gpu(answer=False)
    assert host_threads() == torch.get_num_threads()


@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (16, 16 - LEFT_CORES)])
def test_a_run_on_a_gpu_leaves_cores_to_the_run_beside_it(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    run_is_on_gpu(answer=True)
    assert host_threads() == threads
