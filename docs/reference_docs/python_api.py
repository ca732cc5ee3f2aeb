"""The Python API and the pytest fixtures: signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import peft_methods
from peft_methods import api, plugin
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.comparison import Comparison
from peft_methods.api import PrintableComparison, PrintableEstimates
from peft_methods.estimation.results import (
    Fit,
    Interval,
    MemoryEstimate,
    MethodEstimate,
    TimeEstimate,
    Way,
)
from peft_methods.methods import ApplyContext, DefaultRate, Method, MethodInfo, ParamGroup
from peft_methods.runs.executors.base import Executor, Resources
from peft_methods.runs.record import Record
from peft_methods.tasks.base import LossSum, Quality, Task
from peft_methods.tasks.metrics import Metric
from peft_methods.training.engine import Engine
from peft_methods.utils.errors import DataError, OptionError, PeftMethodsError
from reference_docs.markdown import code, codes, paragraphs, table

FUNCTIONS: tuple[Callable[..., Any], ...] = (api.compare, api.estimate, peft_methods.load_trained)
USED = (
    *(PrintableComparison, Comparison, Record, Finding),
    *(PrintableEstimates, MethodEstimate, MemoryEstimate, TimeEstimate, Interval, Fit, Way),
    *(PeftMethodsError, OptionError, DataError),
)
CONTRACTS = (
    *(Method, MethodInfo, DefaultRate, ApplyContext, ParamGroup),
    *(Task, Metric, LossSum, Quality),
    *(Engine, Executor, Resources),
)
FIXTURES = ("finetune", "peft_recipe", "peft_method", "peft_model", "peft_data", "peft_devices")


class _Annotation:
    """An annotation that `inspect` writes without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def python_api() -> str:
    """Format the functions, the classes that they return, and the contracts of extensions."""
    arguments = paragraphs(api.__doc__).partition("\n\n")[2]
    parts = [
        "## Functions",
        *(_function(one) for one in FUNCTIONS),
        f"### The arguments of `compare`\n\n{arguments}",
        "## Results and errors",
        *(_class(one) for one in USED),
        "## Contracts of extensions",
        *(_class(one) for one in CONTRACTS),
    ]
    return "\n\n".join(parts)


def _function(function: Callable[..., Any]) -> str:
    name = f"peft_methods.{function.__name__}"
    return _directive("function", f"{name}{_signature(function)}", paragraphs(function.__doc__))


def _class(kind: type) -> str:
    parts = (_own_docstring(kind), _fields(kind), *_members(kind))
    text = "\n\n".join(part for part in parts if part)
    return _directive("class", f"{kind.__module__}.{kind.__qualname__}", text, colons=4)


def _own_docstring(kind: type) -> str:
    """Return a class's docstring, unless a dataclass made it from the fields."""
    text = paragraphs(vars(kind).get("__doc__"))
    return "" if text.startswith(f"{kind.__name__}(") else text


def _fields(kind: type) -> str:
    """Format the fields of a dataclass that are not inherited."""
    own = vars(kind).get("__annotations__", {})
    if not is_dataclass(kind):
        return ""
    shown = [one for one in fields(kind) if one.name in own and not one.name.startswith("_")]
    return f"Fields: {codes(f'{one.name}: {one.type}' for one in shown)}." if shown else ""


def _members(kind: type) -> Iterator[str]:
    """Yield the public methods and properties of a class, without inherited ones."""
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield _directive("property", name, paragraphs(member.__doc__))
        elif isinstance(member, classmethod | staticmethod) or inspect.isfunction(member):
            function = member if inspect.isfunction(member) else member.__func__
            text = paragraphs(function.__doc__)
            yield _directive("method", f"{name}{_signature(function, method=True)}", text)


def _directive(kind: str, signature: str, text: str, colons: int = 3) -> str:
    fence = ":" * colons
    return f"{fence}{{py:{kind}}} {signature}\n\n{text}\n{fence}"


def _signature(function: Callable[..., Any], *, method: bool = False) -> str:
    """Format a signature with its annotations as they are written, without `self`."""
    found = inspect.signature(function)
    parameters = [_written(one) for one in found.parameters.values()][1 if method else 0 :]
    result = found.return_annotation
    if isinstance(result, str):
        result = _Annotation(result)
    return str(found.replace(parameters=parameters, return_annotation=result))


def _written(parameter: inspect.Parameter) -> inspect.Parameter:
    if isinstance(parameter.annotation, str):
        parameter = parameter.replace(annotation=_Annotation(parameter.annotation))
    if isinstance(parameter.default, Path):
        parameter = parameter.replace(default=str(parameter.default))
    return parameter


def fixtures() -> str:
    """Format the fixtures of the plugin."""
    rows = [(code(name), _fixture_text(name)) for name in FIXTURES]
    return table(("fixture", "value"), rows)


def _fixture_text(name: str) -> str:
    function = getattr(plugin, name)
    original = getattr(function, "_get_wrapped_function", lambda: function)()
    return " ".join(paragraphs(original.__doc__).split())
