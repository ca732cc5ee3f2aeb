"""The model of a run, with its method, on the devices that train it."""

from __future__ import annotations

from torch import nn

from peft_methods.data.facts import TextData, TokenData
from peft_methods.models import loading
from peft_methods.runs.apply_context import context_of
from peft_methods.runs.isolation.kept import Kept
from peft_methods.runs.prepare import Prefetched, load
from peft_methods.runs.run_paths import RunPaths
from peft_methods.runs.spec import RunSpec


def model_of(
    run: RunSpec, paths: RunPaths, texts: TextData, prefetched: Prefetched | None, kept: Kept
) -> tuple[loading.LoadedModel, nn.Module]:
    """Return the loaded model and the same with the method applied; prefetched where possible."""
    if prefetched and prefetched.ready:
        return prefetched.ready.base, prefetched.ready.model.to(run.device)
    base = load(run, texts, first_device(run))

    def tokens() -> TokenData:
        if prefetched is not None:
            return prefetched.tokens
        return kept.tokens(run, base.tokenizer, base.tokenizer_sha256)

    context = context_of(run, base, texts.facts.label_names, paths.prerequisites, tokens)
    return base, run.method.apply(base.model, context)


def first_device(run: RunSpec) -> str:
    """Return the device that a model is loaded on.

    It is the host for a model that will be sharded and need not fit on one GPU. 4-bit weights are
    made on the GPU.
    """
    is_sharded = run.recipe.budget.strategy == "fsdp" and not run.method.info.quantization
    return "cpu" if is_sharded else run.device


def place(run: RunSpec, model: nn.Module) -> None:
    """Divide the model among the ranks if the budget says so."""
    if run.recipe.budget.strategy == "fsdp":
        from peft_methods.training.distributed.sharding import shard

        shard(model, run.device, run.recipe.budget.precision)
