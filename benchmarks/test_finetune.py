"""The main job: every method of every chosen recipe, trained under one budget and held to what makes a figure sound."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peft_methods.plugin import Outcome


def test_finetune(finetune: Callable[[], Outcome]) -> None:
    """Train every seed; fail when one failed, when weights did not do what they should, or when nothing was learnt."""
    outcome = finetune()
    if outcome.problems:
        pytest.fail("\n".join(outcome.problems), pytrace=False)
