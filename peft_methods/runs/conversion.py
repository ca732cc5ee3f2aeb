"""Convert a saved adapter to LoRA, and measure what it loses: error, and quality on test rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peft_methods.data.facts import TokenData
from peft_methods.methods.base import Method
from peft_methods.methods.conversion import LoRAAdapter, as_lora, refusal
from peft_methods.models.loading import LoadedModel
from peft_methods.recipes.bundled_names import bundled_name
from peft_methods.runs.description import read_description, run_of
from peft_methods.runs.export import load_base, load_peft, load_trained, save_other_files
from peft_methods.runs.isolation.kept import Kept
from peft_methods.runs.prepare import set_up_process
from peft_methods.runs.scores import predict_last, quality_of
from peft_methods.runs.spec import RunSpec
from peft_methods.training.collate import make_collator
from peft_methods.utils.errors import DataError, ModelError

WEIGHTS = "adapter_model.safetensors"  # PEFT's name


@dataclass(frozen=True)
class Measured:
    """An adapter with its test scores, which are empty where the recipe has no quality.

    `parameters` leaves the head out. `error` is the Frobenius norm of the difference between the
    converted and the original change of all matrices, as a share of that of the original change.
    `folder` is where it was saved.
    """

    method: Method
    rank: int | None
    parameters: int | None
    scores: Mapping[str, float] = field(default_factory=dict)
    error: float | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Conversion:
    """A saved adapter and its conversions, by rank, measured on the same test rows."""

    run: RunSpec
    rows: int
    original: Measured
    converted: tuple[Measured, ...]


def convert(
    folder: Path,
    ranks: Sequence[int],
    *,
    output: Path | None = None,
    data: str | None = None,
    base: str | None = None,
    device: str = "cpu",
    threads: int = 1,
    trust_remote_code: bool = False,
) -> Conversion:
    """Convert a saved adapter to LoRA of each of these ranks.

    It is measured on the test rows of its recipe. `data` and `base` are the places of the data and
    the base model if they have moved. With `output` the adapters are saved there: in the folder
    itself, or for several ranks in folders of it. Raises `ModelError` for a folder without a
    convertible adapter, `DataError`, and `OptionError` for a rank above the matrices.
    """
    saved = read_description(folder)
    run = _moved(run_of(saved, folder), data, base, device)
    if (problem := refusal(run.method)) is not None:
        raise ModelError(f"{folder}: {problem}")
    if run.recipe.model.trust_remote_code and not trust_remote_code:
        raise ModelError(
            f"{folder}: its base model runs Python code from its repository. Read that code, then "
            f"give --trust-remote-code."
        )
    set_up_process(threads)
    loaded = load_base(saved, run.recipe.model, run.method, folder, device=device)
    model: Any = load_peft(loaded, run.method, folder).to(device).eval()
    found = [as_lora(model, run.method, rank, loaded.head) for rank in ranks]
    adapters = {adapter.method.rank: adapter for adapter in found}
    bench = _Bench(run, loaded, _tokens(run, loaded, folder))
    original = bench.measured(run.method, model)
    with tempfile.TemporaryDirectory() as scratch:
        root = output or Path(scratch)
        converted = []
        for rank, adapter in adapters.items():
            place = root / f"rank-{rank}" if len(adapters) > 1 else root
            other = bench.saved_and_loaded(adapter, place)
            error = error_of_change(model, other, adapter.layers)
            one = bench.measured(adapter.method, other)
            converted.append(replace(one, error=error, folder=place if output else None))
    return Conversion(run, len(bench.tokens.test), original, tuple(converted))


@dataclass(frozen=True)
class _Bench:
    """What adapters of one run are measured with: its base model and its rows."""

    run: RunSpec
    base: LoadedModel
    tokens: TokenData

    def measured(self, method: Method, model: nn.Module) -> Measured:
        """Return an adapter's parameters and the model's test scores."""
        collate = make_collator(self.run.recipe, self.base.tokenizer)
        predictions = predict_last(self.run, model, self.tokens, collate)
        quality = quality_of(self.run, predictions, self.tokens.facts.label_names)
        return Measured(
            method,
            getattr(method, "rank", None),
            method.expected_trainable(self.base.architecture),
            {} if quality is None else quality.scores,
        )

    def saved_and_loaded(self, adapter: LoRAAdapter, folder: Path) -> nn.Module:
        """Save a converted adapter as a run with LoRA is saved, and load it as its users will."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in adapter.tensors.items()}, folder / WEIGHTS)
        adapter.config.save_pretrained(str(folder))
        own = replace(self.run, method=adapter.method)
        save_other_files(own, self.base, folder, converted_from=self.run.method.title)
        source, device = self.run.recipe.model.source, self.run.device
        model = load_trained(folder, base=source, device=device, trust_remote_code=True)
        return model.to(device)


def _moved(run: RunSpec, data: str | None, base: str | None, device: str) -> RunSpec:
    """Return the run on this device, with its data and its model in these places."""
    recipe = run.recipe
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, source=bundled_name(data)))
    if base is not None:
        recipe = replace(recipe, model=replace(recipe.model, source=bundled_name(base)))
    return replace(run, recipe=recipe, device=device)


def _tokens(run: RunSpec, loaded: LoadedModel, folder: Path) -> TokenData:
    """Return the tokens of the run's rows. Raises `DataError` if their labels are others."""
    kept = Kept()
    names = kept.texts(run).facts.label_names
    known = tuple(loaded.model.config.id2label.values())
    if names and names != known:
        raise DataError(
            f"{run.recipe.data.source!r} has the labels {', '.join(names)}, and the model in "
            f"{folder} those of other data: {', '.join(known)}",
            setting="data.source",
        )
    return kept.tokens(run, loaded.tokenizer, loaded.tokenizer_sha256)


@torch.no_grad()
def error_of_change(model: Any, other: Any, layers: Sequence[str]) -> float:
    """Return how far another model's layers are from these, as a share of this adapter's change.

    Both are models of PEFT over the same base. A layer's matrix is what it makes of the identity.
    """
    change = difference = 0.0
    for name in layers:
        layer, second = model.get_submodule(name), other.get_submodule(name)
        weight = layer.get_base_layer().weight
        transposed = type(layer.get_base_layer()) is not torch.nn.Linear  # GPT-2's
        inputs = torch.eye(weight.shape[0 if transposed else 1], device=weight.device)
        plain, own = layer.get_base_layer()(inputs), layer(inputs)
        change += float((own - plain).square().sum())
        difference += float((second(inputs) - own).square().sum())
    return (difference / change) ** 0.5 if change else 0.0
