"""Questions about the cost of ended runs, as a process gets them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe


@dataclass(frozen=True)
class LateQuestion:
    """What is asked about the runs of a method: all that a prediction depends on.

    `digests` are those of the model's config, weights and tokenizer, as the runs read them; empty
    if they are unknown. `number` identifies the question, and `name` says it to people.
    """

    number: int
    name: str
    recipe: Recipe
    method: Method
    engine: str
    device_name: str
    digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class LateJob:
    """Questions for one process, which answers in this order, on so many `threads`.

    The environment and the directory are those of the session.
    """

    questions: Sequence[LateQuestion]
    log: Path
    threads: int
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    directory: str = field(default_factory=os.getcwd)
