"""A cell: recipe x method x seed, one training run. Its content hash is its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peft_methods import escaping
from peft_methods.errors import OptionError, unknown
from peft_methods.methods import METHODS, Method
from peft_methods.recipe import Recipe

ENGINES = ("auto", "stock", "graphed")
CODE_OF_ENGINES = {
    "stock": ("base.py", "batches.py", "judging.py", "layers.py", "stock.py"),
    "graphed": ("base.py", "batches.py", "judging.py", "layers.py", "stock.py", "attention.py", "graphs.py", "graphed.py"),
}
CODE_OF_EVERY_CELL = (
    "rows.py",
    "data.py",
    "embedded.py",
    "classes.py",
    "reading.py",
    "overlap.py",
    "configs.py",
    "models.py",
    "synthetic.py",
    "layouts.py",
    "metrics.py",
    "measuring.py",
    "attribution.py",
    "flops.py",
    "inference.py",
    "instruments.py",
    "nvml.py",
    "quality.py",
    "checking.py",
    "starting.py",
    "runner.py",
)


@dataclass(frozen=True)
class Cell:
    """One training run. `stages` are the cells whose models it needs; `is_source` marks such a one.

    `trial` is what a trial of tuning is called: it is a source that never sees the test rows. `tuning` says how the
    method's hyperparameters were found; it changes no figure, so it is no part of the spec.
    """

    recipe: Recipe
    method: Method
    seed: int
    device: str
    engine: str = "stock"
    stages: tuple[Cell, ...] = ()
    is_source: bool = False
    trial: str = ""
    tuning: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """What progress lines and logs call it."""
        return f"{self.recipe.name}-{self.method.name}-{self.trial or f'seed{self.seed}'}"

    def spec(self) -> dict[str, Any]:
        """Everything that was asked for, as plain JSON values."""
        apart = {"methods", "title", "notes", "tuning"}
        recipe = {name: value for name, value in asdict(self.recipe).items() if name not in apart}
        del recipe["budget"]["seeds"]  # how many others there are makes no other cell
        spec = {
            "recipe": recipe,
            "method": {"name": self.method.name, **asdict(self.method)},
            "seed": self.seed,
            "device": self.device,
            "engine": self.engine,
            "stages": [stage.spec() for stage in self.stages],
        }
        if self.trial:
            spec["trial"] = True
        plain: dict[str, Any] = json.loads(json.dumps(spec))
        return plain

    @property
    def key(self) -> str:
        """A short hash of the spec alone, as records keep it: names the cell within one run."""
        return content_hash(escaping.private(self._decisive_spec()))[:16]

    def _decisive_spec(self) -> dict[str, Any]:
        """The spec less what only judges the result."""
        spec = self.spec()
        del spec["recipe"]["expect"]
        return spec

    def identity(self, *, weights: str, config: str, data: str, environment: dict[str, Any]) -> str:
        """The hash of all that a figure depends on: spec, weights, their config, data, code, device and library versions."""
        code = [code_hash(cell.method, cell.engine) for cell in (*self.stages, self)]
        depends = {"spec": self._decisive_spec(), "weights": weights, "config": config, "data": data, "code": code}
        return content_hash(depends | {"environment": environment})[:32]


@dataclass(frozen=True)
class Preparation:
    """What is known about a recipe before any cell runs: its data, what it cannot train and why, its pace.

    `forward_seconds` is the time of one row's forward pass, `start_seconds` that of reading data and model,
    `matmul_flops_per_second` the device's rate in bf16 matrix products (None on a CPU).
    """

    data: dict[str, Any]
    unsupported: dict[str, str]
    forward_seconds: float
    start_seconds: float
    matmul_flops_per_second: float | None = None


def content_hash(value: Any) -> str:
    """sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_hash(method: Method, engine: str) -> str:
    """sha256 of the source files that a cell's figures come from: its method's, its engine's, and measuring."""
    package = Path(__file__).parent
    own = {Path(str(c.__module__).replace(".", "/")).name + ".py" for c in type(method).__mro__ if c.__module__.startswith("peft_methods")}
    files = [package / name for name in CODE_OF_EVERY_CELL]
    files += [package / "methods" / name for name in (*sorted(own), "bottleneck.py")]
    files += [package / "engines" / name for name in CODE_OF_ENGINES[engine]]
    return content_hash([(path.name, path.read_text(encoding="utf-8")) for path in files])


def chosen_methods(recipe: Recipe, names: Sequence[str] | None) -> list[Method]:
    """The recipe's methods, in the registry's order, or those named. Raises `OptionError`.

    All of the recipe's sections are checked, chosen or not, so a typo never waits for its turn.
    """
    created = {name: METHODS.create(name, recipe.methods[name], recipe.name) for name in recipe.methods}
    for name in names or ():
        METHODS[name]
        if name not in created:
            raise OptionError(f"recipe {recipe.name!r} has no [methods.{name}] section; it has: {', '.join(created)}.")
    return [created[name] for name in METHODS if name in created and (not names or name in names)]


def fitting_engine(asked: str, device: str) -> str:
    """`auto` is `graphed` on a GPU and `stock` elsewhere. Raises `OptionError` for one that is not known or cannot be here."""
    if asked not in ENGINES:
        raise OptionError(unknown("engine", asked, ENGINES))
    has_gpu = device.startswith("cuda")
    if asked == "graphed" and not has_gpu:
        raise OptionError("engine 'graphed' needs an NVIDIA GPU and none is visible. Allowed here: auto, stock.")
    if asked == "auto":
        return "graphed" if has_gpu else "stock"
    return asked


def cells_of(recipe: Recipe, method: Method, device: str, engine: str = "stock") -> list[Cell]:
    """One cell a seed. Earlier stages are the same cells for all seeds, so they are trained once."""
    *earlier, _ = method.stages(recipe)
    stages = tuple(Cell(r, m, 0, device, engine, is_source=True) for r, m in earlier)
    return [Cell(recipe, method, seed, device, engine, stages=stages) for seed in recipe.budget.seed_list()]
