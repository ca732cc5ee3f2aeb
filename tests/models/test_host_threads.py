"""Threads that draw and hash weights: torch's, or half of the cores of a GPU's host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from peft_methods.models import ranks
from peft_methods.models.host_threads import host_threads, set_on_gpu
from peft_methods.runs.prepare import set_up_process


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    set_up_process(threads, device="cpu")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)


@pytest.mark.usefixtures("cores")
def test_a_run_on_the_cpu_has_torch_s_threads() -> None:
    set_up_process(2, device="cpu")
    assert host_threads() == 2


@pytest.mark.usefixtures("cores")
def test_a_run_on_a_gpu_has_half_of_the_cores(tmp_path: Path) -> None:
    set_up_process(2, device="cuda")
    assert host_threads(tmp_path / "none") == 16
    (tmp_path / "max").write_text("max 100000\n", encoding="utf-8")
    assert host_threads(tmp_path / "max") == 16
    (tmp_path / "quota").write_text("800000 100000\n", encoding="utf-8")
    assert host_threads(tmp_path / "quota") == 4
    (tmp_path / "small").write_text("50000 100000\n", encoding="utf-8")
    assert host_threads(tmp_path / "small") == 2


@pytest.mark.usefixtures("cores")
def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_on_gpu(on_gpu=True)
    torch.set_num_threads(2)
    monkeypatch.setattr(ranks, "count", lambda: 4)
    assert host_threads(tmp_path / "none") == 4
