"""Output where the encoding lacks characters: readable, and in lines."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peft_methods.cli.encoding import make_printable

ROOT = Path(__file__).parents[2]


def printed(text: str, encoding: str) -> str:
    """Write a text to a stream of this encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    make_printable(stream)
    stream.write(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "0.91 +- 0.02\n- -> \\u03b2"),
        ("latin-1", "0.91 ± 0.02\n- -> \\u03b2"),
        ("utf-8", "0.91 ± 0.02\n– → β"),
    ],
)
def test_characters_outside_the_encoding_become_plain(encoding: str, expected: str) -> None:
    assert printed("0.91 ± 0.02\n– → β", encoding) == expected


def test_other_streams_are_left_alone() -> None:
    stream = io.StringIO()
    make_printable(stream)
    stream.write("→")
    assert stream.getvalue() == "→"


def test_table_in_ascii_has_lines(pytester: pytest.Pytester, tiny_recipe: Path) -> None:
    pytester.makepyfile("def test_it(finetune): finetune()")
    command = ["-m", "pytest", "-p", "peft_methods.plugin", f"--peft-recipe={tiny_recipe}"]
    chosen = ["--peft-method=lora", "--peft-set=gpu=true", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, *command, *chosen],
        env={
            **os.environ,
            "PYTHONIOENCODING": "ascii",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        check=False,
    )
    out = done.stdout.decode("ascii")
    assert done.returncode == 0, out
    assert "LoRA: skipped: recipe 'tiny' needs an NVIDIA GPU" in out
    assert "\\n" not in out
    assert "\\u2013" not in out


def test_command_prints_in_ascii() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "peft_methods", "explain", "V104"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Evidence, with ... for the values found:\n" in done.stdout
