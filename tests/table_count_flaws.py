"""Plants mistakes in the counts of honest tables."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from peft_methods.analysis.checks.parameter_counts import DENSE_HEADS
from table_builders import Table, with_tokens
from table_planting import Flaw, Planter, part, with_flaw


def _impossible_count(rng: random.Random, table: Table) -> Flaw | None:
    """An odd number more than possible: no rank, target, bias or further class explains it."""
    found, hidden = part(table, "lora", "ia3"), table.architecture.hidden
    if found is None or hidden < 768 or table.architecture.labels > 20:
        return None
    index, row = found
    more = 2 * rng.randint(150, 350) + 1
    return with_flaw(table, index, "trainable model", trainable=(row.trainable or 0) + more)


def _head_not_trained(rng: random.Random, table: Table) -> Flaw | None:
    found, model = part(table, "lora", "ia3"), table.architecture
    if found is None or model.model_type not in DENSE_HEADS or model.model_type == "modernbert":
        return None
    index, row = found
    dense = model.hidden * model.hidden + model.hidden
    return with_flaw(table, index, "trainable model", trainable=(row.trainable or 0) - dense)


def _head_alone(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table, "lora", "ia3")
    if found is None or not table.architecture.head_parameters:
        return None
    return with_flaw(
        table, found[0], "trainable model", trainable=table.architecture.head_parameters
    )


def _nothing_trained(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table)
    return found and with_flaw(table, found[0], "trainable", trainable=0)


def _nothing_frozen(rng: random.Random, table: Table) -> Flaw | None:
    found, full = part(table), table.index_of("full")
    if found is None or full is None:
        return None
    return with_flaw(table, found[0], "trainable", trainable=table.rows[full].trainable)


def _share(rng: random.Random, table: Table) -> Flaw | None:
    found = part(table)
    if found is None or not 1e-4 < (found[1].share or 0) < 0.02:
        return None
    factor = rng.choice((10, 40))
    return with_flaw(table, found[0], "trainable total share", share=(found[1].share or 0) * factor)


def _head_on_one_side(rng: random.Random, table: Table) -> Flaw | None:
    """A method's count without the head beside full fine-tuning's with it."""
    found, head = part(table, "lora", "ia3"), table.architecture.head_parameters
    if found is None or table.index_of("full") is None or head < 100_000:
        return None
    own = (found[1].trainable or 0) - head
    return with_flaw(table, found[0], "trainable model", trainable=own)


def _same_count(rng: random.Random, table: Table) -> Flaw | None:
    """The same rank on two and on four matrices, with the count of the first for both."""
    found = part(table, "lora")
    if found is None:
        return None
    index, row = found
    twice = replace(row, name="LoRA r=8, Q+K+V+O")
    rows = (*table.changed(index, name="LoRA r=8, Q+V").rows, twice)
    return Flaw(replace(table, rows=rows), "LoRA", ("trainable",))


def _virtual_tokens(rng: random.Random, table: Table) -> Flaw | None:
    changed = with_tokens(table, rng.choice((10, 20, 30)), factor=rng.choice((0.955, 1.17)))
    return changed and Flaw(changed, "Prefix", ("trainable", "model"))


def _share_of_another(rng: random.Random, table: Table) -> Flaw | None:
    """The same count as another row's, but several times its share."""
    found, full = part(table, "lora"), table.index_of("full")
    if found is None or full is None or not table.rows[full].total:
        return None
    row = found[1]
    twin = replace(row, name="LoRA (second run)", share=(row.share or 0) * rng.choice((5, 20)))
    changed = replace(table, rows=(*table.rows, twin))
    return Flaw(changed, "LoRA", ("trainable", "share"))


COUNT_FLAWS: Mapping[str, Planter] = {
    "impossible count": _impossible_count,
    "head not trained": _head_not_trained,
    "head alone trained": _head_alone,
    "nothing trained": _nothing_trained,
    "nothing frozen": _nothing_frozen,
    "share": _share,
    "head": _head_on_one_side,
    "same count": _same_count,
    "virtual tokens": _virtual_tokens,
    "share of another": _share_of_another,
}
