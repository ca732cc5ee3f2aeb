"""`peft-methods capabilities`: what it shows, what it measures, and one line for each mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_methods.__main__ import main
from peft_methods.capabilities.cells import CHECKS, Cell, Result
from peft_methods.capabilities.matrix import Matrix, key_of

BERT = Cell("lora", "bert", "text_classification")
LLAMA = Cell("lora", "llama", "causal_lm", "bf16")
RESULTS = {
    BERT: Result(tuple(CHECKS)),
    LLAMA: Result(("count",), {"merge": "outputs differ by 3"}),
    Cell("bitfit", "t5", "text_classification"): Result(reason="BitFit trains biases"),
}
REFUSING = """
import os
from dataclasses import dataclass, replace

from peft_methods.methods.selective.bitfit import BitFit


@dataclass(frozen=True, kw_only=True)
class Crashing(BitFit):
    info = replace(BitFit.info, name="crashing", aliases="crashing")

    def apply(self, model, context):
        print("about to crash", flush=True)
        os._exit(7)


@dataclass(frozen=True, kw_only=True)
class Biases(BitFit):
    info = replace(BitFit.info, name="biases", aliases="biases")
"""


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".peft" / "capabilities" / "cpu.json"
    environment = {"device": "cpu", "device_name": "a processor", "packages": {"torch": "2.13"}}
    Matrix(environment, RESULTS).write(path)
    return path


def test_matrix_is_shown_with_what_failed(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capabilities"]) == 0
    out = capsys.readouterr().out
    (lora,) = [line.split() for line in out.splitlines() if line.startswith("lora ")][:1]
    assert lora[:2] == ["lora", "✓"]
    assert set(lora[2:]) == {"–"}
    assert "lora/llama/causal_lm/bf16/plain: the merged model gives the same predictions" in out
    assert "2 combinations tested: 1 pass, 1 fail" in out
    assert "a processor (cpu), torch 2.13" in out
    assert "3 of these combinations were measured with other code or other versions" in out
    assert max(map(len, out.split("\n\n")[0].splitlines())) <= 100
    assert "BitFit trains biases" not in out


def test_selection_shows_a_part_and_the_reasons(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["capabilities", "--method", "bitfit,lora", "--family=t5,llama"]) == 0
    out = capsys.readouterr().out
    assert "bitfit on t5: BitFit trains biases" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[2:4]}
    assert rows == {"bitfit": ["–", "no"], "lora": ["FAIL", "–"]}
    assert main(["capabilities", "--method=lora", "--task", "text_classification"]) == 0
    assert "1 combinations tested: 1 pass, 0 fail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--method", "lroa"], "unknown method 'lroa'. Did you mean '", 4),
        (["--method", "x*"], "no method has a name like 'x*'", 4),
        (["--family", "brt"], "unknown family 'brt'. Did you mean 'bert'? Allowed: bert,", 4),
        (["--task", "regresion"], "unknown task 'regresion'. Did you mean 'regression'?", 4),
        (["--method", "lora,"], "has an empty name", 4),
        (["run", "--workers", "0"], "--workers '0' should be a whole number of 1 or more", 4),
        (["run", "--limit", "5"], "--limit '5' should be a time above 0 with its unit", 4),
        (["--file", "gone.json"], "gone.json does not exist: no matrix has been measured", 2),
        (["run", "--file", "bad.json"], "bad.json is no capability matrix, or damaged", 2),
    ],
)
def test_mistake_is_one_line(
    arguments: list[str],
    message: str,
    code: int,
    stored: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("bad.json").write_text("{", encoding="utf-8")
    assert main(["capabilities", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_stored_matrix_of_the_package_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["capabilities", "--method", "lora"]) == 0
    assert "combinations tested" in capsys.readouterr().out


@pytest.mark.slow
def test_crash_costs_one_cell_and_methods_of_other_packages_are_measured(tmp_path: Path) -> None:
    (tmp_path / "refusing.py").write_text(REFUSING, encoding="utf-8")
    info = tmp_path / "refusing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refusing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[peft_methods.methods]\ncrashing = refusing:Crashing\nbiases = refusing:Biases\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "peft_methods", "capabilities", "run", "--workers=1"),
                *("--method", "crashing,biases", "--family", "bert"),
                *("--task", "text_classification", "--file", "found.json"),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    done = run()
    assert done.returncode == 1, done.stderr
    results = Matrix.read(tmp_path / "found.json").results
    statuses = {cell.method: result.status for cell, result in results.items()}
    assert statuses == {"crashing": "failed", "biases": "passed"}
    crashed = next(result for cell, result in results.items() if cell.method == "crashing")
    assert crashed.failed == {"trains": "the process ended with exit code 7: about to crash"}
    assert "0 to measure" in run().stderr


def test_known_results_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft_methods.capabilities import session
    from peft_methods.capabilities.selection import Selection

    cells = [
        Cell("lora", "bert", "text_classification", precision, checkpointing)
        for precision in ("fp32", "bf16")
        for checkpointing in (False, True)
    ]
    path, said = tmp_path / "cpu.json", list[str]()
    Matrix({}, {cell: Result(("count",), key=key_of(cell)) for cell in cells}).write(path)
    whole = session.Session(Selection(), session.Options(), path, said.append)
    assert whole._is_known(Result(("count",)))
    assert not whole._is_known(Result(("engines",))), "the other checks are missing"
    monkeypatch.setattr(session, "Measuring", None)  # no process may be needed
    selection = Selection(("lora",), ("bert",), ("text_classification",))
    found = session.Session(selection, session.Options(), path, said.append).run()
    assert set(found.results) == set(cells)
    assert said[0].endswith("0 to measure")
