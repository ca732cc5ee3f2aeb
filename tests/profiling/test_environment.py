"""Device selection and one-line errors: unusable GPUs, hidden GPUs and wrong GPU names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes.cextension as bnb
import pytest
import torch

from builders import TASK, make_model
from peft_methods.methods.base import Method
from peft_methods.methods.selection import chosen_methods
from peft_methods.models import loading
from peft_methods.profiling import environment
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import DataError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "test_finetune.py"
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: "
    "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to "
    "install a PyTorch version that has been compiled with your version of the CUDA driver."
)
without_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="tests machines on which torch cannot use a GPU"
)


@pytest.fixture
def driver_shows_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "visible_gpus", lambda: 1)
    monkeypatch.setattr("peft_methods.profiling.nvml.visible_gpus", lambda: 1)
    monkeypatch.setattr(environment, "package_version", lambda name: "2.11.0")


@pytest.mark.parametrize(
    ("visible", "device"),
    [
        (None, "cuda"),
        ("0", "cuda"),
        ("1", "cuda"),
        ("GPU-1234", "cuda"),
        ("nonsense", "cuda"),
        ("", "cpu"),
        (" ", "cpu"),
        ("-1", "cpu"),
    ],
)
def test_find_device_returns_cpu_only_if_all_gpus_are_hidden(
    driver_shows_a_gpu: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str
) -> None:
    """A wrong GPU name must not lead to an unintended run on the CPU: torch raises an error."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert environment.find_device() == device


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (
            RuntimeError(TOO_OLD),
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
        ),
        (
            AssertionError(f"\n{TOO_OLD}"),
            "AssertionError: The NVIDIA driver on your system is too old",
        ),
        (
            RuntimeError("No CUDA GPUs are available"),
            "RuntimeError: No CUDA GPUs are available (CUDA_VISIBLE_DEVICES='7')",
        ),
        (
            RuntimeError(
                "CUDA unknown error - this may be due to an incorrectly set up environment\nmore"
            ),
            "CUDA unknown error - this may be due to an incorrectly set up environment "
            "(CUDA_VISIBLE_DEVICES='7')",
        ),
    ],
)
def test_check_device_explains_an_unusable_gpu_in_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, reason: str
) -> None:
    def init() -> None:
        raise raised

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    environment.check_device("cpu")
    with pytest.raises(DataError) as caught:
        environment.check_device("cuda")
    message = str(caught.value)
    assert reason in message
    assert (
        "Update the driver, install a torch built for its CUDA version, select a GPU that exists, "
        "or run on the CPU"
    ) in message
    assert "\n" not in message


@without_gpu
@pytest.mark.slow
def test_session_on_an_unusable_gpu_fails_with_that_line_before_training(
    pytester: pytest.Pytester,
    driver_shows_a_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    tiny_recipe: Path,
) -> None:
    """The processes are real, and so is torch's error in them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    chosen = (f"--peft-recipe={tiny_recipe}", "--peft-method=full,lora", "--peft-seeds=1")
    result = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", "-p", "no:cacheprovider", *chosen
    )
    result.assert_outcomes(failed=2)
    out = result.stdout.str()
    assert (
        f"Full fine-tuning, LoRA: failed: the driver shows a GPU, but torch {torch.__version__} "
        f"cannot use it: "
    ) in out
    assert "CUDA_VISIBLE_DEVICES= (empty)" in out
    assert "Traceback" not in out


def qlora() -> Method:
    return chosen_methods(load_recipe("embedded"), ["qlora"])[0]


@pytest.mark.parametrize("library", ["the CPU's", "none"])
@without_gpu
def test_qlora_is_unsupported_if_bitsandbytes_has_no_cuda_library(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes loads its CPU library without a GPU, and a mock if it finds no library.

    Without a GPU nobody trains on one here, and the method may be estimated for one elsewhere.
    """
    if library == "none":
        monkeypatch.setattr(
            bnb, "lib", bnb.ErrorHandlerMockBNBNativeLibrary("No compatible CUDA binary found")
        )
    architecture = loading.load(
        ModelSpec(str(make_model(tmp_path / "m"))), TASK.head, ("no", "yes")
    ).architecture
    assert qlora().unsupported(architecture, "cuda") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    reason = qlora().unsupported(architecture, "cuda")
    assert reason == (
        "bitsandbytes came without a CUDA library for this torch: "
        "`python -m bitsandbytes` says which one it looks for"
    )
    assert qlora().unsupported(architecture, "cpu") is None


def test_qlora_is_supported_if_bitsandbytes_has_a_cuda_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithCuda:
        compiled_with_cuda: Any = True

    monkeypatch.setattr(bnb, "lib", WithCuda())
    architecture = loading.load(
        ModelSpec(str(make_model(tmp_path / "m"))), TASK.head, ("no", "yes")
    ).architecture
    assert qlora().unsupported(architecture, "cuda") is None
