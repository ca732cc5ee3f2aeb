"""Hangs, kills and interrupts, for real: what they cost, what is said of them, and that nothing is left behind."""

from __future__ import annotations

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
from test_execution import cells
from test_plugin import BENCHMARK

from conftest import make_data
from peft_methods.errors import DataError, may_pass
from peft_methods.execution import kills
from peft_methods.execution.events import Event
from peft_methods.execution.local import LocalExecutor
from peft_methods.execution.processes import ForkServer, Worker, fork_server
from peft_methods.execution.stacks import ask_for_stacks, innermost, shortened
from peft_methods.store import Store

MARK = "PEFT_METHODS_TEST"


def until(true: Callable[[], Any], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def living(mark: str) -> list[psutil.Process]:
    """Every process that was born with this mark in its environment, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


@pytest.fixture
def warm(tmp_path: Path) -> None:
    """The process that others are forked from has done its imports, so that no test's time goes there."""
    worker = Worker(fork_server(), tmp_path)
    until(lambda: worker.process)
    worker.kill()


def test_a_process_that_has_just_ended_is_no_error_to_end(tmp_path: Path) -> None:
    """Its end is told a moment after it: until then it seems to live."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for act in (Worker.stacks, Worker.kill):
        worker = Worker(fork_server(), tmp_path)
        until(lambda worker=worker: worker.process is not None)
        worker._process = gone.pid
        act(worker)
        worker.kill()


@pytest.mark.usefixtures("warm")
def test_a_cell_without_end_is_ended_with_its_stack_and_a_stopped_one_without(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    executor = LocalExecutor(store, "cpu", workers=2, threads=1, timeout=3, retries=1)
    (endless,) = cells(tiny_recipe, "lora", "budget.seeds=1", "budget.epochs=100000")
    (stopped,) = cells(tiny_recipe, "full", "budget.seeds=1")

    def stop(event: Event) -> None:
        if event.cell == stopped and event.record is None:
            worker = next(worker for worker, cell in executor._running.items() if cell == stopped)
            until(lambda: worker.process)
            os.kill(worker.process or 0, signal.SIGSTOP)

    executor.watch(stop)
    executor.submit([endless, stopped])
    one, other = executor.wait([endless, stopped])
    executor.close()
    assert (one.status, one.attempts) == (
        "timeout",
        (),
    )  # time is what was to be saved: no second attempt
    said = r"it took more than 3 s \(--peft-timeout\).*: it was in .*[( ]\S+\.py:\d+\).*; its output is in "
    assert re.match(said, one.message)
    assert 'File "peft_methods/runner.py"' in one.stack
    assert str(Path.home()) not in one.stack
    assert (other.status, other.stack) == ("timeout", "")
    assert "it did not answer when asked for its stack" in other.message
    assert {record.stack for record in store.records()[0]} == {one.stack, ""}


@pytest.mark.usefixtures("warm")
def test_preparing_that_takes_too_long_is_ended_too(
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
    assert 'File "peft_methods/starting.py"' in record.stack


def test_a_process_that_never_lets_go_of_python_still_tells_where_it_is(tmp_path: Path) -> None:
    code = (
        "import sys, re; from peft_methods.execution.stacks import answer_for_stacks; answer_for_stacks(int(sys.argv[1]))\n"
        "endless = re.compile('(a+)+$')\ndef stuck(): print('now', flush=True); endless.match('a' * 60 + 'b')\n"
        "stuck()"
    )
    with (tmp_path / "stacks").open("w+b") as file:
        command = [sys.executable, "-c", code, str(file.fileno())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[file.fileno()]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.2)
            ask_for_stacks(process.pid, file.fileno())
            process.kill()
        found = shortened(os.pread(file.fileno(), 9999, 0).decode())
    assert innermost(found) == "stuck (<string>:3)"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="elsewhere the kernel does not tell children of their parent's end",
)
def test_nothing_outlives_a_killed_parent_whenever_it_is_killed(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """Amid the imports of the process that forks, amid preparing, and amid training with the next process waiting."""
    script = tmp_path / "script.py"
    call = f"compare({str(tiny_recipe)!r}, methods=['lora'], workers=1, settings=['budget.epochs=2000'], results=sys.argv[1])"
    script.write_text(f"import sys\nfrom peft_methods import compare\n{call}\n", encoding="utf-8")
    moments: dict[str, Callable[[Path, str], bool]] = {
        "importing": lambda results, mark: len(living(mark)) > 1,
        "preparing": lambda results, mark: (results / "logs" / "tiny-prepare.log").exists(),
        "training": lambda results, mark: (
            bool(list(results.glob("run-*/*/*"))) and len(living(mark)) > 3
        ),
    }
    for name, has_come in moments.items():
        mark, tmp = uuid.uuid4().hex, tmp_path / name / "tmp"
        tmp.mkdir(parents=True)
        environment = {**os.environ, MARK: mark, "TMPDIR": str(tmp)}
        parent = psutil.Popen(
            [sys.executable, str(script), str(tmp_path / name)],
            env=environment,
            stdout=-3,
            stderr=-3,
        )
        until(lambda has_come=has_come, name=name, mark=mark: has_come(tmp_path / name, mark))  # type: ignore[misc]
        parent.kill()
        parent.wait()
        until(lambda mark=mark: not living(mark), seconds=5)  # type: ignore[misc]
        assert list(tmp.iterdir()) == [], name


def heed_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupt_keeps_what_is_finished_and_says_what_is_missing(
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
    environment = {**os.environ, MARK: mark, "TMPDIR": str(Path("tmp").absolute())}
    with Path("out.txt").open("w", encoding="utf-8") as out:
        process = psutil.Popen(
            [*command, *options],
            stdout=out,
            stderr=out,
            preexec_fn=heed_interrupts,
            env=environment,
        )
        until(lambda: "accuracy 0." in Path("out.txt").read_text(encoding="utf-8"))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == pytest.ExitCode.INTERRUPTED
    assert living(mark) == []
    text = Path("out.txt").read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert re.search(r"LoRA +\d", text)
    said = "The same command goes on from here: what has ended is kept in .peft/results."
    missing = re.search(
        rf"Not trained, as the run was ended before: LoRA seeds [\d, ]+ \((\d+) of 60 cells\)\. {re.escape(said)}",
        text,
    )
    assert missing is not None
    assert len(list(results.glob("*.json"))) - (60 - int(missing[1])) in {
        0,
        1,
    }  # one may have ended in that very moment
    assert said in Path("t.md").read_text(encoding="utf-8").replace("\\", "")
    assert len(Path("t.csv").read_text(encoding="utf-8").splitlines()) == 2
    assert not list(results.glob("run-*"))
    assert list(Path("tmp").iterdir()) == []


def test_a_second_interrupt_leaves_at_once_without_a_broken_file(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom peft_methods.interrupts import Interrupts\n"
        "from peft_methods.store import write_whole\n"
        "interrupts = Interrupts(lambda: print('closed', flush=True))\ninterrupts.heed()\n"
        "try:\n    print('up', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    pass\n"
        "while True:\n    write_whole(Path(sys.argv[1]), 'whole' * 10**6)\n    print('written', flush=True)\n"
    )
    for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)):
        file = tmp_path / "file.md"
        command = [sys.executable, "-c", code, str(file)]
        process = psutil.Popen(command, stdout=-1, stderr=-1, text=True, preexec_fn=heed_interrupts)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(first)
        assert process.stdout.readline() == "written\n"
        time.sleep(0.02)
        process.send_signal(second)
        out, error = process.communicate(timeout=20)
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert out.endswith("closed\n")
        assert (
            error
            == "\npeft-methods: stopped at once, without a table; the cells that have ended are kept.\n"
        )
        assert file.read_text(encoding="utf-8") == "whole" * 10**6


def test_a_run_that_ends_at_its_first_failure_trains_no_more(
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
        "Not trained, as the run was ended before: LoRA seed 0; IA3 seed 0 (2 of 3 cells)." in out
    )
    assert (
        "No regression check was made and no baseline was written: "
        "the session ended before all runs were trained."
        in out
    )
    assert not Path("b.json").exists()
    assert {
        json.loads(path.read_text(encoding="utf-8"))["cell"]["method"]["name"]
        for path in Path(".peft/results").glob("*.json")
    } == {"full"}


def test_why_the_kernel_killed_is_counted_where_it_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "CGROUPS", tmp_path)
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
    assert kills.out_of_memory_kills() == (
        7 if any("memory" in names.split(",") for names in memory) else 5
    )


def test_a_kill_by_the_kernel_for_memory_is_out_of_memory(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, counted = Store(tmp_path / "results"), [3]
    store.prepare()
    monkeypatch.setattr("peft_methods.execution.processes.out_of_memory_kills", lambda: counted[0])
    executor = LocalExecutor(store, "cpu", workers=1, threads=1, retries=0)
    (cell,) = cells(tiny_recipe, "lora", "budget.seeds=1")

    def kill(event: Event) -> None:
        if event.record is None and event.news is None:
            (worker,) = executor._running
            until(lambda: worker.process)
            counted[0] += 1
            os.kill(worker.process or 0, signal.SIGKILL)

    executor.watch(kill)
    executor.submit([cell])
    (record,) = executor.wait([cell])
    executor.close()
    assert record.status == "oom"
    assert (
        "the kernel killed its process because memory ran out. What would fit: fewer cells side by side"
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


def test_only_what_can_pass_is_tried_again() -> None:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    request = httpx.Request("GET", "http://hub")
    answered = {
        code: HfHubHTTPError("no", response=httpx.Response(code, request=request))
        for code in (404, 429, 503)
    }
    passing = [
        httpx.ConnectError("refused"),
        ConnectionResetError("reset"),
        TimeoutError("late"),
        answered[429],
        answered[503],
    ]
    passing += [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ]
    lasting = [
        answered[404],
        OfflineModeIsEnabled("offline"),
        ValueError("shape"),
        FileNotFoundError("gone"),
    ]
    lasting += [RuntimeError("CUDA error: device-side assert triggered"), MemoryError()]
    assert [may_pass(_wrapped(error)) for error in passing] == [True] * len(passing)
    assert [may_pass(_wrapped(error)) for error in lasting] == [False] * len(lasting)


def test_what_was_tried_again_is_said_under_the_table() -> None:
    from test_records_and_validity import make_record

    from peft_methods.comparing import Comparison
    from peft_methods.report.table import terminal_table

    record = make_record(attempts=("crashed: its process was killed by SIGKILL (out of memory?)",))
    assert (
        "LoRA seed 0: attempt 2; before: crashed: its process was killed by SIGKILL (out of memory?)"
        in terminal_table(Comparison((record,)))
    )


def test_a_server_that_was_killed_just_now_is_replaced(tmp_path: Path) -> None:
    """Its socket closes before its parent can see that it ended."""
    server = ForkServer(preload="")
    for _ in range(20):
        server.launch()
        assert server._process is not None
        server._process.kill()
        Worker(
            server, tmp_path
        ).kill()  # it may have died with the server, as a cell's does that is tried again then


def test_a_server_whose_imports_started_cuda_forks_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spoiling.py").write_text("UNFIT_TO_FORK = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer("spoiling")
    worker = Worker(server, tmp_path)
    until(lambda: worker.process)
    assert "spoiling is imported in every process anew" in capfd.readouterr().err
    assert server._process is not None
    assert "spoiling" not in psutil.Process(server._process.pid).cmdline()
    worker.kill()


def test_what_is_shared_fits_the_gpus_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = fork_server()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert fork_server() is not before
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert fork_server() is before


def test_imports_are_answered_without_cuda_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from peft_methods.execution import preload

    asked, environment = torch.cuda.get_device_capability, dict(os.environ)
    monkeypatch.setattr(preload.nvml, "compute_capability", lambda: (9, 0))
    with preload.answered_by_nvml():
        assert torch.cuda.get_device_capability(0) == (9, 0)
        assert os.environ[preload.NVML_ANSWERS] == "1"
    assert torch.cuda.get_device_capability is asked
    assert dict(os.environ) == environment


def test_what_the_compiler_has_of_its_own_is_there_to_be_loaded_once() -> None:
    """A name that torch gave up would silently cost every cell on a GPU what is spared now."""
    from peft_methods.execution import preload

    for module, name in preload.COMPILERS_OWN:
        if name != "triton_key" or importlib.util.find_spec("triton"):
            assert callable(getattr(importlib.import_module(module), name))


def test_a_cell_whose_log_cannot_be_opened_runs_without(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from peft_methods.execution.output import redirect_output\n"
        "redirect_output(Path(sys.argv[1]))\nprint('said')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "logs" / "a.log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_log_that_can_grow_no_more_costs_its_lines_alone() -> None:
    code = (
        "import sys, traceback; from pathlib import Path; from peft_methods.execution.output import redirect_output\n"
        "redirect_output(Path('/dev/full'))\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
        "print('said', flush=True)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
