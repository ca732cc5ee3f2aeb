"""One name for each precision, device and library version, however a table spells it."""

from __future__ import annotations

import re

# 4-bit storage, which is a part of QLoRA and no difference in precision
FOUR_BITS = re.compile(r"\b(nf4|fp4|int4|4[\s_-]?bits?|bnb|double quant\w*)\b")
# Mixed precision is what libraries mean by these names; "true" or "pure" half precision is not.
FILLERS = re.compile(r"\b(torch|mixed|amp|autocast|precision|training|compute|dtype)\b")
PRECISIONS = {
    "bf16": r"bf[\s_-]?16|bfloat[\s_-]?16|brain[\s_-]?float[\s_-]?16",
    "tf32": r"tf[\s_-]?32|tensor[\s_-]?float[\s_-]?32",
    "fp16": r"(?:fp|f|float)[\s_-]?16|half|16(?:[\s_-]?bits?)?",
    "fp32": r"(?:fp|f|float)[\s_-]?32(?:[\s_-]true)?|float|single|full|32(?:[\s_-](?:bits?|true))?",
    "fp64": r"(?:fp|f|float)[\s_-]?64(?:[\s_-]true)?|double|64(?:[\s_-](?:bits?|true))?",
}
# What tables write where a value is missing
MISSING = re.compile(
    r"[\s\-–—−?*./()]*|n\s*/?\s*a|none|null|nan|unknown|not (?:given|reported|stated)"
)
# 'a100 x8', 'a100-80gbx8' and 'a100 (x8)', but neither 'rtx 4090' nor 'cpu x86'
NUMBER_BEHIND = re.compile(
    r"(.*?(?:\d|gb|[a-z](?=[\s(×*])))\s*\(?\s*(?:(?<![a-z])x|(?<=gb)x|[×*])\s*(?!86)(\d{1,3})\s*\)?"
)
PUNCTUATION = re.compile(r"[\s+,;/().:_-]+")


def precision_name(text: str | None, quantized: bool = False) -> str | None:
    """Return the precision of the computation: 'torch.bfloat16' and 'BF16 mixed' are 'bf16'.

    Of a quantized method, the words for its weights are left out.
    """
    given = _given(text).casefold()
    words = FILLERS.sub(" ", FOUR_BITS.sub(" ", given) if quantized else given)
    for name, spelling in PRECISIONS.items():
        words = re.sub(rf"(?<!\w)(?:{spelling})(?!\w)", f" {name} ", words)
    return " ".join(PUNCTUATION.sub(" ", words).split()) or None


def with_number_first(device: str) -> str:
    """Return a device in lower case with its number before it: '8 x a100' of 'a100x8'."""
    behind = NUMBER_BEHIND.fullmatch(device.strip())
    text = f"{behind[2]} x {behind[1]}" if behind else device
    return re.sub(r"(?<![a-z0-9])(\d{1,4})\s*[x×*]\s*", r"\1 x ", text)


def device_name(text: str | None) -> str | None:
    """Return a device's name without the maker's: 'NVIDIA A100-SXM4-80GB' and 'A100 SXM4 80 GB'.

    '8xA100', '8 × A100' and 'A100 (x8)' are '8 x a100'; '1x A100' is 'a100'.
    """
    words = re.sub(r"\bnvidia\b", " ", with_number_first(_given(text).casefold()))
    words = re.sub(r"^\s*1 x ", "", words)
    return (
        " ".join(re.sub(r"(\d)\s+(gb|gib)\b", r"\1\2", PUNCTUATION.sub(" ", words)).split()) or None
    )


def are_other_devices(one: str | None, other: str | None) -> bool:
    """Whether two texts name different devices, or different numbers of them."""
    names = device_name(one), device_name(other)
    return None not in names and names[0] != names[1]


def version_name(text: str | None) -> str | None:
    """Return a version without 'v' and trailing zeros: '2.6' and 'v2.6.0' are the same."""
    given = _given(text).casefold().removeprefix("v")
    release, plus, build = given.partition("+")
    return (re.sub(r"(?:\.0+)+$", "", release) + plus + build) or None


def _given(text: str | None) -> str:
    """Return a text without spaces around it; empty for a dash, N/A and the like."""
    found = (text or "").strip()
    return "" if MISSING.fullmatch(found.casefold()) else found
