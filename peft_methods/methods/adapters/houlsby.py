"""Houlsby's adapters as a method of their own, to compare both placements in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peft_methods.methods.adapters.bottleneck import Adapter
from peft_methods.methods.base import MethodInfo


@dataclass(frozen=True, kw_only=True)
class HoulsbyAdapter(Adapter):
    """Two bottlenecks in each layer, each before a residual sum."""

    info = MethodInfo(
        name="houlsby_adapter",
        title="Houlsby adapter",
        family="adapters",
        order=2,
        paper="Houlsby et al. 2019, arXiv:1902.00751",
        citations=("houlsby2019adapters",),
        trained="bottlenecks after attention and after the feed-forward block",
        about=(
            "inserts two small trained blocks with a narrow middle into each frozen layer: after "
            "the attention and after the feed-forward block."
        ),
        aliases="houlsby",
        saved_format="peft_methods",
        needs="layer ends",
        learning_rates=Adapter.info.learning_rates,
    )

    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
