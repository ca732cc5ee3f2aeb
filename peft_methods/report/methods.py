"""The list of methods as Markdown, for the documentation."""

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
