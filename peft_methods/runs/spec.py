"""The spec of a run: recipe x method x seed, one training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.schema import Recipe, Tuning
from peft_methods.recipes.variation import USUAL
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.runs.predicted import Prediction
from peft_methods.runs.seed_plan import SeedPlan
from peft_methods.runs.spec_settings import (
    decisive,
    decisive_method,
    decisive_recipe,
    method_settings,
    quoted,
    recipe_settings,
)
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import DEFAULT, engine_of
from peft_methods.utils.dicts import flatten
from peft_methods.utils.hashing import content_hash, text_hash
from peft_methods.utils.validation import build

PIPELINE = "peft_methods.runs.pipeline"  # executes a run; its imports count for every run
Role = Literal["main", "prerequisite", "trial"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class RunSpec:
    """One training run.

    `role`: a `main` run is compared, a `prerequisite` run is trained for its weights, and a `trial`
    is a tuning run, which never sees the test rows; `trial` is its name. `prerequisites` are the
    runs whose weights this run needs. `fallback_from` is the requested engine if `engine` took its
    place. A `deterministic` run uses bitwise reproducible operations only.

    `tuning` describes how the method's hyperparameters were found, `seed_plan` is set if seeds are
    added until the comparison is decided, and `predicted` is the estimate of its cost. They change
    no result, so they are not part of the JSON.
    """

    recipe: Recipe
    method: Method
    seed: int
    device: str
    engine: str = DEFAULT
    prerequisites: tuple[RunSpec, ...] = ()
    role: Role = "main"
    trial: str = ""
    fallback_from: str = ""
    deterministic: bool = False
    tuning: dict[str, Any] | None = field(default=None, compare=False)
    seed_plan: SeedPlan | None = field(default=None, compare=False)
    predicted: Prediction | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The name of the run in progress lines and logs."""
        own = self.role if self.role == "trial" else f"seed{self.seed}"
        return f"{self.recipe.name}-{self.method.name}-{self.trial or own}"

    @property
    def requested_engine(self) -> str:
        """The engine that was asked for, whichever took its place."""
        return self.fallback_from or self.engine

    @property
    def row_seeds(self) -> dict[str, int]:
        """The seeds that draw this run's rows, by split; empty if `budget.vary` lets them be.

        Prerequisite runs and trials serve all seeds: they have the rows of `data.seed`.
        """
        return self.recipe.budget.row_seeds(self.seed) if self.role == "main" else {}

    @property
    def rows_name(self) -> str:
        """The name of this run's rows: see `rows_name`."""
        return rows_name(self.recipe, self.row_seeds)

    def recipe_settings(self) -> dict[str, Any]:
        """Return the recipe as JSON values: see `recipe_settings`."""
        return recipe_settings(self.recipe)

    def method_settings(self) -> dict[str, Any]:
        """Return the method's hyperparameters as JSON values."""
        return method_settings(self.method)

    def to_json(self) -> dict[str, Any]:
        """Return everything that was requested, as JSON values."""
        values: dict[str, Any] = {
            "recipe": self.recipe_settings(),
            "method": {"name": self.method.name, **self.method_settings()},
            "seed": self.seed,
            "device": self.device,
            "engine": self.engine,
            "prerequisites": [one.to_json() for one in self.prerequisites],
            "role": self.role,
        }
        given = {
            "trial": self.trial,
            "fallback_from": self.fallback_from,
            "deterministic": self.deterministic,
        }
        return values | {name: value for name, value in given.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunSpec:
        """Rebuild a spec from `to_json()`.

        Raises `OptionError` for an unknown method or an invalid setting, and `KeyError`,
        `TypeError` or `ValueError` if the values are not those of a spec.
        """
        seed, role = int(values["seed"]), values["role"]
        if role not in ROLES:
            raise ValueError(f"role = {role!r} should be one of {', '.join(ROLES)}")
        settings = dict(values["method"])
        name = str(settings.pop("name"))
        method: Method = METHODS.create(name, settings, str(values["recipe"]["name"]))
        return cls(
            _recipe(values["recipe"], {name: settings}, seed),
            method,
            seed,
            str(values["device"]),
            str(values["engine"]),
            tuple(cls.from_json(one) for one in values["prerequisites"]),
            role,
            str(values.get("trial", "")),
            str(values.get("fallback_from", "")),
            bool(values.get("deterministic", False)),
        )

    def flat(self) -> dict[str, str]:
        """Return the settings by dotted name ('budget.epochs': '2') for lists of differences."""
        return flatten(self.to_json())

    def recorded(self) -> RunSpec:
        """Return the spec as a record keeps it: with the settings of this run only.

        It equals the spec that is rebuilt from its JSON.
        """
        own = replace(
            self.recipe,
            methods={self.method.name: self.method_settings()},
            budget=replace(self.recipe.budget, seeds=(self.seed,)),
            title="",
            notes=(),
            tuning=Tuning(),
        )
        prerequisites = tuple(one.recorded() for one in self.prerequisites)
        same = replace(
            self,
            recipe=own,
            prerequisites=prerequisites,
            tuning=None,
            seed_plan=None,
            predicted=None,
        )
        has_more = (self.tuning, self.seed_plan, self.predicted) != (None, None, None)
        return self if same == self and not has_more else same

    @cached_property
    def key(self) -> str:
        """A short hash of the spec that names the run within one session.

        It is the same whichever engine took over, and for records, which hold no private data.
        """
        return text_hash(self._decisive_text(self.requested_engine))[:16]

    def _decisive_text(self, engine: str, fallback_from: str = "") -> str:
        """Return the JSON of `decisive`, sorted and without private data.

        It is made of texts that are the same for thousands of runs.
        """
        needed = [one._decisive_text(one.engine, one.fallback_from) for one in self.prerequisites]
        parts = {
            "device": quoted(self.device),
            "engine": quoted(engine),
            "method": decisive_method(self.method),
            "prerequisites": f"[{', '.join(needed)}]",
            "recipe": decisive_recipe(self.recipe),
            "seed": json.dumps(self.seed),
        }
        if fallback_from:
            parts["fallback_from"] = quoted(fallback_from)
        if self.deterministic:
            parts["deterministic"] = "true"
        if self.role == "trial":
            parts["role"] = quoted(self.role)
        return "{" + ", ".join(f'"{name}": {parts[name]}' for name in sorted(parts)) + "}"

    def with_fallback_engine(self) -> RunSpec:
        """Return the same run with its engine's fallback."""
        fallback = engine_of(self.engine).fallback
        assert fallback is not None, f"{self.engine} has no fallback"
        return replace(self, engine=fallback, fallback_from=self.engine)

    def fingerprint(
        self,
        *,
        weights: str,
        config: str,
        tokenizer: str,
        data: str,
        environment: dict[str, Any],
        prerequisites: Sequence[str] = (),
    ) -> str:
        """Return the hash of everything that the results depend on.

        That is the spec, the code, the device and the library versions (`environment`), and the
        given digests. `prerequisites` are the fingerprints of the runs whose weights are needed,
        since these depend on other data. The code of an engine that could not execute the run
        counts too: after a fix it is tried again.
        """
        engines = [engine_of(name) for name in (self.engine, self.fallback_from) if name]
        depends = {
            "spec": decisive(self.to_json()),
            "weights": weights,
            "config": config,
            "tokenizer": tokenizer,
            "data": data,
            "code": code_fingerprint(self.method, TASKS[self.recipe.task], *engines, PIPELINE),
            "environment": environment,
            "prerequisites": list(prerequisites),
        }
        return content_hash(depends)[:32]


def _recipe(values: Mapping[str, Any], methods: dict[str, Any], seed: int) -> Recipe:
    """Rebuild the recipe of a run from its settings.

    A prerequisite run has no test rows, but the file of a recipe must ask for some.
    """
    budget, data = {**values["budget"], "seeds": [seed]}, dict(values["data"])
    if has_no_test := data["test"] == 0:
        data["test"] = 1
    whole = {**values, "budget": budget, "data": data, "methods": methods}
    recipe = build(Recipe, whole, str(values["name"]))
    return replace(recipe, data=replace(recipe.data, test=0)) if has_no_test else recipe


def rows_name(recipe: Recipe, seeds: Mapping[str, int]) -> str:
    """Name the rows of a recipe's runs: the recipe, and the seeds that draw them, if any do."""
    return f"{recipe.name} {dict(seeds)}" if seeds else recipe.name


def _with_usual_parts(recipe: Recipe) -> Recipe:
    return replace(recipe, budget=replace(recipe.budget, vary=USUAL))


def run_specs(
    recipe: Recipe,
    method: Method,
    device: str,
    engine: str = DEFAULT,
    *,
    deterministic: bool = False,
) -> list[RunSpec]:
    """Return one run per seed. All seeds share the same prerequisite runs, trained once.

    These have seed 0 and the usual parts vary, whatever varies between the recipe's seeds.
    """
    prerequisites = tuple(
        RunSpec(
            _with_usual_parts(r),
            m,
            0,
            device,
            engine,
            role="prerequisite",
            deterministic=deterministic,
        )
        for r, m in method.prerequisites(recipe)
    )
    return [
        RunSpec(
            recipe,
            method,
            seed,
            device,
            engine,
            prerequisites=prerequisites,
            deterministic=deterministic,
        )
        for seed in recipe.budget.seed_list()
    ]
