"""The list of validity rules, as text for the terminal and as Markdown for the documentation."""

from __future__ import annotations

from tabulate import tabulate

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.rule import SCOPES

RULE_TOPICS = {
    "V1": "data",
    "V2": "training",
    "V3": "results",
    "V4": "measuring",
    "V5": "comparing",
    "V6": "generated texts",
}


def rules_text(silence: str) -> str:
    """Format every rule's id, severity, scope and title, followed by the meaning of the scopes.

    `silence` is the option that skips rules, as the command line in use names it.
    """
    lines = [(rule.id, rule.severity, rule.scope, rule.title) for rule in RULES.values()]
    table = tabulate(
        lines,
        headers=("Rule", "Severity", "Scope", "What is wrong"),
        tablefmt="simple",
        disable_numparse=True,
    )
    scopes = "\n".join(f"{scope}: {meaning}" for scope, meaning in SCOPES.items())
    about = ", ".join(f"{start}xx {subject}" for start, subject in RULE_TOPICS.items())
    return (
        f"{table}\n\n{about}.\n{scopes}\n"
        f"Errors fail a benchmark. To skip rules: {silence} V105,V301; the table then lists them "
        "as not checked."
    )


def rules_markdown() -> str:
    """Format the rules as a Markdown table."""
    lines = [
        f"| {rule.id} | {rule.severity} | {rule.scope} | {rule.title} |" for rule in RULES.values()
    ]
    return "\n".join(("| rule | severity | scope | what is wrong |", "|---|---|---|---|", *lines))
