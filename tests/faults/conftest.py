"""Fixtures for the fault tests, and the number of faults and lost results, printed at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builders import BENCHMARK, make_data, make_model
from faults.ground import Ground, Ledger

HERE = Path(__file__).parent
LEDGER = pytest.StashKey[Ledger]()
RECIPE = """
name = "tiny"
title = "Word lists"

[model]
source = "{model}"

[data]
source = "{data}"
train = 32
validation = 10
test = 20
max_length = 16

[budget]
epochs = 2
batch_size = 8

[methods.head_only]
learning_rate = 5e-2

[methods.lora]
learning_rate = 5e-2
rank = 4
targets = ["query", "value"]

[methods.adapter_fusion]
learning_rate = 1e-2
sources = ["{sources}0", "{sources}1"]
source_learning_rate = 2e-2
source_train = 20
source_validation = 10
reduction_factor = 4
"""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the fault tests more time than other tests."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[LEDGER].faults:
        terminalreporter.section("faults")
        for line in config.stash[LEDGER].lines():
            terminalreporter.write_line(line)


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """The ledger that counts every fault and lost result."""
    return request.config.stash[LEDGER]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a benchmark, a recipe, its model and its data."""
    root = tmp_path_factory.mktemp("faults")
    for name, seed in (("data", 0), ("source0", 1), ("source1", 2)):
        make_data(root / name, 60, 30, seed)
    text = RECIPE.format(
        model=make_model(root / "model"), data=root / "data", sources=root / "source"
    )
    (root / "r.toml").write_text(text, encoding="utf-8")
    (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (root / "test_finetune.py").write_text(BENCHMARK.read_text(encoding="utf-8"), encoding="utf-8")
    return root


@pytest.fixture
def ground(site: Path, tmp_path: Path, ledger: Ledger) -> Callable[..., Ground]:
    """Return a function that creates a `Ground`: `ground(methods=..., seeds=..., store=...)`."""

    def make(**choices: object) -> Ground:
        number = len(list(tmp_path.glob("ground*")))
        return Ground(site, tmp_path / f"ground{number}", ledger, **choices)  # type: ignore[arg-type]

    return make
