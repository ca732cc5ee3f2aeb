"""What a node is. Ray sends this module's source to nodes, which may have another version of it.

So it imports only the standard library, and pynvml where there is one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import socket
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What a node is: its name, the versions of packages, and its kind of GPU or CPU.

    `code` is the hash of this package's source: a version alone does not tell two commits apart.
    """

    name: str
    versions: dict[str, str | None]
    code: str
    gpus: tuple[str, ...]
    cpu: str

    @property
    def kind(self) -> str:
        """The node's kind of GPU with its memory, or its CPU's name without one."""
        return " and ".join(sorted(set(self.gpus))) or self.cpu


def facts(packages: tuple[str, ...], package: str) -> dict[str, Any]:
    """Return the fields of `Facts` for this machine. `package` is the one whose source is hashed.

    Plain values, since a node cannot import this class if its version of the package lacks it.
    """
    return {
        "name": socket.gethostname(),
        "versions": _versions(packages),
        "code": _code(package),
        "gpus": _gpus(),
        "cpu": _cpu(),
    }


def _versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _code(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    root, digest = Path(spec.origin).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _gpus() -> tuple[str, ...]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return tuple(_gpu(pynvml, handle) for handle in handles)
    except Exception:  # no driver, or none of the package
        return ()


def _gpu(pynvml: Any, handle: Any) -> str:
    name = pynvml.nvmlDeviceGetName(handle)
    gibibytes = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30
    return f"{name.decode() if isinstance(name, bytes) else name} ({gibibytes:.0f} GiB)"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
