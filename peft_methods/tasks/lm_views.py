"""Views of a language model's results: facts about generated texts, and samples of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from peft_methods.tasks.lm_predictions import Generated
from peft_methods.tasks.metrics import NUMBER, SHARE
from peft_methods.tasks.views import TableView, TextsView, View

LONGEST = 400  # characters of a shown text
FACTS = (
    ("mean_tokens", "Mean tokens", NUMBER),
    ("stopped", "Ended by themselves", SHARE),
    ("answered", "With an answer", SHARE),
    ("empty", "Empty", SHARE),
)


def samples(made: Generated) -> list[dict[str, str]]:
    """Return prompt, first reference and generated text of the first rows, each shortened."""
    return [
        {"prompt": _short(prompt), "reference": _short(right[0]), "generated": _short(text)}
        for prompt, right, text in zip(made.prompts, made.references, made.texts, strict=False)
    ]


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def language_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[View, ...]:
    """Return the facts as means over the runs, and the samples of the first run."""
    known = [one for one in qualities if one.get("generation")]
    if not known:
        return ()
    facts = TableView(
        name="generation",
        title="Generated texts",
        about="Test rows",
        columns=tuple((title, unit) for _, title, unit in FACTS),
        rows=(f"{known[0]['generation']['rows']:,.0f}",),
        values=(tuple(fmean(one["generation"][name] for one in known) for name, _, _ in FACTS),),
        runs=len(known),
    )
    shown = known[0].get("samples") or []
    texts = TextsView(
        name="samples",
        title="Samples of the first run",
        about="Test row",
        columns=("Prompt", "Reference", "Generated"),
        rows=tuple(str(number) for number in range(1, len(shown) + 1)),
        values=tuple((one["prompt"], one["reference"], one["generated"]) for one in shown),
    )
    return (facts, texts) if shown else (facts,)


def fallback_remark(qualities: Sequence[Mapping[str, Any]]) -> str:
    """Return why transformers' `generate` wrote the texts of some runs, or ''."""
    facts = [one.get("generation") or {} for one in qualities]
    reasons = dict.fromkeys(one["fallback"] for one in facts if one.get("fallback"))
    if not reasons:
        return ""
    return (
        f"Texts were generated in padded batches, which takes longer than refilled slots: "
        f"{'; '.join(reasons)}."
    )
