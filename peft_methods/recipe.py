"""Recipes: TOML files that name the model, the data, the budget and the methods' settings."""

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
    """The encoder to fine-tune: `embedded:NAME`, a folder, or a hub id (`revision` pins it).

    Random weights only need the model's sizes: those of an architecture preset (by hub id) or of a
    local config. With `trust_remote_code` the model's own Python files are executed, provided that
    the user who starts the session allows it too (see `check_trust`).
    """

    __pydantic_config__ = STRICT
    source: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class DataSpec:
    """The texts, the exact sizes of the disjoint splits, and the columns with texts and labels.

    `seed` selects the rows. It is the same for every run, so all methods and seeds see the same
    splits. Columns that are not named are inferred. `select_by` is the validation metric that
    selects the best epoch.

    `test_split` names the source's split that test rows are taken from: `validation` if the source
    hides its test labels, `train` to cut the test rows from train. If the source lacks the named
    split, its `test` split is used. Validation rows come from the source's own split or are cut
    from train: at random (`rows`), or as whole `sentences`, which are train texts contained in no
    other text. In the second case every train text contained in one of them is removed from train.
    `leakage_limit` is the share of test texts that may also occur in train before the source is
    refused. Such texts are removed from train in any case.

    `token_lengths` and `classes` describe the texts for runs that cannot read them (random weights
    without a tokenizer): evenly spaced quantiles of the rows' token counts, from the minimum to the
    maximum, and the number of classes.
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
                f"data.token_lengths = {list(lengths)} should be two or more whole numbers >= 1 in "
                f"ascending order: evenly spaced quantiles of the rows' token counts, from the "
                f"shortest row to the longest.",
                setting="data.token_lengths",
            )


@dataclass(frozen=True)
class Budget:
    """The resources of every method, identical for all of them: otherwise they are not comparable.

    `precision`: weights are fp32 in every case; bf16 and fp16 use autocast, tf32 uses TF32 matrix
    products. An optimizer step processes `gradient_accumulation` batches. `gradient_checkpointing`
    stores only the input of each layer (the cuda_graphs engine also stores attention outputs) and
    recomputes the rest. `padding`: `dynamic` groups rows of similar length and pads to the longest
    row of the batch; `fixed` shuffles the rows and pads to `data.max_length`. `early_stopping`:
    training ends after this many consecutive epochs without a rise of `data.select_by` on the
    validation data; 0 disables it. The learning rate schedule always spans all epochs.
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
                f"budget.seeds = {list(self.seeds)} contains a seed twice; its run would count "
                f"twice. Give each seed once.",
                setting="budget.seeds",
            )

    def seed_list(self) -> tuple[int, ...]:
        """Return the seeds as a tuple: 3 means 0, 1, 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


@dataclass(frozen=True)
class Expect:
    """What a sound session must reach: test accuracy above the majority class by this margin.

    0.10 means 10 percentage points.
    """

    __pydantic_config__ = STRICT
    margin_over_majority: Share = 0.0


@dataclass(frozen=True)
class Tuning:
    """How tuning searches for learning rates, the same for every method.

    A trial trains for `fraction` of the epochs. The grid has `points` rates, evenly spaced on a
    logarithmic scale from the method's own rate divided by `reach` to that rate times `reach`.
    `knobs` adds hyperparameters to the search: the values to try, by method and name.
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
                f"tuning.points = {self.points} should be odd, so that the method's own rate is in "
                f"the middle of the grid.",
                setting="tuning.points",
            )


@dataclass(frozen=True)
class Recipe:
    """Model, data, budget and the hyperparameters of each method.

    `notes` are printed below the recipe's table.
    """

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
        """Whether quality is meaningful.

        Random weights show the cost of training, not its benefit.
        """
        return self.model.weights == "pretrained"


def path_of(source: str) -> Path | None:
    """Return the existing file or folder that a source names.

    None if it does not exist or cannot be a path.
    """
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown user's home
        return None


def is_only_a_path(source: str) -> bool:
    """Whether a source can only be a path, existing or not, and no hub id."""
    return source.startswith((".", "~")) or isabs(source)


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the recipes that are part of the project, by name."""
    return {path.stem: path for folder in RECIPE_FOLDERS for path in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Return the TOML file of a shipped recipe or of a path. Raises `OptionError`."""
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
    """Load a recipe by name or path, with `KEY=VALUE` settings applied.

    `model`, `weights` and `data` replace those of the recipe. Raises `OptionError` for invalid
    TOML, unknown keys and invalid values.
    """
    path = find_recipe(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # not UTF-8, not TOML, a number of thousands of digits, a thousand nested brackets
        raise OptionError(f"{path.name} is not valid TOML: {error}.") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}.") from None
    notes = []
    _make_sections(values, path.name)
    if data is not None:
        _replace_data(values, data)
    tuned = _replace_model(values, model) if model is not None else ""
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
        notes.append(_data_note(recipe))
    return replace(recipe, notes=(*recipe.notes, *notes))


def check_trust(recipes: Sequence[Recipe], allowed: bool) -> None:
    """Check that a model's own code is requested by its recipe and allowed by the user.

    One without the other raises `OptionError`.
    """
    requesting = [recipe for recipe in recipes if recipe.model.trust_remote_code]
    if requesting and not allowed:
        recipe = requesting[0]
        raise OptionError(
            f"recipe {recipe.name!r} would execute Python code of the model "
            f"{recipe.model.source!r}. Read that code, then allow it with "
            f"trust_remote_code = true.",
            setting="trust_remote_code",
        )
    if allowed and not requesting:
        raise OptionError(
            "trust_remote_code is allowed, but no recipe requests a model's own code. Do not "
            "allow it, or set model.trust_remote_code = true in the recipe.",
            setting="model.trust_remote_code",
        )


def _replace_data(values: dict[str, Any], source: str) -> None:
    section = values.setdefault("data", {})
    for specific_key in (
        "text",
        "text_pair",
        "label",
        "config",
        "revision",
        "leakage_limit",
        "token_lengths",
        "classes",
    ):
        section.pop(specific_key, None)
    section["source"] = source


def _data_note(recipe: Recipe) -> str:
    data = recipe.data
    sizes = f"{data.train}/{data.validation}/{data.test}"
    note = f"data replaced by {data.source!r}; train/validation/test sizes stay as set ({sizes})"
    if data.train != "all" and recipe.has_quality:
        note += '; set data.train = "all" to train on all of it'
    if data.test_split != "test":
        note += f"; test is taken from its {data.test_split} split, if it has one"
    return note


def _replace_model(values: dict[str, Any], source: str) -> str:
    section = values.setdefault("model", {})
    tuned_for = section.get("source")
    for specific_key in ("revision", "trust_remote_code"):
        section.pop(specific_key, None)
    section["source"] = source
    return (
        f"warning: the learning rates were tuned for {tuned_for!r}, not for {source!r}; "
        f"a method may look worse than it is"
    )


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
        raise OptionError(unknown("weights", weights, allowed), setting="model.weights")
    values.setdefault("model", {})["weights"] = weights


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Set `KEY=VALUE` in `values`.

    The key is a dotted TOML path. The value is TOML; a bare word is a string.
    """
    key, equals, text = setting.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise OptionError(
            f"setting {setting!r} should have the form KEY=VALUE, for example budget.epochs=2."
        )
    section = values
    for part in path[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise OptionError(f"setting {setting!r}: {part!r} is a value, not a section.")
    section[path[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, or too many digits or brackets
        return text
    return parsed["value"] if list(parsed) == ["value"] else text
