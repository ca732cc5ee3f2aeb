"""Which registered method a table means by a name."""

from __future__ import annotations

import re

from peft_methods.methods.registry import METHODS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Glued or hyphenated before "LoRA": kin that are methods of their own, whether registered or not.
KIN_PREFIXES = _words(
    "tied rand tiny uni vb de gra ada dy delta long qa x rs s c o g mo mix lo hydra hi ha asym cur "
    "re res dual sparse sp multi moe ffa fed fl ps bi i l d t e k m n p u v w y z"
)
KIN_SUFFIXES = _words("fa xs ga pro null drop sb one hub moe dash ns")
LORA = "LoRA".casefold()  # the word
QUANTIZED = frozenset({"q"})
# Joined to "LoRA" by a space too.
KIN_WORDS = re.compile(r"\b(tied|rand|tiny|uni|vb|gra|ffa|fed|sparse)[\s_-]lora\b")
FULL = re.compile(
    r"^\W*((full|standard|vanilla|conventional)[\s_-]*)?(ft|fft|fine[\s_-]*tun(e|ed|ing)|full)\W*$"
)


def method_of(name: str) -> str | None:
    """Return the registered method that a table calls `name`; None for an unknown or unclear one.

    "FT" and "fine-tune" are full fine-tuning. A method whose name contains "LoRA" is LoRA only if
    the rest of its name says no more than models, data sets and settings: Tied-LoRA is another.
    """
    text = name.casefold().strip()
    if FULL.fullmatch(text):
        return METHODS.reference
    if re.search(r"\bfull\b", text) and re.search(r"fro?z|freez", text):
        return None  # a part of the model was frozen
    outside, inside = _brackets(text)
    # The method in brackets is the one that was run: "LoRA (DoRA)".
    within, without = METHODS.recognize(inside) if inside else None, METHODS.recognize(outside)
    if within and without and within != without and _is_specific(within, inside):
        return within
    found = METHODS.recognize(text)
    if found is not None and not _is_registered_kin(found, text) and _is_other_kin(text):
        return None
    if found is None:
        words = re.split(r"[\s_\-:]+", outside)
        return METHODS.reference if "ft" in words and not _names_another(words) else None
    return found


def _brackets(text: str) -> tuple[str, str]:
    inside = " ".join(re.findall(r"\(([^)]*)\)", text))
    return re.sub(r"\([^)]*\)", " ", text).strip(), inside


def _is_specific(method: str, text: str) -> bool:
    """Whether the text has a word that means this method alone."""
    aliases = METHODS[method].info.aliases
    return bool(aliases) and re.search(aliases, text) is not None


def _names_another(words: list[str]) -> bool:
    """Whether words beside "FT" may make another method of it, such as a partial one."""
    return bool(
        {"partial", "head", "last", "top", "layer", "bias", "prompt", "prefix"} & set(words)
    )


def _is_registered_kin(method: str, text: str) -> bool:
    """Whether a method whose own words contain a prefix of LoRA's was found by these."""
    found = re.search(METHODS[method].info.aliases, text) if METHODS[method].info.aliases else None
    return found is not None and found.group() not in {LORA, ""} and LORA in found.group()


def _is_other_kin(text: str) -> bool:
    """Whether a word joined to "LoRA" makes it a method that is not registered."""
    for found in re.finditer(r"(?<![a-z0-9])([a-z]+?)([-_]?)lora\b", text):
        if found[1] in QUANTIZED:
            continue
        if not found[2] or found[1] in KIN_PREFIXES:
            return True
    after = re.finditer(r"\blora[\s_-]([a-z]{1,5})\b", text)
    return any(found[1] in KIN_SUFFIXES for found in after) or bool(KIN_WORDS.search(text))
