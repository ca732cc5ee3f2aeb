"""V506: costs of a method over quantized weights that those weights cannot explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peft_methods.analysis.checks.names import are_other_devices
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import rule
from peft_methods.methods.registry import METHODS

# Limits of QLoRA's time per epoch as a multiple of LoRA's. For equal work we measured 0.8 to 2.
FASTER, SLOWER = 0.5, 4.0
# Most that 4-bit weights can save, per weight: 3.5 of its 4 bytes, and a half-precision copy.
SAVED_BYTES = 6.0
REPEATABLE_BYTES = 32 * 2**20  # a run's resident memory repeats to within this


@rule(
    "V506",
    "warning",
    "comparison",
    evidence=(
        "… times LoRA's time",
        "… MB less than LoRA, but 4-bit weights save only … MB",
    ),
    needs=(
        "train_seconds method",
        "peak_memory method total_parameters",
        "maximum_memory method total_parameters",
    ),
)
def unlike_work(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str, str]]:
    """QLoRA needed far more or less than LoRA: more than 4-bit weights can explain."""
    for row in rows:
        lora = _unquantized(row, rows)
        if lora is not None and (
            differences := [*_time_against(row, lora), *_memory_against(row, lora)]
        ):
            yield (
                row.name,
                "; ".join(differences),
                "give both the same precision, batch size, length and rows; note that "
                "prepare_model_for_kbit_training turns gradient checkpointing on",
            )


def _unquantized(row: ResultRow, rows: Sequence[ResultRow]) -> ResultRow | None:
    """The row of the method that does the same over unquantized weights.

    Of several it is the one with most of the row's settings, the first of those.
    """
    info = METHODS.info(row.method)
    counterpart = info.unquantized_counterpart if info else None
    found = [one for one in rows if counterpart and one.method == counterpart]
    return max(found, key=lambda one: _same_settings(row, one), default=None)


def _same_settings(row: ResultRow, other: ResultRow) -> tuple[int, int]:
    """How many of the method's settings, and of the budget's, are the same in both rows."""

    def same(names: str) -> int:
        pairs = [(getattr(row, name), getattr(other, name)) for name in names.split()]
        return sum(bool(one) and one == another for one, another in pairs)

    texts = [one.trainable.text for one in (row, other) if one.trainable]
    alike = len(texts) == 2 and texts[0] == texts[1]
    return same("rank targets bias") + alike, same("batch_size max_length epochs train_rows")


def _time_against(row: ResultRow, lora: ResultRow) -> Iterator[str]:
    """Report a time ratio that 4-bit weights cannot explain: unpacking costs time, saves none."""
    if (
        not row.train_seconds
        or not lora.train_seconds
        or are_other_devices(row.device, lora.device)
    ):
        return
    ratio, known = row.train_seconds / lora.train_seconds, row.epochs and lora.epochs
    if row.epochs and lora.epochs:
        ratio *= lora.epochs / row.epochs
    if not FASTER <= ratio <= SLOWER:
        yield f"{ratio:.2g} times LoRA's time{' per epoch' if known else ''}"


def _memory_against(row: ResultRow, lora: ResultRow) -> Iterator[str]:
    """Report a saving that 4-bit weights cannot explain, whatever the figures were rounded from."""
    weights = row.total_parameters or lora.total_parameters
    if not (weights and row.memory and lora.memory) or are_other_devices(row.device, lora.device):
        return
    if row.total is not None:
        weights = max(weights, row.total.high)
    (low, high), (own_low, own_high) = lora.memory_limits, row.memory_limits
    least, most = low - own_high, high - own_low
    if least > max(SAVED_BYTES * weights, REPEATABLE_BYTES):
        saved = 3.5 * weights / 1e6
        less = f"{(lora.memory - row.memory) / 1e6:,.0f}"
        if most > 1.01 * least:
            less = f"{least / 1e6:,.0f} to {most / 1e6:,.0f}"
        yield f"{less} MB less than LoRA, but 4-bit weights save only {saved:,.0f} MB"
