"""The fixture `peft_devices` in suites of others, with real workers of pytest-xdist."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nvml_builders
import pytest
from nvml_builders import need_no_gpu, uuid_of

from peft_methods.cli import gpu_leases

CONFTEST = f"""
import json, os, sys, time
import pytest
sys.path.insert(0, {str(Path(nvml_builders.__file__).parent)!r})
from nvml_builders import FakeDriver, gpus

FakeDriver(gpus(*"GPUS")).install(pytest.MonkeyPatch())

@pytest.fixture
def note(request):
    def write(devices):
        began = time.time()
        time.sleep(0.3)
        line = [request.node.name, os.environ.get("PYTEST_XDIST_WORKER", ""), list(devices),
                os.environ["CUDA_VISIBLE_DEVICES"], began, time.time()]
        with open({{folder!r}} + "/log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\\n")
    return write
"""
SUITE = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(peft_devices, note, number):
    assert len(peft_devices) == 1
    note(peft_devices)
"""
Suite = Callable[..., pytest.RunResult]


@pytest.fixture
def suite(pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Run a suite of somebody else's on a machine with GPUs; its notes are in log.jsonl."""
    need_no_gpu()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str, tests: str = SUITE, gpus: str = "ab") -> pytest.RunResult:
        conftest = CONFTEST.replace("GPUS", gpus).replace("{folder!r}", repr(str(tmp_path)))
        pytester.makeconftest(conftest)
        pytester.makepyfile(test_suite=tests)
        own = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "-p", "no:randomly")
        own += ("-p", "no:hypothesispytest")  # its imports take longer than all else
        return pytester.runpytest_subprocess(*own, *arguments)

    return run


def notes(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def of_one_gpu_do_not_overlap(found: list[Any]) -> bool:
    ends: dict[str, float] = {}
    for _, _, devices, _, began, ended in sorted(found, key=lambda one: one[4]):
        if any(ends.get(device, 0.0) > began for device in devices):
            return False
        ends |= dict.fromkeys(devices, ended)
    return True


def test_each_worker_has_its_own_gpu_and_more_workers_wait(suite: Suite, tmp_path: Path) -> None:
    suite("-n", "3").assert_outcomes(passed=6)
    found = notes(tmp_path)
    assert {device for line in found for device in line[2]} == {uuid_of("a"), uuid_of("b")}
    expected = {"gw0": uuid_of("a"), "gw1": uuid_of("b"), "gw2": uuid_of("a")}
    for _, worker, devices, visible, _, _ in found:
        assert devices == [visible] == [expected[worker]]
    assert of_one_gpu_do_not_overlap(found)


def test_a_test_may_need_several_gpus(suite: Suite, tmp_path: Path) -> None:
    tests = f"""
{SUITE}
@pytest.mark.peft_devices(2)
def test_two(peft_devices, note):
    assert len(set(peft_devices)) == 2
    note(peft_devices)

@pytest.mark.peft_devices(4)
def test_four(peft_devices):
    raise AssertionError("there are three")
"""
    result = suite("-n", "2", "-rs", tests=tests, gpus="abc")
    result.assert_outcomes(passed=7, skipped=1)
    result.stdout.fnmatch_lines(["*needs 4 NVIDIA GPUs; visible: 3"])
    assert of_one_gpu_do_not_overlap(notes(tmp_path))


def test_without_xdist_the_first_gpu_is_used(suite: Suite, tmp_path: Path) -> None:
    suite("-p", "no:xdist", "-k", "0 or 1").assert_outcomes(passed=2, deselected=4)
    assert {tuple(line[2]) for line in notes(tmp_path)} == {(uuid_of("a"),)}


def test_without_a_gpu_tests_are_skipped_with_the_reason(suite: Suite) -> None:
    result = suite("-p", "no:xdist", "-rs", gpus="")
    result.assert_outcomes(skipped=6)
    result.stdout.fnmatch_lines(["*needs 1 NVIDIA GPU; visible: none"])


def test_setting_chooses_before_tests_are_imported(suite: Suite, tmp_path: Path) -> None:
    tests = f"import os\nSEEN = os.environ.get('CUDA_VISIBLE_DEVICES')\n{SUITE}\n"
    tests += "    assert SEEN == ','.join(peft_devices)\n"
    suite("-n", "2", "-o", "peft_devices_per_worker=1", tests=tests).assert_outcomes(passed=6)


def test_wrong_setting_is_refused_in_one_line(suite: Suite) -> None:
    result = suite("-o", "peft_devices_per_worker=many")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*peft_devices_per_worker = 'many' should be a number of GPUs*"])


def test_process_in_which_cuda_has_started_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_leases, "cuda_is_started", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = gpu_leases.WorkerGpus(0, ("GPU-a", "GPU-b"), locks=tmp_path)
    assert "Set peft_devices_per_worker = 2 in pytest's settings" in gpus.choose(2)
    assert gpus.chosen == ()


@pytest.mark.parametrize(
    ("worker", "expected"), [(0, ("a", "b")), (1, ("c", "a")), (2, ("b", "c")), (3, ("a", "b"))]
)
def test_workers_go_round_the_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, worker: int, expected: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus = gpu_leases.WorkerGpus(worker, ("a", "b", "c"), locks=tmp_path)
    assert gpus.choose(2) == ""
    assert gpus.choose(1) == ""
    assert gpus.chosen == expected
    with gpus.leased(1) as own:
        assert own == expected[:1]
