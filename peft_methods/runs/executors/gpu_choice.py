"""Which GPUs a session uses: all visible ones of one kind, or those that the user names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft_methods.profiling.environment import find_device
from peft_methods.profiling.gpus import (
    GIB,
    ORDER,
    VARIABLE,
    GpuInfo,
    counts_otherwise,
    gpus_here,
    installed_gpus,
    most_numerous,
    named_by,
)
from peft_methods.utils.errors import OptionError, nearest
from peft_methods.utils.words import counted

SETTING = "devices"
SHOWN = 8  # GPUs listed in an error
LEAST_FREE = 0.5  # share of its memory: a GPU with less is left out, unless the user names it
# Memory in use without a visible process that means that somebody uses the GPU: the driver's own
# is less. In a container the ids of processes are hidden.
IN_USE_BYTES = 2 * GIB


@dataclass(frozen=True)
class GpuChoice:
    """The GPUs of a session, in the order in which they get runs, and remarks on the choice."""

    gpus: tuple[GpuInfo, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def device_name(self) -> str:
        """The name of their kind, or 'cpu'. Baselines are stored under it."""
        return self.gpus[0].name if self.gpus else "cpu"


def parse_devices(value: str | Sequence[str | int] | None) -> tuple[str, ...]:
    """Parse '0,2' or 'GPU-3df2,…' to the whole UUIDs of these GPUs; empty for None.

    An index counts the visible GPUs, a UUID may be shortened. Raises `OptionError`.
    """
    if value is None:
        return ()
    entries = value.split(",") if isinstance(value, str) else [str(one) for one in value]
    entries = [entry.strip() for entry in entries]
    text = ",".join(entries)
    if not all(entries):
        raise OptionError(
            f"devices {text!r} has an empty name. Write indices or UUIDs as 0,2.", setting=SETTING
        )
    if find_device() == "cpu":
        raise OptionError(
            f"devices {text!r}: no GPU is usable here ({_why_none()}). Leave the setting out to "
            "train on the CPU.",
            setting=SETTING,
        )
    visible = gpus_here()
    chosen = [_named(entry, visible) for entry in entries]
    repeated = [entry for entry, gpu in zip(entries, chosen, strict=True) if chosen.count(gpu) > 1]
    if repeated:
        raise OptionError(
            f"devices {text!r}: {' and '.join(repeated)} name one GPU twice. Name each once.",
            setting=SETTING,
        )
    _refuse_mixture(text, chosen)
    return tuple(gpu.uuid for gpu in chosen)


def _why_none() -> str:
    variable = os.environ.get(VARIABLE)
    if variable is not None and installed_gpus():
        return f"{VARIABLE}={variable!r} hides all, or torch was built for CPUs"
    return "the driver shows none, or torch was built for CPUs"


def _named(entry: str, visible: Sequence[GpuInfo]) -> GpuInfo:
    """Return the visible GPU that an entry names. Raises `OptionError`."""
    if entry.isascii() and entry.isdecimal():
        if len(entry) < 6 and int(entry) < len(visible):
            return visible[int(entry)]
        raise _unknown(entry, f"there is no visible GPU {entry}", visible)
    found = named_by(entry, visible)
    if len(found) == 1:
        return found[0]
    if found and len({gpu.index for gpu in found}) == 1:
        of = "is in MIG mode: name one of its slices" if found[0].whole else "is ambiguous"
        raise _unknown(entry, f"{entry} {of}", found)
    if found:
        raise _unknown(entry, f"{entry} is ambiguous: {len(found)} UUIDs begin with it", found)
    if any(named_by(entry, installed_gpus())):
        raise _unknown(entry, f"{entry} is hidden", visible)
    close = nearest(entry, [name for gpu in visible for name in (gpu.uuid, gpu.old_name) if name])
    raise _unknown(entry, f"no GPU {entry!r} is known.{close}".rstrip("."), visible)


def _unknown(entry: str, problem: str, shown: Sequence[GpuInfo]) -> OptionError:
    variable = os.environ.get(VARIABLE)
    within = "" if variable is None else f" within {VARIABLE}={variable!r}"
    listed = [f"{number} ({gpu.uuid}, {gpu.name})" for number, gpu in enumerate(gpus_here())]
    listed = [line for line, gpu in zip(listed, gpus_here(), strict=True) if gpu in shown]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return OptionError(
        f"devices {entry!r}: {problem}. Indices count the visible GPUs{within}: "
        f"{', '.join(listed[:SHOWN])}{more}.",
        setting=SETTING,
    )


def _refuse_mixture(text: str, gpus: Sequence[GpuInfo]) -> None:
    kinds = {gpu.kind: gpu.kind_text for gpu in gpus}
    if len(kinds) > 1:
        raise OptionError(
            f"devices {text!r} are of {len(kinds)} kinds ({'; '.join(kinds.values())}), whose "
            "times and memory cannot be compared. Name GPUs of one kind, and train the others in "
            "a session of their own.",
            setting=SETTING,
        )


def choose_gpus(devices: Sequence[str] = (), workers: int | None = None) -> GpuChoice:
    """Choose the GPUs of a session: the named ones, else all visible ones of one kind.

    `devices` are whole UUIDs. `workers` takes the first so many. By default GPUs that others use
    come last, and are left out if they lack memory. Raises `OptionError` for too many workers.
    """
    visible = gpus_here()
    named = [gpu for uuid in devices for gpu in visible if gpu.uuid == uuid]
    notes: list[str] = []
    chosen = named
    if not named:
        usual = most_numerous(visible)
        notes += _left_out_kinds(visible, usual)
        chosen = _preferred(usual, notes)
    if workers is not None and visible and workers > len(chosen):
        raise _too_many(workers, chosen, visible, named=bool(named))
    chosen = chosen[:workers]
    notes += [_used_by_others(gpu) for gpu in chosen if is_used(gpu)]
    if counts_otherwise():
        notes.append(
            f"{VARIABLE} has indices, and this machine has GPUs of several kinds: they count as in "
            f"nvidia-smi here, but CUDA counts the fastest first. Set {ORDER}=PCI_BUS_ID, or name "
            "UUIDs."
        )
    return GpuChoice(tuple(chosen), tuple(notes))


def _too_many(
    workers: int, chosen: Sequence[GpuInfo], visible: Sequence[GpuInfo], *, named: bool
) -> OptionError:
    usable = counted(len(chosen), "GPU")
    what = f"devices names {usable}" if named else f"{usable} can be used"
    if not named and len(visible) > len(chosen):
        what += f" of {len(visible)} visible ones (those of one kind with enough free memory)"
    return OptionError(
        f"workers {workers}: {what}, and each trains one run at a time, because two would distort "
        f"each other's measurements. Give at most {len(chosen)}.",
        setting="workers",
    )


def is_used(gpu: GpuInfo) -> bool:
    """Whether processes of others compute on a GPU, as far as this process can see."""
    return bool(gpu.processes) or (not gpu.has_own and (gpu.used_bytes or 0) > IN_USE_BYTES)


def _preferred(gpus: Sequence[GpuInfo], notes: list[str]) -> list[GpuInfo]:
    """Return the GPUs, those in use last and those without memory left out: `notes` says so."""
    full = [
        gpu
        for gpu in gpus
        if is_used(gpu)
        and gpu.free_bytes is not None
        and gpu.free_bytes < LEAST_FREE * (gpu.total_bytes or 0)
    ]
    if len(full) == len(gpus):  # then the one with the most is tried
        full = sorted(full, key=lambda gpu: -(gpu.free_bytes or 0))[1:]
    notes += [
        f"{gpu.uuid} ({gpu.name}) is left out: {_usage(gpu)}. Name GPUs with devices to use it."
        for gpu in full
    ]
    return sorted((gpu for gpu in gpus if gpu not in full), key=is_used)


def _left_out_kinds(visible: Sequence[GpuInfo], usual: Sequence[GpuInfo]) -> Iterator[str]:
    others = [gpu for gpu in visible if gpu not in usual]
    if others:
        names = ", ".join(f"{visible.index(gpu)} ({gpu.kind_text})" for gpu in others)
        yield (
            f"a session uses GPUs of one kind: {usual[0].kind_text}. Left out: {names}. Name them "
            "with devices in another session to train on them."
        )


def _used_by_others(gpu: GpuInfo) -> str:
    return (
        f"{gpu.uuid} ({gpu.name}) is used by others: {_usage(gpu)}. Times, energy and free memory "
        "of its runs may suffer; V401 marks them."
    )


def _usage(gpu: GpuInfo) -> str:
    used, total = ((value or 0) / GIB for value in (gpu.used_bytes, gpu.total_bytes))
    by = (
        counted(len(gpu.processes), "process", "processes") if gpu.processes else "hidden processes"
    )
    return f"{by} of others, {used:.1f} of {total:.1f} GiB in use"
