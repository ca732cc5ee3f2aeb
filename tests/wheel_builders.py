"""Wheels made by hand: packages that bring methods or tasks of their own."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def make_wheel(
    folder: Path, name: str, module: str, points: str, group: str = "peft_methods.methods"
) -> Path:
    """Write a wheel with one module and the entry points of a group."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{info}/entry_points.txt": f"[{group}]\n{points}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


def install(wheel: Path, target: Path) -> None:
    """Install a wheel into a folder, with pip and without a network."""
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, f"--target={target}", str(wheel)], check=True)


def unpack(wheel: Path, target: Path) -> None:
    """Put a wheel's files where pip would put them."""
    zipfile.ZipFile(wheel).extractall(target)
