"""Which cases the grid has: drawn at random from all, so that pairs of settings occur often.

Every choice is of the candidate with the most pairs that have been rare so far. So the first cases
are as balanced as all are, and a grid that is cut short is a smaller grid.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

from estimate_cases import Case, known_methods, recipe_and_method

from peft_methods.estimation.question import DEVICE
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.tasks.registry import TASKS
from peft_methods.training.distributed.support import unsupported
from peft_methods.training.engine import replay_problem
from peft_methods.utils.errors import PeftMethodsError

SEED = 25
EAGER, COMPILED = 176, 16  # cases
CANDIDATES = 400  # of which one is chosen
ENCODERS = (
    "MiniLM-L6",
    "distilbert-base-uncased",
    "bert-base-uncased",
    "roberta-base",
    "mpnet-base",
    "electra-base",
    "deberta-v3-base",
    "ModernBERT-base",
    "roberta-large",
)
DECODERS = (
    "SmolLM2-135M",
    "gpt2",
    "gemma-3-270m",
    "Qwen2.5-0.5B",
    "Llama-3.2-1B",
    "Qwen2.5-1.5B",
    "Mistral-7B-v0.1",
    "Llama-3.1-8B",
)
# Rows and tokens of small, middle and large batches, by the size of the model
BASE, LARGER, BILLIONS = (
    ((3, 50), (16, 200), (32, 448)),
    ((2, 50), (8, 200), (16, 448)),
    ((1, 50), (3, 200), (6, 400)),
)
SHAPES = {
    "roberta-large": LARGER,
    "Qwen2.5-0.5B": LARGER,
    "Llama-3.2-1B": LARGER,
    "Qwen2.5-1.5B": LARGER,
    "Mistral-7B-v0.1": BILLIONS,
    "Llama-3.1-8B": BILLIONS,
}
# Methods of PEFT whose layers know quantised weights, beside those that are made for them
OVER_QUANTISED = (
    "lora_all",
    "rslora",
    "lora_plus",
    "adalora",
    "vera",
    "randlora",
    "oft",
    "road",
    "ia3",
)

# Not in the grid: the estimator refused these when it was drawn, and refuses torchao's still.
REFUSED = ("lora_torchao", "shira", "waveft")
# Not in the grid with models whose weights the estimator does not draw, see `MOST_DRAWN`
FROM_VALUES = ("qdora", "pissa", "olora", "eva", "loftq", "osf", "psoft", "adamss", "frod")
NOT_DRAWN = ("Llama-3.2-1B", "Qwen2.5-1.5B", "Mistral-7B-v0.1", "Llama-3.1-8B")


def eager_cases() -> list[Case]:
    """Return the cases of eager steps, the most telling first."""
    return drawn(EAGER, (*ENCODERS, *DECODERS), "trainer")


def compiled_cases() -> list[Case]:
    """Return the cases of packed rows and compiled layers."""
    return drawn(COMPILED, DECODERS, "cuda_graphs")


def drawn(count: int, architectures: tuple[str, ...], engine: str) -> list[Case]:
    """Return so many different cases, by the greedy choice of the module's docstring."""
    rng, counts, found = random.Random(SEED), Counter[Any](), dict[str, Case]()
    pairs = list(trainable(architectures, engine))
    while len(found) < count:
        candidates = [_candidate(rng, pairs, engine) for _ in range(CANDIDATES)]
        best = max(
            (one for one in candidates if one.key not in found),
            key=lambda one: _worth(one, counts),
        )
        found[best.key] = best
        counts.update(_facts(best))
    return list(found.values())


def levels(method: str) -> tuple[str, ...]:
    """Return the precisions that a method has in the grid."""
    own = METHODS[method].info.quantization
    if own is not None:
        return (own,)
    return ("bf16", "fp32", "nf4", "int8") if method in OVER_QUANTISED else ("bf16", "fp32")


def _candidate(rng: random.Random, pairs: list[tuple[str, str]], engine: str) -> Case:
    architecture, method = rng.choice(pairs)
    shape = rng.choice(SHAPES.get(architecture, BASE))
    precision = rng.choice(levels(method))
    return Case(architecture, method, precision, rng.random() < 0.5, *shape, engine)


def _facts(case: Case) -> Iterator[Any]:
    """Yield the settings of a case, and all pairs of them."""
    size = SHAPES.get(case.architecture, BASE).index((case.rows, case.tokens))
    width = {"fp4": "nf4"}.get(case.precision, case.precision)
    own = (
        ("architecture", case.architecture),
        ("method", case.method),
        ("precision", width),
        ("checkpointing", case.checkpointing),
        ("size", size),
    )
    yield from own
    yield from combinations(own, 2)


def _worth(case: Case, counts: Counter[Any]) -> float:
    """Return how rare the settings of a case and their pairs are so far."""
    return sum(2.0 ** -counts[one] for one in _facts(case))


def trainable(architectures: tuple[str, ...], engine: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of architecture and method that the grid may have: they can be trained."""
    for architecture in architectures:
        for method in known_methods():
            refused = method in REFUSED or (method in FROM_VALUES and architecture in NOT_DRAWN)
            if not refused and _is_trainable(architecture, method, engine):
                yield architecture, method


def _is_trainable(architecture: str, method: str, engine: str) -> bool:
    case = Case(architecture, method, levels(method)[0], checkpointing=False, rows=1, tokens=50)
    try:
        recipe, made = recipe_and_method(replace(case, engine=engine))
    except PeftMethodsError:
        return False
    if engine != "trainer" and replay_problem(made):
        return False
    loaded = _loaded(architecture)
    return unsupported(made, loaded.architecture, DEVICE, recipe.budget) is None


@cache
def _loaded(architecture: str) -> loading.LoadedModel:
    """Return the model without weights."""
    recipe, _ = recipe_and_method(Case(architecture, "full", "bf16", False, 1, 50))
    task = TASKS[recipe.task]
    names = task.random_label_names(recipe.data)
    return loading.load(recipe.model, task.head, names, device=loading.META)
