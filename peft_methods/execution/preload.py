"""What the server process of `local.py` imports once, so that every cell's process starts with it."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

from peft_methods.embedded import cache_folder

os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))  # or importing leaves a folder in /tmp
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of an optional package at import

import bitsandbytes  # noqa: E402, F401
import peft  # noqa: E402, F401

import peft_methods.execution.worker  # noqa: E402
import peft_methods.runner  # noqa: E402
from peft_methods.cells import source_of  # noqa: E402

for source in Path(peft_methods.__file__).parent.rglob("*.py"):
    source_of(source)  # the code that cells will run is that of now

gc.collect()
gc.freeze()  # what was imported is never garbage: collections in the children leave these pages shared
