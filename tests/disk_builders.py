"""Small file systems in a mount namespace of their own, for tests of full disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from peft_methods.utils import pinned_files

UNSHARE = ("unshare", *(["--map-root-user"] if os.getuid() else []), "--mount")
NO_MOUNT = 77


def error_on_small_disk(size: int, home: Path, command: Sequence[str]) -> str:
    """Run a command whose cache is on a new file system of `size` bytes, mounted at `home`.

    Return the last line of its errors. Skips the test where nothing can be mounted.
    """
    home.mkdir()
    shell = f'mount -t tmpfs -o size={size} none {home} || exit {NO_MOUNT}; exec "$0" "$@"'
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", shell, *command],
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(home),
            "PYTHONPATH": str(Path(pinned_files.__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NO_MOUNT or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    return done.stderr.splitlines()[-1]
