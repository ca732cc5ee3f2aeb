"""Settings that the name of a method says: rank, targets, virtual tokens, bias, alpha."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.models.layer_parts import ROLES

QUERY, KEY, VALUE, OUTPUT, UP, DOWN = ROLES
ROLE_WORDS = {
    "q": (QUERY,), "query": (QUERY,), "queries": (QUERY,), "wq": (QUERY,), "q_proj": (QUERY,),
    "q_lin": (QUERY,), "k": (KEY,), "key": (KEY,), "keys": (KEY,), "wk": (KEY,),
    "k_proj": (KEY,), "k_lin": (KEY,), "v": (VALUE,), "value": (VALUE,), "values": (VALUE,),
    "wv": (VALUE,), "v_proj": (VALUE,), "v_lin": (VALUE,), "o": (OUTPUT,),
    "o_proj": (OUTPUT,), "out_proj": (OUTPUT,), "qv": (QUERY, VALUE), "qk": (QUERY, KEY),
    "qkv": (QUERY, KEY, VALUE), "qkvo": (QUERY, KEY, VALUE, OUTPUT), "ffn": (UP, DOWN),
    "mlp": (UP, DOWN),
}  # fmt: skip
JOINED = r"(?:,?\s+(?:and|und|et|y)\s+|\s*[+,/&;|]\s*)"
# A list of words. One that is no role makes the whole list unknown: "q_proj, v_proj, down_proj".
LIST = re.compile(rf"(?<![\w.])([a-z][\w.]*)({JOINED}[a-z][\w.]*)+")
SINGLE = re.compile(
    r"(?<![a-z0-9_])(qv|qk|qkv|qkvo|[qkvo]_proj|out_proj|[qkv]_lin|w[qkv])(?![a-z0-9_])"
)
EVERY = re.compile(r"\ball[\s_-]*linear|\ball[\s_-]*(linear[\s_-]*)?(modules|layers)\b")
RANK = re.compile(r"(?<![a-z])(?:rank|r)\s*[=:_\s-]?\s*(\d{1,4})(?![\d.a-z%])")
RANK_BEFORE = re.compile(r"\b(\d{1,4})[\s-]*rank\b")
TOKENS = re.compile(
    r"\b(\d{1,4})[\s-]*(?:virtual[\s-]*|soft[\s-]*|prompt[\s-]*|prefix[\s-]*)*tokens?\b"
)
TOKENS_AFTER = re.compile(
    r"(?:tokens?|prefix[\s_-]?len(?:gth)?|prompt[\s_-]?len(?:gth)?)\s*=\s*(\d+)"
)
BIAS = re.compile(r"\bbias\s*[=:]?\s*[\"']?(none|all|lora_only)\b")
ALPHA = re.compile(r"(?:(?<![a-z])alpha|α)\s*[=:\s]?\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class MethodWords:
    """The settings that a name says. None or empty: it does not say them.

    `targets` are roles of linear layers, or ("all",) for every linear layer.
    """

    rank: int | None = None
    targets: tuple[str, ...] = ()
    virtual_tokens: int | None = None
    bias: str | None = None
    alpha: float | None = None


def method_words(name: str) -> MethodWords:
    """Return the settings among the words of a method's name: `LoRA (r=8, Q+V)`."""
    text = name.casefold()
    rank, tokens = _only(text, RANK, RANK_BEFORE), _only(text, TOKENS, TOKENS_AFTER)
    bias, alpha = BIAS.search(text), ALPHA.search(text)
    return MethodWords(
        int(rank) if rank else None,
        targets_in(text),
        int(tokens) if tokens else None,
        bias[1] if bias else None,
        float(alpha[1]) if alpha else None,
    )


def _only(text: str, *patterns: re.Pattern[str]) -> str | None:
    """Return the one number that the patterns find; None for none, or for several."""
    found = {one[1] for pattern in patterns for one in pattern.finditer(text)}
    return found.pop() if len(found) == 1 else None


def targets_in(text: str) -> tuple[str, ...]:
    """Return the roles of the linear layers that a name lists: `LoRA (q_proj, v_proj)`, `Q+K+V`.

    Where a word of the list is no role that means the same in every model, it returns nothing.
    """
    text = text.casefold()
    if EVERY.search(text):
        return ("all",)
    for found in LIST.finditer(text):
        words = re.split(JOINED, found.group())
        if any(word in ROLE_WORDS for word in words):
            return _roles(words)
    single = SINGLE.search(text)
    return _roles([single.group()]) if single else ()


def targets_of_column(text: str) -> tuple[str, ...]:
    """Return the roles that a cell lists: `["q_proj", "v_proj"]`, `q_proj v_proj`; see above."""
    text = text.casefold()
    return ("all",) if EVERY.search(text) else _roles(re.findall(r"[\w.]+", text))


def _roles(words: Sequence[str]) -> tuple[str, ...]:
    if not all(word in ROLE_WORDS for word in words):
        return ()
    named = {role for word in words for role in ROLE_WORDS[word]}
    return tuple(role for role in ROLES if role in named)
