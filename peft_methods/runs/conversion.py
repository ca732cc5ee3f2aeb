"""Convert a saved adapter to LoRA, and measure what it loses: error, and quality on test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_methods.data.facts import TokenData
from peft_methods.methods.base import Method
from peft_methods.methods.conversion import LoRAAdapter, as_lora, refusal
from peft_methods.models.loading import LoadedModel
from peft_methods.recipes.bundled_names import bundled_name
from peft_methods.runs.description import DESCRIPTION, method_of, read_description, run_of
from peft_methods.runs.export import (
    load_base,
    load_trained,
    refuse_code,
    save_other_files,
)
from peft_methods.runs.isolation.kept import Kept
from peft_methods.runs.prepare import set_up_process
from peft_methods.runs.saved_adapter import PEFT_WEIGHTS, load_peft
from peft_methods.runs.scores import predict_last, quality_of
from peft_methods.runs.spec import RunSpec
from peft_methods.training.collate import make_collator
from peft_methods.utils.errors import DataError, ModelError, OptionError, first_line
from peft_methods.utils.new_folder import new_folder


@dataclass(frozen=True)
class Measured:
    """An adapter with its test scores, which are empty where the recipe has no quality.

    `parameters` leaves the head out. `error` is the Frobenius norm of the converted minus the
    original update of all matrices, divided by that of the original update. `folder` is where it
    was saved.
    """

    method: Method
    rank: int | None
    parameters: int | None
    scores: Mapping[str, float] = field(default_factory=dict)
    error: float | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Conversion:
    """A saved adapter and its conversions, by rank, measured on the same test rows.

    `run` trained the adapter, or the one that it was converted from: `converted_from` is then the
    title of that method. `rows` counts the test rows, and `same_rows` says whether the data are
    those of the run.
    """

    run: RunSpec
    converted_from: str
    rows: int
    same_rows: bool
    original: Measured
    converted: tuple[Measured, ...]


def convert(
    folder: Path,
    ranks: Sequence[int],
    *,
    output: Path | None = None,
    data: str | None = None,
    test_data: str | None = None,
    base: str | None = None,
    device: str = "cpu",
    threads: int = 1,
    trust_remote_code: bool = False,
) -> Conversion:
    """Convert a saved adapter to LoRA of each of these ranks.

    It is measured on the test rows of its recipe. `data`, `test_data` and `base` are the places of
    the data, of test rows with a source of their own, and of the base model, if they have moved.
    Other rows than those of the run are measured only if their place is given. With `output` the
    adapters are saved there, in a new or an empty folder: in the folder itself, or for several
    ranks in folders of it. Raises `ModelError` for a folder without a convertible adapter,
    `DataError`, and `OptionError` for a rank above the matrices and for `output`.
    """
    saved = read_description(folder)
    trained, method = run_of(saved, folder), method_of(saved, folder)
    if (problem := refusal(method)) is not None:
        raise ModelError(f"{folder}: {problem}")
    run = _moved(trained, data, test_data, base, device)
    refuse_code(run.recipe.model, folder, is_trusted=trust_remote_code)
    with new_folder(output, last=DESCRIPTION) as root:
        set_up_process(threads, device=device)
        loaded = load_base(saved, run.recipe.model, method, folder, device=device)
        model: Any = load_peft(loaded, method, folder).to(device).eval()
        found = [as_lora(model, method, rank, loaded.head) for rank in ranks]
        adapters = {adapter.method.rank: adapter for adapter in found}
        tokens = _tokens(run, loaded, folder)
        same = tokens.facts.fingerprint == saved["data_sha256"]
        if not same and data is None and test_data is None:
            raise DataError(
                f"{run.recipe.data.source!r} has other rows now than when the model in {folder} "
                f"was trained. Set data.source to the data of then, or to the data to measure on.",
                setting="data.source",
            )
        described = replace(run if same else _moved(trained, base=base), device=trained.device)
        bench = _Bench(run, described, saved["data_sha256"], loaded, tokens)
        original = bench.measured(method, model)
        converted = []
        for adapter in adapters.values():
            name = f"rank-{adapter.method.rank}" if len(set(ranks)) > 1 else ""
            one = bench.converted(model, adapter, root / name)
            converted.append(replace(one, folder=None if output is None else output / name))
    return Conversion(
        run,
        saved.get("converted_from", ""),
        len(tokens.test),
        same,
        original,
        tuple(converted),
    )


@dataclass(frozen=True)
class _Bench:
    """What adapters of one run are measured with: its base model and its rows.

    `described` is the run as the saved adapters describe it, and `data_sha256` the fingerprint of
    its rows.
    """

    run: RunSpec
    described: RunSpec
    data_sha256: str
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

    def converted(self, model: nn.Module, adapter: LoRAAdapter, folder: Path) -> Measured:
        """Save a converted adapter, and measure it beside the original as its users load it."""
        try:
            self._save(adapter, folder)
        except (OSError, SafetensorError) as error:
            raise OptionError(
                f"the converted adapter cannot be saved: {first_line(error)}", setting="output"
            ) from None
        source, device = self.run.recipe.model.source, self.run.device
        other = load_trained(folder, base=source, device=device, trust_remote_code=True).to(device)
        loss = error_of_change(model, other, adapter.layers)
        return replace(self.measured(adapter.method, other), error=loss)

    def _save(self, adapter: LoRAAdapter, folder: Path) -> None:
        """Save a converted adapter as a run with LoRA is saved."""
        from safetensors.torch import save_file

        folder.mkdir(exist_ok=True)
        save_file({n: t.contiguous() for n, t in adapter.tensors.items()}, folder / PEFT_WEIGHTS)
        adapter.config.save_pretrained(str(folder))
        save_other_files(self.described, self.base, folder, self.data_sha256, adapter.method)


def _moved(
    run: RunSpec,
    data: str | None = None,
    test_data: str | None = None,
    base: str | None = None,
    device: str | None = None,
) -> RunSpec:
    """Return the run on this device, with its data and its model in these places.

    Raises `OptionError` for the place of test rows that have no source of their own.
    """
    recipe = run.recipe
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, source=bundled_name(data)))
    if test_data is not None:
        if recipe.data.test_source is None:
            raise OptionError(
                f"the recipe {recipe.name} takes its test rows from data.source: no other place of "
                f"them can be given.",
                setting="data.source",
            )
        recipe = replace(recipe, data=replace(recipe.data, test_source=bundled_name(test_data)))
    if base is not None:
        recipe = replace(recipe, model=replace(recipe.model, source=bundled_name(base)))
    return replace(run, recipe=recipe, device=device or run.device)


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
        base = layer.get_base_layer()
        width = base.weight.shape[0 if isinstance(base, Conv1D) else 1]
        inputs = torch.eye(width, device=base.weight.device)
        plain, own = base(inputs), layer(inputs)
        change += float((own - plain).square().sum())
        difference += float((second(inputs) - own).square().sum())
    return (difference / change) ** 0.5 if change else 0.0
