"""Options for GPUs: what is wrong is said in one line, before anything trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvml_builders import FakeDriver, FakeGpu, gpus, need_no_gpu, uuid_of

from peft_methods.api import compare
from peft_methods.cli.baseline_options import saved_baselines_of
from peft_methods.cli.execution import executor_of
from peft_methods.utils.errors import OptionError


@pytest.mark.parametrize(
    "case",
    [
        (
            ["--peft-devices=2"],
            None,
            "there is no visible GPU 2. Indices count the visible GPUs: 0",
        ),
        (["--peft-devices=1"], "1", "within CUDA_VISIBLE_DEVICES='1': 0 (GPU-bbbb"),
        (["--peft-devices=0,0"], None, "0 and 0 name one GPU twice"),
        (["--peft-devices=GPU-x"], None, "no GPU 'GPU-x' is known"),
        (["--peft-workers=2"], "0", "1 GPU can be used, and each trains one run at a time"),
        (["--peft-workers=2", "--peft-devices=0"], None, "devices names 1 GPU"),
    ],
)
def test_bad_devices_print_one_line_and_exit_with_4(
    pytester: pytest.Pytester,
    tiny_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[list[str], str | None, str],
) -> None:
    need_no_gpu()
    arguments, visible, message = case
    FakeDriver(gpus("a", "b")).install(monkeypatch)
    monkeypatch.setattr("peft_methods.cli.parsing.usable_cores", lambda: 8)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    result = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", f"--peft-recipe={tiny_recipe}", *arguments
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.startswith("ERROR:")]
    assert message in line
    assert "Change it with --peft-" in line


def test_mixed_kinds_are_refused_if_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_no_gpu()
    FakeDriver([FakeGpu(uuid_of("a")), FakeGpu(uuid_of("b"), "NVIDIA A100")]).install(monkeypatch)
    with pytest.raises(OptionError, match=r"are of 2 kinds .* Change it with devices=…"):
        compare("embedded", devices="0,1", results=tmp_path)
    with pytest.raises(OptionError, match=r"1 GPU can be used of 2 visible ones"):
        executor_of("local", 2)


def test_no_gpu_is_said_where_devices_are_named(tmp_path: Path) -> None:
    need_no_gpu()
    with pytest.raises(OptionError, match="no GPU is usable here"):
        compare("embedded", devices="0", results=tmp_path)


def test_baselines_are_stored_under_the_kind_that_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not under that of the first GPU that is visible."""
    need_no_gpu()
    driver = FakeDriver([FakeGpu(uuid_of("a"), "NVIDIA A100"), *gpus("b", "c")])
    driver.install(monkeypatch)
    from peft_methods.cli.options import Options

    named = executor_of("local", None, devices="0")["devices"]
    for devices, folder in (((), "nvidia-h200"), (named, "nvidia-a100")):
        options = Options(("embedded",), ("lora",), (), tmp_path, devices=devices)

        class Given:
            peft_save_baseline, peft_append = "auto", False

        (path,) = saved_baselines_of(Given, options).values()
        assert path.parent.name == folder
