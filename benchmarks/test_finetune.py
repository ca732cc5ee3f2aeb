"""The main benchmark, as `pytest benchmarks` finds it in a clone. The package defines it."""

from __future__ import annotations

from peft_methods.cli.benchmark.test_finetune import test_finetune

__all__ = ["test_finetune"]
