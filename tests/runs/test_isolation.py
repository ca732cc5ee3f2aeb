"""Hangs, kills and interrupts, for real.

The tests check what is lost, what is reported, and that no process or file is left.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from builders import BENCHMARK, PROCESS_MARK, make_data, make_record, marked_processes, runs
from peft_methods.runs.events import Event
from peft_methods.runs.executors import oom
from peft_methods.runs.executors.devices import DeviceSet
from peft_methods.runs.executors.local import LocalExecutor
from peft_methods.runs.executors.process import ForkServer, Worker, fork_server
from peft_methods.runs.executors.stack_dump import innermost_frame, request_stacks, with_short_paths
from peft_methods.runs.scheduling import new_scheduler
from peft_methods.runs.store import Store
from peft_methods.runs.timeouts import Timeouts
from peft_methods.utils.errors import DataError, is_transient


def until(true: Callable[[], Any], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


@pytest.fixture
def warm(tmp_path: Path) -> None:
    """Wait until the fork server has done its imports, so that tests do not time them."""
    worker = Worker(fork_server(DeviceSet()), tmp_path)
    until(lambda: worker.process)
    worker.kill()


def test_worker_kill_succeeds_if_the_process_has_just_ended(tmp_path: Path) -> None:
    """The status message arrives a moment after the end. Until then the process seems alive."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for act in (Worker.stacks, Worker.kill):
        worker = Worker(fork_server(DeviceSet()), tmp_path)
        until(lambda worker=worker: worker.process is not None)
        worker._process = gone.pid
        act(worker)
        worker.kill()


@pytest.mark.usefixtures("warm")
def test_timeout_ends_endless_and_stopped_runs(tiny_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    scheduler = new_scheduler(store, "cpu", workers=2, timeout=3, retries=1)
    (endless,) = runs(tiny_recipe, "lora", "budget.seeds=1", "budget.epochs=100000")
    (stopped,) = runs(tiny_recipe, "full", "budget.seeds=1")

    def stop(event: Event) -> None:
        if event.run == stopped and event.record is None:
            worker = next(worker for worker, run in scheduler._running.items() if run == stopped)
            until(lambda: worker.process)
            os.kill(worker.process or 0, signal.SIGSTOP)

    scheduler.watch(stop)
    scheduler.submit([endless, stopped])
    one, other = scheduler.wait([endless, stopped])
    scheduler.close()
    # There is no second attempt, because the timeout is there to save time.
    assert (one.status, one.attempts) == ("timeout", ())
    message = (
        r"it took more than 3 s \(setting `timeout`\).*: it was in .*[( ]\S+\.py:\d+\).*"
        "; its output is in "
    )
    assert re.match(message, one.message)
    assert 'File "peft_methods/runs/pipeline.py"' in one.stack
    assert str(Path.home()) not in one.stack
    assert (other.status, other.stack) == ("timeout", "")
    assert "it did not report its stack (stopped?)" in other.message
    assert {record.stack for record in store.records()[0]} == {one.stack, ""}


def test_timeout_before_a_process_has_started_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its imports are done, the fork server forks nothing."""
    slow = "import time\ntime.sleep(60)\nUNFIT_TO_FORK = False\n"
    (tmp_path / "slow_import.py").write_text(slow, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer("slow_import")
    worker = Worker(server, tmp_path)
    executor = LocalExecutor([DeviceSet()], tmp_path)
    try:
        assert not executor.has_started(worker)
        message = Timeouts(1).message(executor.stacks(worker), started=False)
    finally:
        worker.kill()
        server._end(os.getpid())
    assert message == (
        "it took more than 1 s (setting `timeout`): "
        "its process was still importing its libraries; allow more time"
    )


@pytest.mark.usefixtures("warm")
def test_timeout_ends_the_check_of_a_recipe(
    pytester: pytest.Pytester, tiny_recipe: Path, tmp_path: Path
) -> None:
    data = make_data(tmp_path / "data")
    rows = [f'{{"text": "film number {row}", "label": {row % 2}}}' for row in range(300_000)]
    (data / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    arguments = (
        f"--peft-recipe={tiny_recipe}",
        "--peft-method=lora",
        "--peft-seeds=1",
        f"--peft-data={data}",
        "--peft-timeout=400ms",
    )
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin", *arguments)
    result.assert_outcomes(failed=1)
    assert re.search(
        r"LoRA: timeout: recipe 'tiny' could not be prepared: it took more than 0 s .*: it was in ",
        result.stdout.str(),
    )
    (record,) = Store(Path(".peft/results")).records()[0]
    assert 'File "peft_methods/runs/prepare.py"' in record.stack


def test_stack_dump_works_while_the_interpreter_lock_is_held(tmp_path: Path) -> None:
    code = (
        "import sys, re; from peft_methods.runs.executors.stack_dump import enable_stack_dumps\n"
        "enable_stack_dumps(int(sys.argv[1])); endless = re.compile('(a+)+$')\n"
        "def stuck(): print('now', flush=True); endless.match('a' * 60 + 'b')\n"
        "stuck()"
    )
    with (tmp_path / "stacks").open("w+b") as file:
        command = [sys.executable, "-c", code, str(file.fileno())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[file.fileno()]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.2)
            request_stacks(process.pid, file.fileno())
            process.kill()
        found = with_short_paths(os.pread(file.fileno(), 9999, 0).decode())
    assert innermost_frame(found) == "stuck (<string>:3)"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="only Linux can kill children when their parent ends",
)
@pytest.mark.slow
def test_no_process_survives_a_killed_parent(tiny_recipe: Path, tmp_path: Path) -> None:
    """Kill during the fork server's imports, while preparing, and while training.

    In the last case a standby worker waits, too.
    """
    script = tmp_path / "script.py"
    call = (
        f"compare({str(tiny_recipe)!r}, methods=['lora'], workers=1, "
        "settings=['budget.epochs=2000'], results=sys.argv[1])"
    )
    script.write_text(f"import sys\nfrom peft_methods import compare\n{call}\n", encoding="utf-8")
    moments: dict[str, Callable[[Path, str], bool]] = {
        "importing": lambda results, mark: len(marked_processes(mark)) > 1,
        "preparing": lambda results, mark: (results / "logs" / "tiny-prepare.log").exists(),
        "training": lambda results, mark: (
            bool(list(results.glob("run-*/*/*"))) and len(marked_processes(mark)) > 3
        ),
    }
    for name, has_come in moments.items():
        mark, tmp = uuid.uuid4().hex, tmp_path / name / "tmp"
        tmp.mkdir(parents=True)
        environment = {**os.environ, PROCESS_MARK: mark, "TMPDIR": str(tmp)}
        parent = psutil.Popen(
            [sys.executable, str(script), str(tmp_path / name)],
            env=environment,
            stdout=-3,
            stderr=-3,
        )
        until(lambda has_come=has_come, name=name, mark=mark: has_come(tmp_path / name, mark))  # type: ignore[misc]
        parent.kill()
        parent.wait()
        until(lambda mark=mark: not marked_processes(mark), seconds=5)  # type: ignore[misc]
        assert list(tmp.iterdir()) == [], name


def allow_interrupts() -> None:
    """Restore SIGINT, which background jobs of a shell and their children ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_interrupt_keeps_finished_runs_and_lists_missing_ones(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-W",
        "error",
        "-p",
        "peft_methods.plugin",
        f"--peft-recipe={tiny_recipe}",
    ]
    options = [
        "--peft-method=lora",
        "--peft-seeds=60",
        "--peft-workers=1",
        "--peft-markdown=t.md",
        "--peft-csv=t.csv",
    ]
    mark, results = uuid.uuid4().hex, Path(".peft/results")
    Path("tmp").mkdir()
    environment = {**os.environ, PROCESS_MARK: mark, "TMPDIR": str(Path("tmp").absolute())}
    with Path("out.txt").open("w", encoding="utf-8") as out:
        process = psutil.Popen(
            [*command, *options],
            stdout=out,
            stderr=out,
            preexec_fn=allow_interrupts,
            env=environment,
        )
        until(lambda: "accuracy 0." in Path("out.txt").read_text(encoding="utf-8"))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert marked_processes(mark) == []
    text = Path("out.txt").read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert re.search(r"LoRA +\d", text)
    hint = "The same command continues from here: finished runs are kept in .peft/results."
    missing = re.search(
        r"Not trained, since the session was ended early: LoRA seeds [\d, ]+ "
        r"\((\d+) of 60 runs\)\. "
        rf"{re.escape(hint)}",
        text,
    )
    assert missing is not None
    # One run may have ended just as the table was written.
    assert len(list(results.glob("*.json"))) - (60 - int(missing[1])) in {0, 1}
    assert hint in Path("t.md").read_text(encoding="utf-8").replace("\\", "")
    assert len(Path("t.csv").read_text(encoding="utf-8").splitlines()) == 2
    assert not list(results.glob("run-*"))
    assert list(Path("tmp").iterdir()) == []


def test_second_interrupt_exits_at_once_without_a_broken_file(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from peft_methods.cli.interrupts import Interrupts\n"
        "from peft_methods.utils.files import write_whole\n"
        "interrupts = Interrupts(lambda: print('closed', flush=True))\ninterrupts.install()\n"
        "try:\n    print('up', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    pass\n"
        "while True:\n    write_whole(Path(sys.argv[1]), 'whole' * 10**6)\n"
        "    print('written', flush=True)\n"
    )
    for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)):
        file = tmp_path / "file.md"
        command = [sys.executable, "-c", code, str(file)]
        process = psutil.Popen(
            command, stdout=-1, stderr=-1, text=True, preexec_fn=allow_interrupts
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(first)
        assert process.stdout.readline() == "written\n"
        time.sleep(0.02)
        process.send_signal(second)
        out, error = process.communicate(timeout=20)
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert out.endswith("closed\n")
        assert error == "\npeft-methods: stopped at once. Finished runs are stored.\n"
        assert file.read_text(encoding="utf-8") == "whole" * 10**6


def test_session_with_exitfirst_trains_nothing_after_a_failure(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    fails = (
        "--peft-set=methods.full.learning_rate=1e-9",
        "--peft-set=expect.margin_over_majority=0.3",
    )
    arguments = (
        f"--peft-recipe={tiny_recipe}",
        "--peft-method=full,lora,ia3",
        "--peft-seeds=1",
        "--peft-set=data.train=32",
        "--peft-workers=1",
        "-x",
        *fails,
    )
    saving = "--peft-save-baseline=b.json"
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin", *arguments, saving)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    out = result.stdout.str()
    assert (
        "Not trained, since the session was ended early: LoRA seed 0; IA3 seed 0 (2 of 3 runs)."
        in out
    )
    assert (
        "No regression check was made and no baseline was written: "
        "the session ended before all runs were trained." in out
    )
    assert not Path("b.json").exists()
    assert {
        json.loads(path.read_text(encoding="utf-8"))["spec"]["method"]["name"]
        for path in Path(".peft/results").glob("*.json")
    } == {"full"}


def test_oom_kills_are_read_from_the_cgroup_v1_or_v2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oom, "CGROUPS", tmp_path)
    for file, text in (
        ("memory.events", "low 0\noom 2\noom_kill 5\n"),
        ("memory/memory.oom_control", "under_oom 0\noom_kill 7\n"),
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    memory = [
        line.split(":", 2)[1]
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    ]
    assert oom.out_of_memory_kills() == (
        7 if any("memory" in names.split(",") for names in memory) else 5
    )


def test_record_status_is_oom_after_an_oom_kill(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, counted = Store(tmp_path / "results"), [3]
    store.prepare()
    monkeypatch.setattr(
        "peft_methods.runs.executors.process.out_of_memory_kills", lambda: counted[0]
    )
    scheduler = new_scheduler(store, "cpu", workers=2, retries=0)
    (run,) = runs(tiny_recipe, "lora", "budget.seeds=1")

    def kill(event: Event) -> None:
        if event.record is None and event.news is None:
            (worker,) = scheduler._running
            until(lambda: worker.process)
            counted[0] += 1
            os.kill(worker.process or 0, signal.SIGKILL)

    scheduler.watch(kill)
    scheduler.submit([run])
    (record,) = scheduler.wait([run])
    scheduler.close()
    assert record.status == "oom"
    assert (
        "the kernel killed its process because memory ran out. To fit, run one at a time"
        in record.message
    )


def _wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as caught:
            raise DataError(f"could not be had ({caught})") from None
    except DataError as wrapped:
        return wrapped


def test_may_pass_is_true_for_temporary_errors_only() -> None:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    request = httpx.Request("GET", "http://hub")
    answered = {
        code: HfHubHTTPError("no", response=httpx.Response(code, request=request))
        for code in (404, 429, 503)
    }
    temporary = [
        httpx.ConnectError("refused"),
        ConnectionResetError("reset"),
        TimeoutError("late"),
        answered[429],
        answered[503],
    ]
    temporary += [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ]
    permanent = [
        answered[404],
        OfflineModeIsEnabled("offline"),
        ValueError("shape"),
        FileNotFoundError("gone"),
    ]
    permanent += [RuntimeError("CUDA error: device-side assert triggered"), MemoryError()]
    assert [is_transient(_wrapped(error)) for error in temporary] == [True] * len(temporary)
    assert [is_transient(_wrapped(error)) for error in permanent] == [False] * len(permanent)


def test_table_lists_retried_runs() -> None:
    from peft_methods.analysis.comparison import Comparison
    from peft_methods.report.text.comparison import terminal_table

    record = make_record(attempts=("crashed: its process was killed by SIGKILL (out of memory?)",))
    assert "crashed: its process was killed by SIGKILL (out of memory?)" in terminal_table(
        Comparison((record,))
    )


def test_fork_server_is_replaced_right_after_a_kill(tmp_path: Path) -> None:
    """The server's socket closes before its parent can see that it ended."""
    server = ForkServer(preload="")
    for _ in range(20):
        server.launch()
        assert server._process is not None
        server._process.kill()
        # The worker may have died with the server, like that of a run, which is then retried.
        Worker(server, tmp_path).kill()


def test_fork_server_restarts_without_imports_that_started_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spoiling.py").write_text("UNFIT_TO_FORK = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer("spoiling")
    worker = Worker(server, tmp_path)
    until(lambda: worker.process)
    assert "spoiling is imported by every process separately" in capfd.readouterr().err
    assert server._process is not None
    assert "spoiling" not in psutil.Process(server._process.pid).cmdline()
    worker.kill()


def test_fork_server_is_shared_by_device_sets_with_the_same_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads do not matter, and neither does this process's own CUDA_VISIBLE_DEVICES."""
    on_cpu, on_gpu = fork_server(DeviceSet()), fork_server(DeviceSet(("GPU-1",), threads=2))
    assert on_cpu is not on_gpu
    assert fork_server(DeviceSet(("GPU-2",))) is not on_gpu
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2")
    assert fork_server(DeviceSet((), threads=7)) is on_cpu
    assert fork_server(DeviceSet(("GPU-1",))) is on_gpu
    assert on_gpu._environment == {"CUDA_VISIBLE_DEVICES": "GPU-1"}


def test_answered_by_nvml_restores_torch_and_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from peft_methods.runs.executors import warm_imports

    asked, environment = torch.cuda.get_device_capability, dict(os.environ)
    monkeypatch.setattr(warm_imports.nvml, "compute_capability", lambda: (9, 0))
    with warm_imports.answered_by_nvml():
        assert torch.cuda.get_device_capability(0) == (9, 0)
        assert os.environ[warm_imports.NVML_ANSWERS] == "1"
    assert torch.cuda.get_device_capability is asked
    assert dict(os.environ) == environment


def test_garbage_is_collected_again_after_the_imports() -> None:
    from peft_methods.runs.executors import warm_imports  # noqa: F401

    assert gc.isenabled()
    assert gc.get_freeze_count()


def test_compiler_caches_exist_in_the_installed_torch() -> None:
    """If torch renamed one of them, every run on a GPU would silently start more slowly."""
    from peft_methods.runs.executors import warm_imports

    for module, name in warm_imports.COMPILER_CACHES:
        if name != "triton_key" or importlib.util.find_spec("triton"):
            assert callable(getattr(importlib.import_module(module), name))


def test_redirect_output_drops_output_if_the_log_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path\n"
        "from peft_methods.runs.executors.logs import redirect_output\n"
        "redirect_output(Path(sys.argv[1]))\nprint('text')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "logs" / "a.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_redirect_output_drops_lines_if_the_log_is_full() -> None:
    code = (
        "import sys, traceback; from pathlib import Path\n"
        "from peft_methods.runs.executors.logs import redirect_output\n"
        "redirect_output(Path('/dev/full'))\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
        "print('text', flush=True)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
