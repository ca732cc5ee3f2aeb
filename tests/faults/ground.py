"""pytest sessions in separate processes that share a store, and checks of that store.

The checks must hold after any fault.
"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

import peft_methods
from builders import PROCESS_MARK, marked_processes, restore_sigint
from peft_methods.api import compare
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.text.csv_table import csv_table
from peft_methods.runs.record import Record
from peft_methods.runs.store import SET_ASIDE, Store

METHODS = ("head_only", "lora", "adapter_fusion")
# With twenty rows little is learnt, and other processes may use the machine.
SILENCED = "V204,V208,V301,V408,V411"
TIMEOUT_SECONDS = 300


class Ledger:
    """Counts of faults and lost results, by kind of fault."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    def lines(self) -> list[str]:
        """Format one line per kind, then the totals."""
        kinds = [
            f"{kind}: {count} faults, {self.lost[kind]} results lost"
            for kind, count in self.faults.items()
        ]
        return [*kinds, f"{self.faults.total()} faults, {self.lost.total()} results lost"]


def exact(record: Record) -> dict[str, Any]:
    """Select the values that must be identical in every run.

    These are all except times, memory and details about attempts.
    """
    figures = {
        name: value
        for name, value in record.metrics.items()
        if not METRICS[name].device_dependent and name != "busy_share"
    }
    curve = [
        {name: epoch[name] for name in ("train_loss", "validation_loss", "validation_accuracy")}
        for epoch in record.epochs
    ]
    return {
        "files": record.files,
        "figures": figures,
        "curve": curve,
        "best": record.best_epoch,
        "quality": record.quality,
    }


def totals(table: str) -> list[dict[str, str]]:
    """Read a CSV table without the columns that depend on the device."""
    timed = {
        f"{name}{end}"
        for name, metric in METRICS.items()
        if metric.device_dependent
        for end in ("", "_sd")
    }
    not_compared = timed | {"busy_share", "busy_share_sd", "on_front"}
    return [
        {name: value for name, value in row.items() if name not in not_compared}
        for row in csv.DictReader(io.StringIO(table))
    ]


@cache
def undisturbed(
    site: Path, methods: Sequence[str], seeds: int
) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """Return the results without faults: by fingerprint, and as rows of the table."""
    folder = site / f"undisturbed-{'-'.join(methods)}-{seeds}"
    comparison = compare(
        str(site / "r.toml"),
        methods=methods,
        seeds=seeds,
        workers=2,
        results=folder,
        progress=False,
    )
    assert [record.status for record in comparison.records] == ["ok"] * len(comparison.records)
    return {record.fingerprint: exact(record) for record in Store(folder).records()[0]}, totals(
        csv_table(comparison)
    )


class Run:
    """A pytest session in a separate process session."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.mark, self.tmp = uuid.uuid4().hex, folder / "tmp"
        self.tmp.mkdir(parents=True)
        self._out = folder / "out.txt"
        with self._out.open("wb") as out:
            self.parent = psutil.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=restore_sigint,
                env={**os.environ, **environment, PROCESS_MARK: self.mark, "TMPDIR": str(self.tmp)},
            )

    @property
    def text(self) -> str:
        """The session's output so far."""
        return self._out.read_text(encoding="utf-8")

    def children(self, *, server: bool = False) -> list[psutil.Process]:
        """Return the processes of runs and the standby worker, or else the fork server."""
        try:
            servers = self.parent.children()
            return servers if server else [child for one in servers for child in one.children()]
        except psutil.Error:
            return []

    def until(self, true: Callable[[], Any]) -> bool:
        """Wait for a condition while the session lives; whether it became true."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while self.parent.poll() is None:
            if true():
                return True
            assert time.monotonic() < end, f"timed out:\n{self.text}"
            time.sleep(0.01)
        return bool(true())

    def end(self, *, kept: Sequence[str] = ()) -> int:
        """Wait for the session to end and return its exit code.

        No process may be left, and of temporary files exactly those `kept`.
        """
        code = int(self.parent.wait(TIMEOUT_SECONDS))
        end = time.monotonic() + 10
        while marked_processes(self.mark):
            assert time.monotonic() < end, f"processes left: {marked_processes(self.mark)}"
            time.sleep(0.05)
        assert sorted(path.name for path in self.tmp.iterdir()) == sorted(kept)
        return code


class Ground:
    """A store for sessions with the same runs that faults disturb.

    It checks which finished results are lost, and whether a final session completes the rest.
    """

    def __init__(
        self,
        site: Path,
        folder: Path,
        ledger: Ledger,
        *,
        methods: tuple[str, ...] = METHODS,
        seeds: int = 5,
        store: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.site, self.folder, self.ledger, self.options = site, folder, ledger, options
        self.methods, self.seeds = methods, seeds
        self.store = Store(store or folder / "results")
        self.folder.mkdir()
        self._runs = 0

    def start(
        self, *options: str, seeds: str = "", before: Sequence[str] = (), **environment: str
    ) -> Run:
        """Start a session with all runs, or with those of some seeds."""
        self._runs += 1
        command = [
            *before,
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "peft_methods.plugin",
            str(self.site),
        ]
        chosen = [
            f"--peft-recipe={self.site / 'r.toml'}",
            f"--peft-method={','.join(self.methods)}",
            f"--peft-silence={SILENCED}",
        ]
        chosen += [
            f"--peft-seeds={seeds or self.seeds}",
            "--peft-workers=2",
            f"--peft-results={self.store.folder}",
        ]
        root = str(Path(peft_methods.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (environment.pop("PYTHONPATH", ""), root)))
        places = {"PYTHONPATH": path, "XDG_CACHE_HOME": str(self.site / "cache")} | environment
        return Run(
            [*command, *chosen, *self.options, *options], self.folder / f"run{self._runs}", places
        )

    def finished(self) -> dict[str, bytes]:
        """Read every file of the finished runs.

        Their number is reliable only while nothing is written.
        """
        found = {}
        for path in self.store.folder.glob("*.json"):
            record = self.store.find(path.stem)
            if record is not None and record.status == "ok":
                for end in (".json", *record.files):
                    file = self.store.folder / f"{record.fingerprint}{end}"
                    found[file.name] = file.read_bytes()
        return found

    def count(self, kind: str, before: dict[str, bytes], faults: int = 1) -> None:
        """Count faults and lost results.

        No file that was finished `before` may be missing or changed.
        """
        lost = [
            name
            for name, content in before.items()
            if _content(self.store.folder / name) != content
        ]
        self.ledger.faults[kind] += faults
        self.ledger.lost[kind] += sum(name.endswith(".json") for name in lost) or len(lost)
        assert not lost, f"{kind}: {lost}"
        for record in (found := self.store.records())[0]:
            assert self.store.damage(record) == ""
        assert found[1] == [], "unreadable file under its final name"

    def complete(self, kind: str, *, kept: Sequence[str] = (), **environment: str) -> Run:
        """Run a final session that trains only what is missing.

        It must succeed and leave no temporary file but those `kept`, and its results must equal
        the undisturbed ones.
        """
        before = self.finished()
        table = self.folder / "last.csv"
        run = self.start(f"--peft-csv={table}", **environment)
        code = run.end(kept=kept)
        assert code == 0, run.text
        self.count(kind, before, faults=0)
        runs, rows = undisturbed(self.site, self.methods, self.seeds)
        records = {
            record.fingerprint: record
            for record in self.store.records()[0]
            if record.status == "ok"
        }
        wrong = [
            name
            for name, figures in runs.items()
            if name not in records or exact(records[name]) != figures
        ]
        self.ledger.lost[kind] += len(wrong)
        assert not wrong
        assert totals(table.read_text(encoding="utf-8")) == rows
        there = sum(name.endswith(".json") for name in before)
        trained = re.findall(
            r"^\[\d+/\d+[^\]]*\] \S+: (?:validation )?accuracy", run.text, re.MULTILINE
        )
        assert len(trained) == len(runs) - there
        left = [
            path.name
            for path in self.store.folder.iterdir()
            if path.suffix not in {".json", ".npz", ".safetensors"}
        ]
        assert set(left) <= {"logs", "checkpoints", SET_ASIDE, "lost+found"}, left
        assert list((self.store.folder / "checkpoints").glob("*/*")) == []
        assert "Traceback" not in run.text
        return run


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
