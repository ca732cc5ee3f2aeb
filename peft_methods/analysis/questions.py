"""The questions that recommendations answer, and the type of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from peft_methods.analysis.constraints import Constraints
from peft_methods.analysis.pairs import PairwiseComparison


class QuestionKind(Enum):
    """The question that a recommendation answers."""

    BEST_QUALITY = "best_quality"
    LEAST_MEMORY = "least_memory"
    FITS_IN_MEMORY = "fits_in_memory"  # asked instead of LEAST_MEMORY if memory is limited
    FASTEST_CLOSE_TO_BEST = "fastest_close_to_best"
    SMALLEST_CHECKPOINT = "smallest_checkpoint"
    WITHIN_LIMITS = "within_limits"  # asked only if a method is not within the limits


QUESTIONS = {
    QuestionKind.BEST_QUALITY: "Best quality",
    QuestionKind.LEAST_MEMORY: "Least memory",
    QuestionKind.FITS_IN_MEMORY: "Fits in {memory}",
    QuestionKind.FASTEST_CLOSE_TO_BEST: "Fastest within {margin} of the best",
    QuestionKind.SMALLEST_CHECKPOINT: "Smallest checkpoint",
    QuestionKind.WITHIN_LIMITS: "Within {limits}",
}


@dataclass(frozen=True)
class Recommendation:
    """The answer to one question.

    `method` is None if no method qualifies. `against` is the comparison that the answer rests on.
    `highest` is the method of the highest quality if `method` is a cheaper one that is not
    separable from it.
    """

    recipe: str
    kind: QuestionKind
    question: str
    method: str | None
    text: str
    against: PairwiseComparison | None = None
    highest: str | None = None

    def __str__(self) -> str:
        return f"{self.question}: {self.text}"


def question(kind: QuestionKind, limits: Constraints, margin: str) -> str:
    """Format a question with the limits and the margin that it mentions."""
    memory = limits["memory"].written if "memory" in limits else ""
    written = ", ".join(f"{name} {limit.written}" for name, limit in limits.items())
    return QUESTIONS[kind].format(memory=memory, limits=written, margin=margin)
