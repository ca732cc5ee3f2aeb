"""Fixtures of the test suite: tiny models, data and a recipe, and sessions with given records.

Heavy modules are imported once in a process that runs tests, before pytester runs pytest in it.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from peft_methods.runs.record import Record

# Threads that wait for each other do not spin: tests and their runs share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Many tests start a Python: they share bytecode, which container images often switch off.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Otherwise pytest-benchmark would disable itself in the sessions that tests start.
os.environ.pop("PYTEST_XDIST_WORKER", None)
pytest.register_assert_rewrite("builders", "chart_builders")
from ray_cluster import ray_nodes, ray_of_session  # noqa: E402, F401  # fixtures
from slurm_cluster import slurm, slurm_of_session  # noqa: E402, F401  # fixtures

# The same cases in every session, however slow the machine. With -m slow, as in tox, they are more.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("thorough", settings.get_profile("steady"), max_examples=40)
settings.register_profile("long", deadline=None, max_examples=1000)

HEAVY = (
    "bitsandbytes",
    "datasets",
    "peft",
    "transformers",
    "peft_methods.api",
    "peft_methods.plugin",
    "peft_methods.report.paper",
    "peft_methods.report.text.comparison",
    "peft_methods.report.text.dry_run",
    "peft_methods.runs.pipeline",
    "builders",
)
OF_AN_EXTRA = ("typst",)  # which tests on a GPU do without


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many cases property tests have, unless --hypothesis-profile does."""
    settings.load_profile("thorough" if "slow" in config.option.markexpr else "steady")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import heavy modules, but not where pytest-xdist only hands out tests to its workers."""
    if session.config.getoption("dist", "no") != "no":
        return
    present = [name for name in OF_AN_EXTRA if importlib.util.find_spec(name)]
    for name in (*HEAVY, *present):
        importlib.import_module(name)
    import torch

    from peft_methods.methods.registry import METHODS

    # The registry imports methods on demand. pytester would forget the modules that a session
    # imports, but the registry would keep their classes.
    assert list(METHODS)
    torch.set_num_threads(1)  # for models this small more threads only wait for each other
    freeze_all()


def freeze_all() -> None:
    """Exempt all present objects from garbage collection, as worker processes do.

    A run collects garbage between its phases. Each collection would visit all imported objects and
    collected tests, which takes half a second.
    """
    gc.collect()
    gc.freeze()


RECIPE = """
[model]
source = "{model}"

[data]
source = "{data}"
train = {train}
validation = {validation}
test = {test}
max_length = {length}

[budget]
epochs = 2
batch_size = 8
seeds = {seeds}
weight_decay = 0.01
warmup_ratio = 0.1

[methods.full]
learning_rate = 4e-3

[methods.head_only]
learning_rate = 5e-2

[methods.bitfit]
learning_rate = 5e-2

[methods.lora]
learning_rate = 5e-2
rank = 4
targets = ["query", "value"]

[methods.qlora]
learning_rate = 5e-2
rank = 4

[methods.ia3]
learning_rate = 1e-1

[methods.adapter]
learning_rate = 2e-2
reduction_factor = 4
"""
TINY = {"train": 160, "validation": 30, "test": 50, "length": 16, "seeds": 2}
TAGGED = {"train": 72, "validation": 20, "test": 40, "length": 24, "seeds": 1}
FUSION = """
[methods.adapter_fusion]
learning_rate = 1e-2
sources = ["{0}", "{1}"]
source_learning_rate = 2e-2
source_train = 40
source_validation = 20
reduction_factor = 4
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what takes minutes; give every other test without a timeout one of 300 s.

    `-m faults`, `-m simulation`, `-m slow`, `-m ray` and `-m slurm` select it. Benchmarks have no
    timeout.
    """
    left_out = {
        mark
        for mark in ("faults", "simulation", "slow", "ray", "slurm")
        if mark not in config.option.markexpr
    }
    parts: dict[bool, list[pytest.Item]] = {False: [], True: []}
    for item in items:
        parts[any(mark.name in left_out for mark in item.iter_markers())].append(item)
    items[:] = parts[False]
    config.hook.pytest_deselected(items=parts[True])
    from builders import LACKING

    for item in items:
        if (
            item.path.is_relative_to(Path(__file__).parent)
            and item.get_closest_marker("timeout") is None
        ):
            item.add_marker(pytest.mark.timeout(300))
        for name in LACKING & methods_among(getattr(item, "callspec", None)):
            item.add_marker(pytest.mark.skip(f"{name} needs a package of an extra"))


def methods_among(call: Any) -> set[str]:
    """Return the strings among a test's parameters, and in tuples there: methods, perhaps."""
    values = [] if call is None else call.params.values()
    parts = [part for one in values for part in (one if isinstance(one, tuple) else (one,))]
    return {part for part in parts if isinstance(part, str)}


def pytest_collection_finish() -> None:
    """Freeze the collected tests."""
    freeze_all()


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> None:
    """Freeze what the modules before have imported."""
    freeze_all()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many cases of bad input the parsers refused and accepted."""
    name = next((name for name in sys.modules if name.endswith("test_bad_input")), "")
    if name and (counts := sys.modules[name].CASES):
        terminalreporter.write_line(
            f"{counts.total():,} cases of bad input: "
            f"{counts['refused']:,} refused, {counts['accepted']:,} accepted"
        )


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pretrained model folder per model family, by family."""
    from builders import CONFIGS, make_model

    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(root / kind, kind) for kind in CONFIGS}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data folder with a train and a test split."""
    from builders import make_data

    return make_data(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="session")
def tiny_recipe(
    tiny_models: dict[str, Path], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A recipe with every method on the tiny model and data. It takes seconds on any machine."""
    from builders import make_data

    root = tmp_path_factory.mktemp("recipe")
    others = [make_data(root / f"source{i}", seed=i + 1) for i in range(2)]
    text = RECIPE.format(model=tiny_models["bert"], data=tiny_data, **TINY)
    path = root / "tiny.toml"
    names = 'name = "tiny"\ntitle = "Word lists"\n'
    path.write_text(names + text + FUSION.format(*others), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tagged_recipe(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of token classification with tiny data and a tiny model."""
    from builders import make_tagged_data

    root = tmp_path_factory.mktemp("tagged")
    data = make_tagged_data(root / "data")
    text = RECIPE.format(model=tiny_models["bert"], data=data, **TAGGED)
    path = root / "tagged.toml"
    path.write_text('name = "tagged"\ntask = "token_classification"\n' + text, encoding="utf-8")
    return path


@pytest.fixture
def tell(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run the benchmark in a session whose runs end with these records."""
    from builders import BENCHMARK, ReplayRecords

    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))

    def run(records: Sequence[Record], *arguments: str) -> pytest.RunResult:
        methods = ",".join(dict.fromkeys(record.method_name for record in records))
        plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", f"--peft-method={methods}")
        return pytester.runpytest_inprocess(*plain, *arguments, plugins=[ReplayRecords(records)])

    return run


@pytest.fixture
def base(tell: Callable[..., pytest.RunResult]) -> Callable[..., pytest.RunResult]:
    """Write base.json from some records, then check others against it."""

    def run(before: Sequence[Record], now: Sequence[Record], *arguments: str) -> pytest.RunResult:
        saved = tell(before, "--peft-save-baseline=base.json")
        assert saved.ret == 0, saved.stdout.str()
        count = len({record.method_name for record in before})
        methods = f"{count} method{'s' * (count != 1)}"
        assert f"baseline written: base.json ({methods})" in saved.stdout.str()
        return tell(now, "--peft-baseline=base.json", *arguments)

    return run
