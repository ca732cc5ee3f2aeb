"""Recipes: one TOML file names the model, the data, the budget and each method's hyperparameters."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os.path import isabs, isfile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field

from peft_methods.building import build
from peft_methods.errors import OptionError, unknown

STRICT = ConfigDict(extra="forbid", strict=True)
Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Count | Literal["all"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

RECIPE_FOLDERS = (
    Path(__file__).parent / "recipes",
    Path(__file__).parent.parent / "benchmarks" / "recipes",
)


@dataclass(frozen=True)
class ModelSpec:
    """Which encoder: `embedded:NAME`, a folder, or a hub id (`revision` pins it).

    With random weights the sizes are all that is wanted: of a shape that comes along (by its hub id) or a local config.
    `trust_remote_code` lets the model's own Python files run, if whoever starts the run allows it too (`check_trust`).
    """

    __pydantic_config__ = STRICT
    source: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class DataSpec:
    """Which texts, how many for what (exact and disjoint), and where text and label stand.

    `seed` chooses the rows; it is the same for every cell, so all methods and seeds see the same splits.
    Columns left out are inferred. `select_by` is the validation metric that chooses the best epoch.
    `test_split` names the source's split that test is taken from: `validation` where the source hides its test labels,
    `train` for a cut of one's own; a source that lacks the split named gives its `test`. Validation is the source's own
    split, or cut from train: at random, or by whole `sentences` (train texts that lie within no other), and then every
    train text that lies within one of them leaves train. `leakage_limit` is the share of test texts that may stand in
    train too before the source is refused (they leave train in any case).

    `token_lengths` and `classes` describe the texts to a run that cannot read them (random weights without a tokenizer):
    quantiles of the rows' token counts, evenly spaced from the least to the most, and how many classes there are.
    """

    __pydantic_config__ = STRICT
    source: Annotated[str, Field(min_length=1)]
    train: Size
    validation: Size
    test: Size
    max_length: Annotated[int, Field(ge=4)] = 128
    select_by: Literal["accuracy", "macro_f1"] = "accuracy"
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    config: str | None = None
    revision: str | None = None
    test_split: Literal["test", "validation", "train"] = "test"
    validation_by: Literal["rows", "sentences"] = "rows"
    leakage_limit: Share = 0.01
    seed: Seed = 0
    token_lengths: tuple[int, ...] | None = None
    classes: Annotated[int, Field(ge=2)] | None = None

    def __post_init__(self) -> None:
        lengths = self.token_lengths
        if lengths is not None and (
            len(lengths) < 2 or lengths[0] < 1 or list(lengths) != sorted(lengths)
        ):
            raise OptionError(
                f"data.token_lengths = {list(lengths)} should be two or more whole numbers from 1 up, none below the one before it: "
                f"the token counts of the shortest row, of rows at even steps between, and of the longest."
            )


@dataclass(frozen=True)
class Budget:
    """What every method may spend: the same for all, or the comparison is worth nothing.

    `precision`: fp32 weights in every case; bf16 and fp16 by autocast, tf32 with TF32 matrix products. An optimizer step takes
    `gradient_accumulation` batches. `gradient_checkpointing` keeps each layer's input only (the graphed engine also what
    attention gives) and computes the rest anew. `padding`: batches of like lengths padded to their longest row, or (fixed) shuffled ones
    padded to `data.max_length`. `early_stopping`: the epochs in a row that `data.select_by` may fail to rise on
    validation data before training ends; 0 never ends it. The learning rate's schedule is that of all epochs.
    """

    __pydantic_config__ = STRICT
    epochs: Count
    batch_size: Count
    seeds: (
        Annotated[int, Field(ge=1, le=1000)] | Annotated[tuple[Seed, ...], Field(min_length=1)]
    ) = 3
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    gradient_accumulation: Count = 1
    gradient_checkpointing: bool = False
    padding: Literal["dynamic", "fixed"] = "dynamic"
    early_stopping: NotNegativeCount = 0
    evaluation_batch_size: Count = 64

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int) and len(set(self.seeds)) < len(self.seeds):
            raise OptionError(
                f"budget.seeds = {list(self.seeds)} names a seed twice; its cell would count double."
            )

    def seed_list(self) -> tuple[int, ...]:
        """The seeds themselves: 3 means 0, 1, 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


@dataclass(frozen=True)
class Expect:
    """What a sound run must reach: test accuracy above the majority class by this margin (0.10 = 10 points)."""

    __pydantic_config__ = STRICT
    margin_over_majority: Share = 0.0


@dataclass(frozen=True)
class Tuning:
    """How rates are searched for with `--peft-tune`, the same for every method.

    A trial trains `fraction` of the epochs. Rates are tried on a grid of `points` values, evenly spaced by their logarithm
    from the method's own over `reach` to it times `reach`. `knobs` opens hyperparameters of a method: the values to try, by
    method and name.
    """

    __pydantic_config__ = STRICT
    fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    reach: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10.0
    points: Annotated[int, Field(ge=3)] = 9
    knobs: dict[str, dict[str, Annotated[tuple[Any, ...], Field(min_length=2)]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        if self.points % 2 == 0:
            raise OptionError(
                f"tuning.points = {self.points} should be odd: the method's own rate is the middle of the grid."
            )


@dataclass(frozen=True)
class Recipe:
    """Model + data + budget + hyperparameters per method. `notes` are printed under its table."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    model: ModelSpec
    data: DataSpec
    budget: Budget
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    title: str = ""
    gpu: bool = False
    expect: Expect = Expect()
    tuning: Tuning = Tuning()
    notes: tuple[str, ...] = ()

    @property
    def has_quality(self) -> bool:
        """Whether there is quality to judge: random weights show what training costs, not what it gives."""
        return self.model.weights == "pretrained"


def path_of(source: str) -> Path | None:
    """The file or folder that a source names; None where there is none, or where it can be no path at all."""
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, the home of nobody
        return None


def is_meant_as_path(source: str) -> bool:
    """Whether it can only be a path, there or not, and no name on the hub."""
    return source.startswith((".", "~")) or isabs(source)


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the project, by name."""
    return {path.stem: path for folder in RECIPE_FOLDERS for path in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """The TOML file of a shipped recipe's name, or the path itself. Raises `OptionError`."""
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        if not isfile(path):
            raise OptionError(
                f"recipe file {name!r} does not exist. Shipped recipes: {', '.join(shipped)}."
            )
        return path
    raise OptionError(unknown("recipe", name, shipped) + " Or give the path of a TOML file.")


def load_recipe(
    name: str,
    settings: Sequence[str] = (),
    *,
    model: str | None = None,
    data: str | None = None,
    weights: str | None = None,
) -> Recipe:
    """A recipe by name or path, with `KEY=VALUE` settings applied and model, weights or data pointed elsewhere.

    Raises `OptionError` for a file that is no TOML, an unknown key or a value that does not fit.
    """
    path = find_recipe(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (
        ValueError,
        RecursionError,
    ) as error:  # no text, no TOML, a number of thousands of digits, a thousand brackets
        raise OptionError(f"{path.name} is not valid TOML: {error}.") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}.") from None
    notes = []
    _make_sections(values, path.name)
    if data is not None:
        _point_at_data(values, data)
    tuned = _point_at_model(values, model) if model is not None else ""
    if weights is not None:
        _set_weights(values, weights)
    for setting in settings:
        apply_setting(values, setting)
    _make_sections(values, path.name)
    tuned = tuned if _has_rates(values) else ""
    recipe = build(Recipe, values, path.name)
    if tuned and recipe.has_quality:
        notes.append(tuned)
    if data is not None:
        notes.append(_said_of_data(recipe))
    return replace(recipe, notes=(*recipe.notes, *notes))


def check_trust(recipes: Sequence[Recipe], allowed: bool) -> None:
    """A model's own code runs where its recipe wants it and the user allows it; one without the other is an `OptionError`."""
    wanting = [recipe for recipe in recipes if recipe.model.trust_remote_code]
    if wanting and not allowed:
        raise OptionError(
            f"recipe {wanting[0].name!r} would run Python code that comes with the model {wanting[0].model.source!r}. "
            f"Read that code; then allow it with --peft-trust-remote-code (compare: trust_remote_code=True)."
        )
    if allowed and not wanting:
        raise OptionError(
            "--peft-trust-remote-code is given and no recipe wants a model's own code. Leave it out, or say in the recipe that it "
            "does: --peft-set model.trust_remote_code=true."
        )


def _point_at_data(values: dict[str, Any], source: str) -> None:
    section = values.setdefault("data", {})
    for of_the_other in (
        "text",
        "text_pair",
        "label",
        "config",
        "revision",
        "leakage_limit",
        "token_lengths",
        "classes",
    ):
        section.pop(of_the_other, None)
    section["source"] = source


def _said_of_data(recipe: Recipe) -> str:
    data = recipe.data
    sizes = f"{data.train}/{data.validation}/{data.test}"
    lift = (
        ""
        if data.train == "all" or not recipe.has_quality
        else ": --peft-set data.train=all lifts the first"
    )
    split = (
        ""
        if data.test_split == "test"
        else f"; test is taken from its {data.test_split} split, where it has one"
    )
    return f"data replaced by {data.source!r}; sizes as the recipe and --peft-set say ({sizes}){lift}{split}"


def _point_at_model(values: dict[str, Any], source: str) -> str:
    section = values.setdefault("model", {})
    tuned_for = section.get("source")
    for of_the_other in ("revision", "trust_remote_code"):
        section.pop(of_the_other, None)
    section["source"] = source
    return f"warning: the learning rates were tuned for {tuned_for!r}, not for {source!r}; a method may look worse than it is"


def _make_sections(values: dict[str, Any], where: str) -> None:
    """Write `methods = "all"`, `methods = ["lora"]` and `methods.include = ...` as sections.

    The section `all` stands for every method until the registry is asked (`with_methods`).
    """
    methods = values.get("methods")
    sections = dict(methods) if isinstance(methods, dict) else {"include": methods}
    include = sections.get("include", {})
    if isinstance(include, dict) or methods is None:
        return  # sections alone, or a mistake that `build` will name
    del sections["include"]
    names = [include] if isinstance(include, str) else include
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError(
            f'{where}: methods = {include!r} should be "all", a list of names such as '
            f'["NAME", ...], or sections such as [methods.NAME].',
            setting="methods",
        )
    values["methods"] = {**{name: {} for name in names}, **sections}


def _has_rates(values: dict[str, Any]) -> bool:
    """Whether the recipe itself gives learning rates, which suit one model."""
    methods = values.get("methods")
    sections = methods.values() if isinstance(methods, dict) else ()
    return any(isinstance(one, dict) and "learning_rate" in one for one in sections)


def _set_weights(values: dict[str, Any], weights: str) -> None:
    allowed = get_args(get_type_hints(ModelSpec)["weights"])
    if weights not in allowed:
        raise OptionError(unknown("weights", weights, allowed))
    values.setdefault("model", {})["weights"] = weights


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Put `KEY=VALUE` (a dotted TOML path; the value in TOML, a bare word is a string) into `values`."""
    key, equals, text = setting.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise OptionError(
            f"--peft-set {setting!r} should read KEY=VALUE, for example budget.epochs=2."
        )
    section = values
    for part in path[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise OptionError(f"--peft-set {setting!r}: {part!r} is a value, not a section.")
    section[path[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, or more digits or brackets than can be read
        return text
    return parsed["value"] if list(parsed) == ["value"] else text
