"""The fields of recipes, methods, records and JSON files, read from their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from peft_methods.cli.benchmark_json import extra_info
from peft_methods.data.facts import DataFacts
from peft_methods.methods import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import Budget, DataSpec, Expect, ModelSpec, Recipe, Tuning
from peft_methods.report.text.csv_table import RANKING_COLUMNS
from peft_methods.runs.record import Record
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.training.evidence import Evidence
from reference_docs.markdown import code, codes, paragraphs, table

SECTIONS: dict[str, type] = {
    "": Recipe,
    "model": ModelSpec,
    "data": DataSpec,
    "budget": Budget,
    "expect": Expect,
    "tuning": Tuning,
}
TYPES = {
    "array": "list",
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "null": "nothing",
    "number": "number",
    "object": "table",
    "string": "text",
}
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
HEADINGS = ("field", "allowed", "default")


def recipe_fields() -> str:
    """Format the fields of every section of a recipe."""
    return "\n\n".join(_section(name, kind) for name, kind in SECTIONS.items())


def _section(name: str, kind: type) -> str:
    title = f"## `[{name}]`" if name else "## Top of the file"
    inner = {one for one in SECTIONS if one} if not name else set()
    rows = [row for row in schema_rows(kind, f"{name}." if name else "") if row[0] not in inner]
    shown = [(code(field), allowed, default) for field, allowed, default in rows]
    return f"{title}\n\n{paragraphs(kind.__doc__)}\n\n{table(HEADINGS, shown)}"


def schema_rows(kind: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, allowed values and default of every field of a dataclass."""
    schema = TypeAdapter(kind).json_schema()
    needed = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        default = "needed" if name in needed else _default(field.get("default"))
        yield prefix + name, allowed_values(field), default


def _default(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(str(value).replace("'", '"')) if not isinstance(value, dict) else "see the section"


def allowed_values(schema: Mapping[str, Any]) -> str:
    """Format the part of a JSON schema that says what a field may hold."""
    if "anyOf" in schema:
        kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(allowed_values(one) for one in kinds))
    if "enum" in schema:
        return codes(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return code(f'"{schema["const"]}"')
    if "pattern" in schema:
        return f"text that matches {code(schema['pattern'])}"
    kind = TYPES.get(str(schema.get("type")), "a section of its own")
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        kind = f"list of: {allowed_values(schema['items'])}" if schema["items"] else "list"
    limits = [f"{sign} {schema[name]}" for name, sign in LIMITS.items() if name in schema]
    return f"{kind} {' and '.join(limits)}".strip()


def method_fields() -> str:
    """Format the hyperparameters of every method, and its default learning rates."""
    return "\n\n".join(_method(name) for name in METHODS)


def _method(name: str) -> str:
    method = METHODS[name]
    rows = [(code(field), *rest) for field, *rest in schema_rows(method)]
    rates = [
        (
            kind.replace("_", " "),
            code(rate.value) + (f", head {code(rate.head)}" if rate.head is not None else ""),
            rate.source,
        )
        for kind, rate in method.info.learning_rates.items()
    ]
    parts = [
        f"## {method.info.title}: `[methods.{name}]`",
        paragraphs(method.__doc__),
        table(HEADINGS, rows),
    ]
    if rates:
        parts.append(table(("kind of model", "default learning rate", "source"), rates))
    return "\n\n".join(parts)


def record_fields() -> str:
    """Format the fields of a record file and of the objects within it."""
    parts: list[tuple[str, type, str]] = [
        ("The record", Record, ""),
        ("`spec`: what was requested", RunSpec, "spec."),
        ("`evidence`: facts about the weights", Evidence, "evidence."),
        ("`data`: facts about the data", DataFacts, "data."),
    ]
    return "\n\n".join(_object(*part) for part in parts)


def _object(title: str, kind: type, prefix: str) -> str:
    rows = [(code(prefix + name), annotation) for name, annotation in _types(kind)]
    return f"## {title}\n\n{paragraphs(kind.__doc__)}\n\n{table(('field', 'type'), rows)}"


def _types(kind: type) -> Iterator[tuple[str, str]]:
    """Yield name and annotation of the fields of a dataclass, without the constraints."""
    unwritten = {"reused"} if kind is Record else {"tuning"} if kind is RunSpec else set()
    for one in fields(kind):
        if one.name not in unwritten:
            yield one.name, code(_plain(str(one.type)))


def _plain(annotation: str) -> str:
    """Return an annotation without pydantic's wrappers: 'InstanceOf[A]' -> 'A'."""
    for wrapper in ("InstanceOf[", "Annotated["):
        if annotation.startswith(wrapper):
            return annotation.removeprefix(wrapper).split(",")[0].rstrip("]")
    return annotation


def csv_columns() -> str:
    """Format the columns of the CSV table beside the metrics and their standard deviations."""
    names = ("recipe", "method", "seeds", *RANKING_COLUMNS, "missing")
    return codes(names) + f", and `NAME`, `NAME_sd` for each of {len(METRICS)} metrics."


def extra_info_fields() -> str:
    """Format the keys of `extra_info` in pytest-benchmark's JSON."""
    return f"{paragraphs(extra_info.__doc__)}\n\n" + codes(extra_info_keys())


def extra_info_keys() -> list[str]:
    """Return the keys of `extra_info`, from those of a record without metrics."""
    recipe = load_recipe("embedded")
    method = METHODS.create(METHODS.reference, {}, recipe.name, recipe)
    data = {"fingerprint": "", "majority": None}
    return list(extra_info([Record(run_specs(recipe, method, "cpu")[0], "ok", "f", data=data)]))
