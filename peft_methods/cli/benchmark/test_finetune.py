"""The main benchmark: train every method of every chosen recipe under one budget and check it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peft_methods.cli.outcome import Outcome


def test_finetune(finetune: Callable[[], Outcome]) -> None:
    """Train every seed.

    Fails if a run failed, if weights changed or did not change as they should, or if the model
    learned nothing.
    """
    outcome = finetune()
    if outcome.problems:
        pytest.fail("\n".join(outcome.problems), pytrace=False)
