"""A cell: recipe x method x seed, one training run. Its content hash is its identity."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.recipes.schema import Recipe
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import DEFAULT, engine_of
from peft_methods.utils import sanitize
from peft_methods.utils.hashing import content_hash

PIPELINE = "peft_methods.runs.pipeline"  # runs one cell: what it imports counts for each of them


@dataclass(frozen=True)
class RunSpec:
    """One training run. `stages` are the cells whose models it needs; `is_source` marks such a one.

    `trial` is what a trial of tuning is called: it is a source that never sees the test rows. `tuning` says how the
    method's hyperparameters were found; it changes no figure, so it is no part of the spec. `instead_of` is the engine that was
    asked for where it could not run the cell and `engine` took its place. A `deterministic` cell uses no operation that may
    give other bits the next time.
    """

    recipe: Recipe
    method: Method
    seed: int
    device: str
    engine: str = DEFAULT
    stages: tuple[RunSpec, ...] = ()
    is_source: bool = False
    trial: str = ""
    instead_of: str = ""
    deterministic: bool = False
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
        if self.instead_of:
            spec["instead_of"] = self.instead_of
        if self.deterministic:
            spec["deterministic"] = True
        plain: dict[str, Any] = json.loads(json.dumps(spec))
        return plain

    @property
    def key(self) -> str:
        """A short hash of the spec alone, the same whichever engine took over: names the cell within one run."""
        return run_key(self.spec())

    def with_fallback_engine(self) -> RunSpec:
        """Return the same run with its engine's fallback."""
        fallback = engine_of(self.engine).fallback
        assert fallback is not None, f"{self.engine} has no fallback"
        return replace(self, engine=fallback, instead_of=self.engine)

    def identity(
        self,
        *,
        weights: str,
        config: str,
        tokenizer: str,
        data: str,
        environment: dict[str, Any],
        stages: Sequence[str] = (),
    ) -> str:
        """The hash of all that a figure depends on: spec, weights, their config, tokenizer, data, code, device and library versions.

        `stages` are the identities of the cells whose models it needs: they depend on data of their own. What an engine that
        could not run the cell consists of counts too: once that is mended, it is asked again.
        """
        engines = [engine_of(name) for name in (self.engine, self.instead_of) if name]
        depends = {
            "spec": _decisive(self.spec()),
            "weights": weights,
            "config": config,
            "tokenizer": tokenizer,
            "data": data,
            "code": code_fingerprint(self.method, TASKS[self.recipe.task], *engines, PIPELINE),
            "environment": environment,
            "stages": list(stages),
        }
        return content_hash(depends)[:32]


@dataclass(frozen=True)
class Fingerprints:
    """What the identities of a recipe's cells take from files and machine, as a process of its own found them.

    `weights` are digests by quantisation ("" for none), since frozen weights in 4 bits are others; `data` those of the rows by
    recipe name: the recipe's own and its sources'. What could not be loaded is missing; its cells' records will say why.
    """

    weights: Mapping[str, str]
    config: str
    tokenizer: str
    data: Mapping[str, str]
    environment: dict[str, Any]


@dataclass(frozen=True)
class PreparedRecipe:
    """What is known about a recipe before any cell runs: its data, what it cannot train and why, its pace.

    `forward_seconds` is the time of one row's forward pass, `start_seconds` that of reading data and model,
    `matmul_flops_per_second` the device's rate in bf16 matrix products (None on a CPU). `facts` are for identities.
    """

    data: dict[str, Any]
    unsupported: dict[str, str]
    forward_seconds: float
    start_seconds: float
    matmul_flops_per_second: float | None = None
    facts: Fingerprints | None = None


def run_key(spec: Mapping[str, Any]) -> str:
    """A short hash of a cell's spec. A cell that another engine took over has the key of the one that was asked for."""
    asked = {"engine": spec["instead_of"]} if "instead_of" in spec else {}
    decisive = {
        name: value for name, value in (_decisive(spec) | asked).items() if name != "instead_of"
    }
    return content_hash(sanitize.private(decisive))[:16]  # as records keep it


def _decisive(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec less what only judges the result."""
    recipe = {name: value for name, value in spec["recipe"].items() if name != "expect"}
    return {**spec, "recipe": recipe, "stages": [_decisive(stage) for stage in spec["stages"]]}


def run_specs(
    recipe: Recipe,
    method: Method,
    device: str,
    engine: str = DEFAULT,
    *,
    deterministic: bool = False,
) -> list[RunSpec]:
    """One cell a seed. Earlier stages are the same cells for all seeds, so they are trained once."""
    stages = tuple(
        RunSpec(r, m, 0, device, engine, is_source=True, deterministic=deterministic)
        for r, m in method.prerequisites(recipe)
    )
    seeds = recipe.budget.seed_list()
    return [
        RunSpec(recipe, method, seed, device, engine, stages=stages, deterministic=deterministic)
        for seed in seeds
    ]
