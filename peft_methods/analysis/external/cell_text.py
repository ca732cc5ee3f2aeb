"""Texts of cells without markup: bold, links, HTML tags, LaTeX commands, marks of footnotes."""

from __future__ import annotations

import html
import re

from peft_methods.analysis.external.siunitx import without_siunitx

MARKS = "†‡§¶※✓✔✅❌🏆🥇🥈🥉⭐★↑↓▲▼⬆⬇\ufe0f"
CHECKED = re.compile("[✓✔✅]\ufe0f?")  # a whole cell of it is an answer, beside a figure a mark
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")

PLAIN_SYMBOLS = {
    "pm": "±", "times": "×", "cdot": "·", "approx": "≈", "sim": "~", "dagger": "†",
    "ddagger": "‡", "ast": "*", "star": "★", "uparrow": "↑", "downarrow": "↓", "ldots": "…",
    "textasciitilde": "~", "textsuperscript": "^", "textpm": "±", "leq": "≤", "geq": "≥",
    "checkmark": "✓", "xmark": "❌", "alpha": "alpha", "eta": "eta",
    "Delta": "Δ", "delta": "δ",
}  # fmt: skip
DROPPED = (
    r"\\(?:cite[a-z]*|ref|label|footnote(?:mark|text)?|vspace|hspace|rowcolor|cellcolor|color|"
    r"tablefootnote|tnote|textcolor|fontsize|rule)\*?(?:\[[^\]]*\])*\{[^{}]*\}"
)
# Macros that papers define for the deviation behind a mean.
DEVIATION = (
    r"(?<=\d)\s*\\(?:std|stdev|stddev|sd|se|stderr|err|pms|spm|ci|textsubscript)"
    r"\s*\{\s*(?:\$?\\pm\$?|±)?\s*\(?(\d*\.?\d+)\)?\s*\}"
)


def without_markup(text: str) -> str:
    """Remove Markdown and HTML markup from a cell: `**96.2**` and `<b>96.2</b>` are `96.2`."""
    text = re.sub(r"<br\s*/?>", " ", text, flags=re.IGNORECASE)
    text = re.sub(r"<sup>\s*[^<\d]*\s*</sup>|<[a-zA-Z/][^<>]*>", "", text)
    text = html.unescape(text)
    if "\\" in text or text.count("$") > 1:
        text = without_latex(text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)  # links and pictures
    text = re.sub(r"\*\*(.+?)\*\*|~~(.+?)~~|`(.+?)`", _inner, text)
    text = re.sub(r"(?<![\w*])\*([^*]+)\*(?![\w*])|(?<!\w)__?([^_]+)__?(?!\w)", _inner, text)
    if CHECKED.fullmatch(text.strip()):
        return "yes"
    text = re.sub(rf"[{MARKS}]+", "", text)
    return " ".join(text.split())


def _inner(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


def without_latex(text: str) -> str:
    r"""Turn a cell of LaTeX into plain text: `\textbf{93.6}$\pm$0.4` is `93.6±0.4`."""
    text = re.sub(DROPPED, "", without_siunitx(text))
    text = re.sub(DEVIATION, r" ± \1", text)
    # Otherwise an argument would continue the digits before it: 93.4\foo{2} is not 93.42.
    text = re.sub(r"(?<=\d)(\\[a-zA-Z]+\s*\{)", r" \1", text)
    text = re.sub(r"\\([%&#_$])", r"\1", text)
    text = re.sub(r"\\[,;:!]|\{,\}", lambda m: "," if m[0] == "{,}" else "", text)
    text = re.sub(r"\\\\|(?<!\\)~|\\ ", " ", text).replace("$", "")
    text = re.sub(r"\\([a-zA-Z]+)\*?\s*", lambda m: PLAIN_SYMBOLS.get(m[1], ""), text)
    text = re.sub(r"\{\{([^{}]*)\}\}", r"{\1}", text)
    # 10^{-4} is a number, other superscripts are marks of footnotes (IA^3 is a name)
    text = re.sub(r"\^\{?([*†‡§¶★a-z])\}?(?![a-z])", "", text)
    text = re.sub(r"(\d)\s*_\{?\s*(?:±\s*)?(\d*\.?\d+)\s*\}?", r"\1 ± \2", text)
    text = re.sub(r"_\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"^\1", text)
    return re.sub(r"IA\^?3", "IA3", text.replace("{", "").replace("}", "")).strip()


def figure_text(text: str) -> str:
    """Return a figure without marks of footnotes and remarks in brackets.

    `162K†`, `96.1*`, `96.2 [3]`, `93.4 % (best)` and `11.2 GB (-35 %)` are `162K`, `96.1`, `96.2`,
    `93.4 %` and `11.2 GB`. `2 × 10⁻⁵` and `10^-4` are `2e-5` and `1e-4`.
    """
    text = " ".join(text.split())
    text = re.sub(
        r"^(?:(\d*\.?\d+)\s*[×x·*]\s*)?10\s*(?:\^\s*([-−+]?\d+)|([⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))$",
        lambda m: f"{m[1] or 1}e{(m[2] or m[3].translate(SUPERSCRIPTS)).replace('−', '-')}",
        text,
    )
    text = re.sub(r"\(\s*(?:±|\+/-)\s*([\d.]+\s*%?)\s*\)", r"± \1", text)
    text = re.sub(r"\(\s*([a-zA-Z%]{1,7})\s*\)$", _unit_or_remark, text)
    text = re.sub(r"(?<=[\w%.)])\s*(?:\([^()]*\)|\[[^\[\]]*\])", "", text)
    return re.sub(r"(?<=[\w%.])\s*(?:[*†‡§¶¹²³⁴⁵ᵃᵇᶜᵈ#]+|\^[\w*]+)$", "", text).strip()


def _unit_or_remark(match: re.Match[str]) -> str:
    units = {"s", "sec", "min", "h", "mb", "gb", "mib", "gib", "m", "k", "b", "%"}
    return match[1] if match[1].casefold() in units else ""


def is_out_of_memory(text: str) -> bool:
    """Whether a cell says that the run ended for lack of memory: `OOM`, `out of memory`."""
    words = text.casefold().replace("-", " ")
    return bool(re.search(r"\boom\b|\bout ?of ?memory\b|内存不足|显存不足", words))
