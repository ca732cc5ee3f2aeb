"""Rows of audited tables with one planted fault each, for the rules that only tables have."""

from __future__ import annotations

from typing import Any

from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.checks.row import ResultRow

METHODS_BY_NAME = {"Full": "full", "LoRA": "lora", "IA3": "ia3", "QLoRA": "qlora"}


def written(text: str, scale: float = 1.0) -> RoundedCount:
    """Return a count as a table writes it: half a step of its last digit may be missing."""
    decimals = len(text.partition(".")[2])
    step = scale * 10.0**-decimals if decimals or scale != 1 else 0.0
    value = float(text.replace(",", "")) * scale
    return RoundedCount(text, value, value - step / 2, value + step / 2)


def row(name: str, **values: Any) -> ResultRow:
    """Return a row of a table; its method is known by the first word of its name."""
    for key in ("trainable", "total"):
        if isinstance(values.get(key), int):
            values[key] = RoundedCount.exactly(values[key])
    method = METHODS_BY_NAME.get(name.split(maxsplit=1)[0])
    return ResultRow(name, method, ranked=True, **values)


def gigabytes(text: str) -> RoundedCount:
    return written(text, 1e9)


A100 = {"device": "NVIDIA A100-SXM4-80GB", "epochs": 3.0, "train_rows": 25_000.0}

ROW_FAULTS: dict[str, list[ResultRow]] = {
    "V211": [row("Full", trainable=76_961_152), row("LoRA", trainable=0)],
    "V212": [row("Full", trainable=3_212_749_824), row("LoRA", trainable=3_212_749_824)],
    "V213": [
        row("LoRA", trainable=700_427, total=124_661_782, trainable_share=written("56.19", 0.01))
    ],
    "V214": [
        row("LoRA r=16, Q+K+V", trainable=written("9.44", 1e6), rank=16.0, targets=("q", "k", "v")),
        row(
            "LoRA r=16, Q+K+V+O",
            trainable=written("9.44", 1e6),
            rank=16.0,
            targets=("q", "k", "v", "o"),
        ),
    ],
    # LoRA of rank 16 on query and value with the head, IA3 without it
    "V215": [
        row("LoRA", model="roberta-base", trainable=1_181_954),
        row("IA3", model="roberta-base", trainable=55_296),
    ],
    "V307": [
        row(name, accuracy=best, validation_accuracies=(best - 0.0131, best - 0.0042, best, best))
        for name, best in (("Full", 0.9534), ("LoRA", 0.9412))
    ],
    "V308": [row("LoRA", accuracy=0.478, test_rows=1319), row("IA3", accuracy=0.0, test_rows=1319)],
    "V309": [
        row("Full", data="MRPC", accuracy=0.8725),
        row("LoRA", data="MRPC", accuracy=0.6838),
    ],
    "V417": [
        row("Full", peak_memory=gigabytes("60.0")),
        row("LoRA", peak_memory=gigabytes("80.0")),
    ],
    "V418": [
        row("LoRA r=4", trainable=written("2.6", 1e6), rank=4.0, peak_memory=gigabytes("6.4")),
        row("LoRA r=64", trainable=written("42", 1e6), rank=64.0, peak_memory=gigabytes("17.3")),
    ],
    "V419": [row("QLoRA", model="bert-base-uncased", peak_memory=written("61", 1e6))],
    "V420": [row("Full", model="roberta-base", train_seconds=0.2, **A100)],
    "V424": [
        row("Full", model="mistral-7b", peak_memory=gigabytes("3.98")),
        row("LoRA", model="mistral-7b", peak_memory=gigabytes("4.1")),
    ],
    "V425": [row("Full", train_seconds=310.0), row("LoRA", train_seconds=0.0)],
    "V421": [row("LoRA", train_seconds=600.0, samples_per_second=12.5, **A100)],
    "V422": [row("LoRA", train_rows=25_000.0, batch_size=16.0, steps_per_epoch=3125.0, epochs=3.0)],
    "V423": [row("LoRA", train_seconds=600.0, energy_joules=3.6e6, device="A100")],
    "V510": [row("Full", train_seconds=895.2), row("LoRA", train_seconds=290.4)],
}
