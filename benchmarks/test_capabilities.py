"""The benchmark of the capability matrix. Run `pytest benchmarks/test_capabilities.py -m harness`.

`PEFT_METHODS_CAPABILITIES` has more options of `peft-methods capabilities run`, such as "--method
lora --family bert,llama" for a part of the matrix, or "--workers 8".
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.harness
def test_capability_matrix(benchmark: Any, tmp_path: Path) -> None:
    """Measure the whole matrix and how long it takes. The benchmark's JSON stores its cells."""
    path = tmp_path / "matrix.json"
    command = [sys.executable, "-m", "peft_methods", "capabilities", "run", "--file", str(path)]
    command += shlex.split(os.environ.get("PEFT_METHODS_CAPABILITIES", ""))
    done = benchmark.pedantic(subprocess.run, args=(command,), rounds=1)
    assert path.exists(), f"nothing was measured (exit code {done.returncode}): see the lines above"
    from peft_methods.capabilities.matrix import Matrix

    found = Counter(result.status for result in Matrix.read(path).results.values())
    benchmark.extra_info.update(json.loads(path.read_text(encoding="utf-8")), statuses=found)
    print(", ".join(f"{count:,} {status}" for status, count in found.items()))
    assert done.returncode == 0, "a check failed: see the lines above"
