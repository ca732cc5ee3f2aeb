"""The list of validity rules: for `--peft-rules`, and as Markdown for the documentation."""

from __future__ import annotations

from tabulate import tabulate

from peft_methods.validity import RULES, SCOPES

ABOUT = {"V1": "data", "V2": "training", "V3": "results", "V4": "measuring", "V5": "comparing"}


def rules_text() -> str:
    """Every rule's id, severity, scope and title, and what the scopes are."""
    lines = [(rule.id, rule.severity, rule.scope, rule.title) for rule in RULES.values()]
    table = tabulate(
        lines,
        headers=("Rule", "Severity", "Scope", "What is wrong"),
        tablefmt="simple",
        disable_numparse=True,
    )
    scopes = "\n".join(f"{scope}: {said}" for scope, said in SCOPES.items())
    about = ", ".join(f"{start}xx {what}" for start, what in ABOUT.items())
    return f"{table}\n\n{about}.\n{scopes}\nErrors fail a benchmark. --peft-silence V105,V301 leaves rules out, which the table says."


def rules_markdown() -> str:
    """The same as a Markdown table."""
    lines = [
        f"| {rule.id} | {rule.severity} | {rule.scope} | {rule.title} |" for rule in RULES.values()
    ]
    return "\n".join(("| rule | severity | scope | what is wrong |", "|---|---|---|---|", *lines))
