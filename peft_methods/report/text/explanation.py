"""The explanation of one check, made from its code: why it matters, its evidence, what to do.

Where the code cannot tell the evidence, the rule does: see `Rule.evidence`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping

from peft_methods.analysis.checks.rule import SCOPES, Rule, find_rule
from peft_methods.utils.words import counted

EFFECTS = {
    "error": "fails the benchmark, because the result cannot be trusted",
    "warning": "is listed under the table: read the result with care",
    "note": "is listed under the table, as worth knowing",
}
VALUE = "…"  # stands for a value of the actual finding
WIDTH = 88


def explanation(check: str) -> str:
    """Explain a check by its id. Raises `OptionError` for an unknown one, with the nearest."""
    rule = find_rule(check)
    title, *more = inspect.cleandoc(rule.check.__doc__ or "").split("\n\n")
    templates = list(_templates(rule))
    evidence = dict.fromkeys(rule.evidence or (text for text, _ in templates if _says(text)))
    advice = dict.fromkeys(text for _, text in templates if _says(text))
    parts = [
        f"{rule.id} ({rule.severity}): {title}",
        *more,
        f"Severity: {rule.severity}. It {EFFECTS[rule.severity]}.",
        f"Looks at: {SCOPES[rule.scope]}.",
        _listed("Evidence, with … for the values found:", evidence),
        _listed("What to do:", advice),
        f"To skip it: peft-methods run --silence {rule.id} (the table then says so).",
    ]
    return "\n\n".join(_filled(part) for part in parts if part)


def _says(text: str) -> bool:
    return any(character.isalpha() for character in text)


def _listed(title: str, texts: Mapping[str, None]) -> str:
    return "\n".join([title, *(f"  - {text}" for text in texts)]) if texts else ""


def _filled(text: str) -> str:
    """Wrap a paragraph, or each entry of a list."""
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent="    " if line.startswith("  - ") else "")
        for line in (text.split("\n") if "\n  - " in text else [" ".join(text.split())])
    )


def _templates(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield the texts of evidence and advice that a check can give, read from its code."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(rule.check)))
    texts = _constants(rule) | _assigned(tree)
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Yield | ast.YieldFrom) else None
        found = value.elt if isinstance(value, ast.GeneratorExp) else value
        if isinstance(found, ast.Tuple) and len(found.elts) > 1:
            evidence, advice = found.elts[-2:]
            for part in _parts(evidence, texts):
                for choice in _choices(advice):
                    yield _template(part, texts), _template(choice, texts)


def _constants(rule: Rule) -> dict[str, list[ast.expr]]:
    """Return the texts that are constants of the check's module, by name."""
    variables = inspect.unwrap(rule.check).__globals__
    return {
        name: [ast.Constant(value)] for name, value in variables.items() if isinstance(value, str)
    }


def _choices(node: ast.expr) -> list[ast.expr]:
    """Return both sides of a conditional expression, or the expression itself."""
    if isinstance(node, ast.IfExp):
        return [*_choices(node.orelse), *_choices(node.body)]
    return [node]


def _assigned(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Return the expressions that each name stands for: assigned to it, or added to its list."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            (target, *_), value = node.targets, node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=False))
            for name, one in pairs:
                if isinstance(name, ast.Name):
                    items = one.elts if isinstance(one, ast.List) else [one]
                    items = [one.elt] if isinstance(one, ast.ListComp) else items
                    found.setdefault(name.id, []).extend(items)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.attr == "append"
        ):
            found.setdefault(node.func.value.id, []).extend(node.args)
    return found


def _parts(node: ast.expr, texts: Mapping[str, list[ast.expr]]) -> list[ast.expr]:
    """Return the items of a list that an expression joins, or the expression itself."""
    if isinstance(node, ast.Call) and _called(node) in {"join", "first_three"}:
        (joined,) = node.args
        if isinstance(joined, ast.Name) and joined.id in texts:
            return texts[joined.id]
    return [node]


def _called(call: ast.Call) -> str:
    """Return the name of the function or method that is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _template(node: ast.expr, texts: Mapping[str, list[ast.expr]]) -> str:
    """Return an expression's text with `VALUE` for what only a finding can tell."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        whole = "".join(_template(part, texts) for part in node.values)
        return whole.replace(VALUE * 2, VALUE)
    if isinstance(node, ast.FormattedValue):
        return _template(node.value, texts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left, texts) + _template(node.right, texts)
    return _named_template(node, texts)


def _named_template(node: ast.expr, texts: Mapping[str, list[ast.expr]]) -> str:
    """Return the text of a name, of a count with its noun, or of two alternatives."""
    if isinstance(node, ast.IfExp):
        return _either(*(_template(part, texts) for part in (node.body, node.orelse)))
    if isinstance(node, ast.Call) and _called(node) == "counted":
        two = counted(2, *(_template(noun, texts) for noun in node.args[1:]))
        return two.replace("2", VALUE, 1)
    if isinstance(node, ast.Name) and node.id in texts:
        return _template(texts[node.id][0], {})
    return VALUE


def _either(one: str, other: str) -> str:
    """Return the text of two alternatives: the only one that says something, or both."""
    return f"{one}/{other}" if one and other and VALUE not in (one, other) else one or other
