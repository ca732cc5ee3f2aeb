"""Why an estimate is as it is, in words: one rule for each thing that surprises people.

A rule returns a sentence where its condition holds, else None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from peft_methods.estimation.operations import StepProgram
from peft_methods.estimation.results import MemoryEstimate, MethodEstimate
from peft_methods.methods.base import MethodInfo
from peft_methods.utils.units import format_bytes

FEW = 0.1  # share of trained parameters; with more, nobody expects that memory or time falls
RULES_THE_PEAK = 0.5  # share of the peak
MUCH_OF_THE_PEAK = 0.2  # share of the peak, of one tensor
NEAR = 0.8  # of full fine-tuning's
HARDLY_FASTER = 0.6  # of full fine-tuning's time
NAMES = {"optimizer_state": "the optimizer's state"}
WAYS_OUT = {
    "activations": "smaller batches, shorter rows and gradient checkpointing lower them, and fewer "
    "trained parameters do not",
    "weights": "a smaller model or weights in 4 or 8 bits lower them",
    "optimizer_state": "fewer trained parameters lower it",
    "gradients": "fewer trained parameters lower them",
}
WAYS_LEFT = {  # for a run that has gradient checkpointing, or quantised weights
    "activations": "smaller batches and shorter rows lower them, and fewer trained parameters do "
    "not",
    "weights": "a smaller model lowers them",
}


@dataclass(frozen=True)
class Seen:
    """An estimate and what explains it. `flops` and `logits_bytes` are those of a step.

    `has_checkpointing`: activations are computed again in the backward pass.
    """

    info: MethodInfo
    estimate: MethodEstimate
    memory: MemoryEstimate
    flops: int = 0
    logits_bytes: int = 0
    has_checkpointing: bool = False

    @property
    def share(self) -> float:
        """The share of trained parameters."""
        return self.estimate.trainable / max(1, self.estimate.total)


Scene = Mapping[str, Seen]  # every method that was estimated, by name
Rule = Callable[[Seen, Scene], str | None]


def explanations(seen: Seen, scene: Scene) -> dict[str, str]:
    """Return the sentence of every rule that applies to a method among others, by rule."""
    found = {name: rule(seen, scene) for name, rule in RULES.items()}
    return {name: sentence for name, sentence in found.items() if sentence}


def logits_bytes(program: StepProgram, vocabulary: int) -> int:
    """Return the size of the largest tensor of logits in a step, 0 without one.

    That is a tensor of (tokens, vocabulary) numbers which an operation reads, other than a product:
    products read weights of such a shape too. A loss that never holds the logits of all tokens has
    smaller ones.
    """
    sizes = [
        math.prod(shape) * one.dtype.itemsize
        for one in program.operations
        if one.part != "optimizer" and not one.flops and one.dtype is not None
        for shape in one.shapes
        if len(shape) >= 2 and shape[-1] == vocabulary
    ]
    return max(sizes, default=0)


def _above_its_counterpart(seen: Seen, scene: Scene) -> str | None:
    """Explain quantised weights that need more memory than whole ones."""
    other = scene.get(seen.info.unquantized_counterpart or "")
    if other is None or seen.memory.peak <= other.memory.peak:
        return None
    parts, others = seen.memory.parts, other.memory.parts
    saved = others.get("weights", 0) - parts.get("weights", 0)
    more = {name: size - others.get(name, 0) for name, size in parts.items() if name != "weights"}
    largest = sorted((name for name in more if more[name] > 0), key=lambda name: -more[name])[:2]
    named = " and ".join(f"{_name(name)} {format_bytes(more[name])}" for name in largest)
    effect = f"save {format_bytes(saved)}" if saved > 0 else "save nothing here"
    return (
        f"{seen.info.title}'s peak is {format_bytes(seen.memory.peak - other.memory.peak)} above "
        f"{other.info.title}'s: its weights {effect}, but {named} are added. Each linear "
        "layer dequantises its weights to the precision of products in a temporary buffer. "
        "Quantisation saves memory where the weights are large beside the batch."
    )


def _hardly_faster(seen: Seen, scene: Scene) -> str | None:
    """Explain a method that trains little and still takes much of full fine-tuning's time."""
    full = _full(scene)
    if full is None or full is seen or seen.share > FEW or not full.flops:
        return None
    both = seen.estimate.time, full.estimate.time
    if both[0] is None or both[1] is None:
        ratio, of_what = seen.flops / full.flops, "FLOPs"
    else:
        ratio = both[0].train_seconds.expected / both[1].train_seconds.expected
        of_what = "time"
    if ratio < HARDLY_FASTER:
        return None
    return (
        f"{seen.info.title} takes {ratio:.0%} of the {of_what} of {full.info.title.lower()}, "
        f"although it trains {seen.share:.2%} of the parameters: the forward pass and the gradient "
        "of the activations remain; only the gradient of the frozen weights is saved."
    )


def _as_much_as_full(seen: Seen, scene: Scene) -> str | None:
    """Explain a method that trains little and still needs nearly the memory of full fine-tuning."""
    full = _full(scene)
    if full is None or full is seen or seen.share > FEW:
        return None
    kept = [one.memory.parts.get("activations", 0) for one in (seen, full)]
    ratio = seen.memory.peak / full.memory.peak
    if ratio < NEAR or kept[0] < NEAR * kept[1]:
        return None
    saved = sum(
        full.memory.parts.get(name, 0) - seen.memory.parts.get(name, 0)
        for name in ("gradients", "optimizer_state")
    )
    return (
        f"{seen.info.title} needs {ratio:.0%} of the memory of {full.info.title.lower()}, although "
        f"it trains {seen.share:.2%} of the parameters: it changes every layer, so the activations "
        f"of all layers are kept ({format_bytes(kept[0])}). Gradients and the optimizer's state "
        f"save {format_bytes(max(0, saved))}."
    )


def _logits_rule(seen: Seen, scene: Scene) -> str | None:
    """Name the logits where one tensor of them is much of the peak."""
    share = seen.logits_bytes / seen.memory.peak
    if share < MUCH_OF_THE_PEAK:
        return None
    return (
        f"One tensor of logits (every token times the whole vocabulary) takes "
        f"{format_bytes(seen.logits_bytes)} of {seen.info.title}'s peak, and its gradient as much: "
        "smaller batches or shorter rows lower it, and no method does."
    )


def _part_that_rules(part: str, seen: Seen, scene: Scene) -> str | None:
    """Name a part that is most of the peak."""
    share = seen.memory.parts.get(part, 0) / seen.memory.peak
    if share < RULES_THE_PEAK:
        return None
    verb = "is" if part == "optimizer_state" else "are"
    has_it = {"activations": seen.has_checkpointing, "weights": bool(seen.info.quantization)}
    ways = WAYS_LEFT if has_it.get(part) else WAYS_OUT
    return (
        f"{_name(part).capitalize()} {verb} {share:.0%} of {seen.info.title}'s peak: {ways[part]}."
    )


RULES: Mapping[str, Rule] = {
    "above its counterpart": _above_its_counterpart,
    "as much memory as full": _as_much_as_full,
    "hardly faster than full": _hardly_faster,
    "logits": _logits_rule,
    **{part: partial(_part_that_rules, part) for part in WAYS_OUT},
}


def _full(scene: Scene) -> Seen | None:
    """Return the first method that trains every weight."""
    return next((one for one in scene.values() if one.info.scope == "all"), None)


def _name(part: str) -> str:
    return NAMES.get(part, part)
