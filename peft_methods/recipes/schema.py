"""Recipes: TOML files that name the model, the data, the budget and the methods' settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from peft_methods.recipes.bundled_names import bundled_name
from peft_methods.recipes.language_data import LanguageData
from peft_methods.recipes.parallel import Strategy, checked_strategy
from peft_methods.recipes.variation import USUAL, check_parts, row_seeds, seed_of
from peft_methods.utils.errors import OptionError

DEFAULT_TASK, DEFAULT_METRIC = "text_classification", "accuracy"  # of recipes that name none
STRICT = ConfigDict(extra="forbid", strict=True)
Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Dropout = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]  # 1 would leave nothing
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Count | Literal["all"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class ModelSpec:
    """The encoder to fine-tune: `bundled:NAME`, a folder, or a hub id (`revision` pins it).

    Random weights only need the model's sizes: those of an architecture preset (by hub id) or of a
    local config. With `trust_remote_code` the model's own Python files are executed, provided that
    the user who starts the session allows it too (see `check_trust`).
    """

    __pydantic_config__ = STRICT
    source: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", bundled_name(self.source))


@dataclass(frozen=True)
class DataSpec(LanguageData):
    """The texts, the sizes of the disjoint splits, and the columns with texts and labels.

    `sizes` says what `train`, `validation` and `test` mean. `exact`, the default: a source with
    fewer rows is refused, since who writes sizes beside a source relies on them. `at_most`: they
    are upper limits. What is there is used, and a split that is missing is cut from train. This is
    the default where other data replaces the source, since the sizes were written for the old one;
    a recipe that says `sizes = "exact"` keeps them there too.

    `seed` selects the rows. It is the same for every run, so all methods and seeds see the same
    splits, unless seeds draw training or validation rows (`budget.vary`). Columns that are not
    named are inferred. `select_by` is the validation metric that selects the best epoch: one of the
    task's, by default its first. `rank_by` is the test metric that methods are compared by, by
    default the same.

    `test_split` names the source's split that test rows are taken from: `validation` if the source
    hides its test labels, `train` to cut the test rows from train. If the source lacks the named
    split, its `test` split is used. Validation rows come from the source's own split or are cut
    from train: at random (`rows`), or as whole `sentences`, which are train texts contained in no
    other text. In the second case every train text contained in one of them is removed from train.
    `leakage_limit` is the share of test texts that may also occur in train before the source is
    refused. Such texts are removed from train in any case.

    `train_subset` is the number of train rows that each run trains on, drawn at random by the run's
    seed; None: all of them. For one seed, a larger subset contains every smaller one. A learning
    curve sets it.

    `token_lengths` and `classes` describe the texts for runs that cannot read them (random weights
    without a tokenizer): evenly spaced quantiles of the rows' token counts, from the minimum to the
    maximum, and the number of classes.
    """

    __pydantic_config__ = STRICT
    source: Annotated[str, Field(min_length=1)]
    train: Size
    validation: Size
    test: Size
    sizes: Literal["exact", "at_most"] = "exact"
    max_length: Annotated[int, Field(ge=4)] = 128
    select_by: str | None = None
    rank_by: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    config: str | None = None
    revision: str | None = None
    test_split: Literal["test", "validation", "train"] = "test"
    validation_by: Literal["rows", "sentences"] = "rows"
    leakage_limit: Share = 0.01
    seed: Seed = 0
    train_subset: Count | None = None
    token_lengths: tuple[int, ...] | None = None
    classes: Annotated[int, Field(ge=2)] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", bundled_name(self.source))
        self.check_language()
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
    row of the batch; `fixed` shuffles the rows and pads to `data.max_length`; `packed` has the
    batches of `fixed`, with rows one after the other instead of padded. `early_stopping`:
    training ends after this many consecutive epochs without a rise of `data.select_by` on the
    validation data; 0 disables it. The learning rate schedule always spans all epochs.

    `vary` lists what differs between seeds; the rest is the same for all. `initialisation`: the
    initial weights of the head and of the method. `data_order`: the order of the training rows.
    `dropout`: the masks. `training_subset`: which rows are trained on. `split`: which rows are for
    validation; training rows are among the others. Test rows never vary, and at each seed every
    method has the same rows. The default is the first three. With fewer of them the spread over
    seeds is that of these parts only.

    A run takes `gpus` GPUs, or on a CPU as many processes, which share each batch. `strategy`: with
    `ddp`, the default for several, each holds the whole model; with `fsdp` a part of it.
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
    padding: Literal["dynamic", "fixed", "packed"] = "dynamic"
    early_stopping: NotNegativeCount = 0
    evaluation_batch_size: Count = 64
    vary: tuple[str, ...] = USUAL
    gpus: Count = 1
    strategy: Strategy | None = None

    def __post_init__(self) -> None:
        strategy = checked_strategy(self.gpus, self.strategy, self.batch_size)
        object.__setattr__(self, "strategy", strategy)
        if not isinstance(self.seeds, int) and len(set(self.seeds)) < len(self.seeds):
            raise OptionError(
                f"budget.seeds = {list(self.seeds)} contains a seed twice; its run would count "
                f"twice. Give each seed once.",
                setting="budget.seeds",
            )
        object.__setattr__(self, "vary", check_parts(self.vary))

    def seed_list(self) -> tuple[int, ...]:
        """Return the seeds as a tuple: 3 means 0, 1, 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def seed_of(self, part: str, seed: int) -> int:
        """Return the seed of a part's random stream in the run with this seed."""
        return seed_of(part, seed, self.vary)

    def row_seeds(self, seed: int) -> dict[str, int]:
        """Return the seeds that draw the rows of this run, by split; empty if rows do not vary."""
        return row_seeds(seed, self.vary)


@dataclass(frozen=True)
class Expect:
    """What a sound session must reach: test accuracy above the majority class by this margin.

    Tasks without accuracy have the metric that methods are compared by, and the task's trivial
    predictor, instead. 0.10 means 10 percentage points. Without `above_majority`, a run may also
    learn nothing: this is for training sets so small that nothing is expected.
    """

    __pydantic_config__ = STRICT
    margin_over_majority: Share = 0.0
    above_majority: bool = True


@dataclass(frozen=True)
class Tuning:
    """How tuning searches for learning rates, the same for every method.

    A trial trains for `fraction` of the epochs. The best trial's settings and the recipe's own are
    then trained in full with `seeds` new seeds, to measure the gain. The grid has `points` rates,
    evenly spaced on a logarithmic scale from the method's own rate divided by `reach` to that rate
    times `reach`. `knobs` adds hyperparameters to the search: the values to try, by method and
    name.
    """

    __pydantic_config__ = STRICT
    fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    seeds: Annotated[int, Field(ge=2)] = 3
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
    """Model, data, task, budget and the hyperparameters of each method.

    `task` names a registered task, which decides labels, loss and metrics. `notes` are printed
    below the recipe's table. `curve_of` is set for one size of a learning curve: the name of the
    recipe that the curve is of. `models_of` is set for one of several models: the name of the
    recipe that all of them are trained with.
    """

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    model: ModelSpec
    data: DataSpec
    budget: Budget
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    task: str = DEFAULT_TASK
    title: str = ""
    gpu: bool = False
    expect: Expect = Expect()
    tuning: Tuning = Tuning()
    notes: tuple[str, ...] = ()
    curve_of: str = ""
    models_of: str = ""

    def __post_init__(self) -> None:
        """Name the selection metric of a text classification."""
        if self.task == DEFAULT_TASK and self.data.select_by is None:
            object.__setattr__(self, "data", replace(self.data, select_by=DEFAULT_METRIC))

    @property
    def selection_metric(self) -> str:
        """The validation metric that selects the best epoch."""
        assert self.data.select_by is not None, "planning fills it in (`with_task`)"
        return self.data.select_by

    @property
    def ranking_metric(self) -> str:
        """The test metric by which methods are compared, by default the selection metric."""
        return self.data.rank_by or self.selection_metric

    @property
    def has_quality(self) -> bool:
        """Whether quality is meaningful.

        Random weights show the cost of training, not its benefit.
        """
        return self.model.weights == "pretrained"


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
