"""Messages about memory that ran out: the phase, the cause, and what to change."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peft_methods.profiling.memory import address_space_left
from peft_methods.training.registry import ENGINE_PHASES
from peft_methods.utils.errors import OutOfMemory

# Bytes of address space to keep free. For the widest product of a base model, MKL went without its
# buffer when 8 MiB were left, and had it when 16 MiB were left.
SPARE_ADDRESSES = 32 * 2**20
# Descriptions of phases for messages. Any other phase is training.
PHASE_ACTIVITIES = {
    "data": "reading the data",
    "prepare": "trying the model",
    "load": "loading the model",
    "tokenize": "tokenizing",
    **{phase.name: phase.activity for phase in ENGINE_PHASES},
    "baseline": "measuring the untrained model",
    "evaluate": "evaluating",
    "generate": "generating texts",
    "save": "saving",
    "check": "comparing weights",
    "infer": "timing inference",
}


@dataclass(frozen=True)
class OomAdvice:
    """Advice for a phase that ran out of memory. `setting` is the setting to change."""

    text: str
    setting: str


_FEWER_ROWS = OomAdvice("Use fewer rows: set data.train = N.", "data.train")
_SMALLER_MODEL = OomAdvice(
    "Use a smaller model, or a machine with more free memory.", "model.source"
)
OOM_ADVICE = {
    "data": _FEWER_ROWS,
    "tokenize": _FEWER_ROWS,
    "prepare": OomAdvice(
        "Use a smaller model, smaller batches (set budget.batch_size = N) or a lower "
        "data.max_length.",
        "budget.batch_size",
    ),
    "load": OomAdvice(
        "The weights alone do not fit: use the method qlora, or a smaller model.", "model.source"
    ),
    **{phase.name: OomAdvice(phase.advice, phase.setting) for phase in ENGINE_PHASES},
    **dict.fromkeys(
        ("baseline", "evaluate", "generate"),
        OomAdvice(
            "Use smaller evaluation batches: set budget.evaluation_batch_size = 8.",
            "budget.evaluation_batch_size",
        ),
    ),
    "save": _SMALLER_MODEL,
    "check": _SMALLER_MODEL,
    "infer": OomAdvice("Use a lower data.max_length, or a smaller model.", "data.max_length"),
}
TRAINING_OOM_ADVICE = OomAdvice(
    "Use half the batch (set budget.batch_size = N with budget.gradient_accumulation = 2 for the "
    "same optimizer step), budget.gradient_checkpointing = true, a lower data.max_length, or the "
    "method qlora.",
    "budget.batch_size",
)


def out_of_memory_error(error: Exception, phase: str, *, cuda: bool) -> OutOfMemory:
    """Return an `OutOfMemory` with the phase, the free GPU memory, the cause and what to change."""
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    free_memory = ""
    if cuda:
        free, total = torch.cuda.mem_get_info()
        free_memory = f" ({free / 2**30:.1f} of {total / 2**30:.1f} GiB were free)"
    advice = OOM_ADVICE.get(phase, TRAINING_OOM_ADVICE)
    activity = PHASE_ACTIVITIES.get(phase, "training")
    return OutOfMemory(
        f"out of memory while {activity}{free_memory}: {cause} {advice.text}",
        setting=advice.setting,
    )


def check_address_space() -> None:
    """Raise `OutOfMemory` if matrix products may have lacked memory without an error.

    If MKL cannot allocate its buffers, it silently uses a different kernel, and all results differ
    in their last bits.
    """
    left = address_space_left()
    if left is not None and left < SPARE_ADDRESSES:
        raise OutOfMemory(
            f"{left / 2**20:.1f} MiB were left of the address space limit (ulimit -v). With so "
            f"little memory, matrix products may differ in their last bits. Raise the limit."
        )
