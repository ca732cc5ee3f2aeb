"""The example of a package that brings a method: it appears everywhere without a change here."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from wheel_builders import make_wheel, unpack

import peft_methods
from peft_methods.methods.registry import GROUP, Registry

ROOT = Path(peft_methods.__file__).parent.parent
EXAMPLE = ROOT / "examples" / "method_package"
SCRIPT = """
import sys
from peft_methods.__main__ import main
from peft_methods.api import compare
from peft_methods.methods.registry import METHODS

if __name__ == "__main__":
    recipe, folder = sys.argv[1:]
    main(["methods"])
    done = compare(
        recipe, methods=["query*", "full"], seeds=1, results=f"{folder}/results",
        report=f"{folder}/report", progress=False,
    )
    print(done.table())
    for record in done.records:
        found = record.evidence
        print(record.method_name, record.status, found.expected_trainable, found.frozen_changed)
    print(METHODS.recognize("Query Tuning (ours)"))
"""


def unpacked(folder: Path) -> Path:
    """Put the example where pip would put it."""
    declared = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = declared["tool"]["setuptools"]["py-modules"]
    points = declared["project"]["entry-points"][GROUP]
    lines = "\n".join(f"{name} = {where}" for name, where in points.items())
    code = (EXAMPLE / f"{module}.py").read_text(encoding="utf-8")
    unpack(make_wheel(folder, module, code, lines), folder / "site")
    return folder / "site"


def test_the_example_is_one_of_its_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(unpacked(tmp_path))
    found = Registry()
    assert found.problems == ()
    assert found.info("query_tuning").family == "selective"  # type: ignore[union-attr]
    assert found.recognize("Query Tuning (ours)") == "query_tuning"


@pytest.mark.slow
def test_the_example_is_listed_trained_and_reported(tmp_path: Path, tiny_recipe: Path) -> None:
    site = unpacked(tmp_path)
    (tmp_path / "run.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tiny_recipe), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{site}:{ROOT}", "PATH": "", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("Query tuning" in line for line in lines) >= 2  # in both lists
    assert f"query_tuning ok {2 * 32 * 32} " in done.stdout
    assert lines[-1] == "query_tuning"
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Query tuning" in page
