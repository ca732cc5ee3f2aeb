"""The capability matrix, from the files that are stored with the package."""

from __future__ import annotations

from peft_methods.capabilities.cells import CHECKS
from peft_methods.capabilities.families import FAMILIES
from peft_methods.capabilities.matrix import Matrix, shipped
from peft_methods.capabilities.selection import Selection
from peft_methods.capabilities.upstream import faults
from peft_methods.report.text.capabilities import LEGEND, Table, View, environment_of
from reference_docs.markdown import code, table


def matrix() -> str:
    """Format the stored matrix: methods by families, by tasks and settings, and what failed."""
    stored = shipped()
    on_gpu = [path for path in stored if path.stem != "cpu"]
    engines = Matrix.read(on_gpu[0]) if on_gpu else None
    view = View(Matrix.read(stored[0]), Selection(), engines)
    encoders = [name for name, one in FAMILIES.items() if one.is_encoder]
    others = [name for name in FAMILIES if name not in encoders]
    parts = [_formatted(view.families(names)) for names in (encoders, others)]
    parts += [_formatted(view.settings()), LEGEND, view.counts()]
    parts.append(f"Measured on {view.environment()}.")
    if engines is not None:
        parts.append(f"Captured steps were measured on {environment_of(engines)}.")
    for heading, lines in (("Failed", view.failures()), ("Not supported", view.reasons())):
        if lines:
            parts.append(f"### {heading}\n\n" + "\n".join(f"- {line}" for line in lines))
    if known := faults():
        listed = "\n".join(f"- {fault}" for fault in known)
        parts.append(f"### Broken upstream\n\n{listed}")
    return "\n\n".join(parts)


def _formatted(content: Table) -> str:
    headings, rows = content
    return table(headings, [[code(row[0]), *row[1:]] for row in rows])


def checks() -> str:
    """Format what each cell was checked for."""
    return table(("check", "what holds"), [(code(name), text) for name, text in CHECKS.items()])
