"""Load the plugin where it is not installed; run the harness's benchmarks only with -m harness."""

from __future__ import annotations

import pytest

pytest_plugins = ["peft_methods.plugin", "pytester"]
collect_ignore = ["peft_methods"]  # benchmarks/ passes on the benchmark that is in there


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "harness" in config.option.markexpr:
        return
    unasked = [item for item in items if item.get_closest_marker("harness")]
    if unasked:
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]
