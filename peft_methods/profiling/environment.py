"""The environment of a run: packages, Python, processor or GPU, and the commit of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from peft_methods.profiling.nvml import driver_version, visible_gpus
from peft_methods.utils.errors import DataError, first_line

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "scikit-learn",
    "numpy",
    "peft-methods",
)
# What CUDA_VISIBLE_DEVICES begins with where no GPU is visible; CUDA ignores what follows.
NOTHING = {"", "-1", "NoDevFiles"}
FINGERPRINT_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
OPTIONAL_PACKAGES = ("torchao",)  # of an extra, with formats of frozen weights


def usable_cores() -> int:
    """Return the number of cores this process may use. A container often allows only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_versions() -> dict[str, str | None]:
    """Return the installed versions; None for a package that is not installed.

    Those of extras are left out then.
    """
    found = {name: package_version(name) for name in PACKAGES}
    optional = {name: package_version(name) for name in OPTIONAL_PACKAGES}
    return found | {name: version for name, version in optional.items() if version}


def package_version(name: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Return the CPU's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def source_state() -> dict[str, Any]:
    """Return the working directory's commit, and whether tracked files differ from it.

    Both are None outside a repository.
    """
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None else bool(changed)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find_device() -> str:
    """Return 'cuda' if this process may use an NVIDIA GPU, else 'cpu'.

    This does not import torch, which takes seconds.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if (package_version("torch") or "").endswith("+cpu") or (
        visible is not None and visible.split(",")[0].strip() in NOTHING
    ):
        return "cpu"
    return "cuda" if visible_gpus() else "cpu"


def check_device(device: str) -> None:
    """Raise `DataError` if torch cannot use the GPU that the driver shows.

    The message has torch's reason and the possible fixes.
    """
    if not device.startswith("cuda"):
        return
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise DataError(
            f"the driver shows a GPU, but torch {torch.__version__} cannot use it: "
            f"{first_line(error)} (CUDA_VISIBLE_DEVICES={visible!r}). Update the driver, install "
            f"a torch built for its CUDA version, select a GPU that exists, or run on the CPU with "
            f"CUDA_VISIBLE_DEVICES= (empty)."
        ) from None


def describe(device: str) -> dict[str, Any]:
    """Return the environment of a run on this device, as JSON values."""
    import torch

    name, threads = processor_name(), torch.get_num_threads()
    cuda = driver = None
    if device.startswith("cuda"):
        name, cuda = torch.cuda.get_device_name(), torch.version.cuda
        driver = driver_version()
    return {
        "device": device,
        "device_name": name,
        "cuda": cuda,
        "driver": driver,
        "threads": threads,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(),
        "source": source_state(),
    }


def fingerprint_part(environment: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the environment that a run's fingerprint includes.

    It is the device name, the number of threads, and the versions of `FINGERPRINT_PACKAGES` and
    of those of `OPTIONAL_PACKAGES` that are installed.
    """
    found = environment["packages"]
    packages = {name: found.get(name) for name in FINGERPRINT_PACKAGES}
    packages |= {name: found[name] for name in OPTIONAL_PACKAGES if found.get(name)}
    return {
        "device_name": environment["device_name"],
        "threads": environment["threads"],
        "packages": packages,
    }
