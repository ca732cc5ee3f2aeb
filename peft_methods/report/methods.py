"""The lists of methods as Markdown, for the README and the documentation."""

from __future__ import annotations

from peft_methods.methods.registry import built_in

SAVED = {
    "transformers": "`transformers` model",
    "peft": "PEFT folder",
    "peft_methods": "`peft_methods` folder",
}


def methods_markdown() -> str:
    """A Markdown table of the built-in methods: what is trained, the paper, the saved format."""
    infos = sorted((method.info for method in built_in()), key=lambda info: info.rank)
    lines = [
        f"| `{one.name}` | {one.trained} | {one.paper} | {SAVED[one.saved_format]} |"
        for one in infos
    ]
    head = ("| name | what is trained | paper | saved as |", "|---|---|---|---|")
    return "\n".join((*head, *lines))


def families_markdown() -> str:
    """A Markdown table of the families, each with its built-in methods."""
    families: dict[str, list[str]] = {}
    for info in sorted((method.info for method in built_in()), key=lambda info: info.rank):
        families.setdefault(info.family, []).append(f"`{info.name}`")
    lines = [f"| `{family}` | {', '.join(names)} |" for family, names in families.items()]
    return "\n".join(("| family | methods |", "|---|---|", *lines))
