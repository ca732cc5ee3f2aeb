"""The lists of metrics, checks, methods, tasks, recipes, engines, presets and extras."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

from peft_methods.analysis.checks.rule import SCOPES
from peft_methods.methods import METHODS
from peft_methods.methods.conversion import convertible, why_not
from peft_methods.models.presets import shape_names
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import load_recipe, shipped_recipes
from peft_methods.recipes.parallel import Strategy
from peft_methods.report.methods import methods_markdown
from peft_methods.report.text.rules import RULE_TOPICS, rules_markdown
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import ENGINES
from reference_docs.markdown import code, codes, paragraphs, table

ROOT = Path(__file__).parents[2]
STRATEGIES = get_args(Strategy)
BETTER = {True: "higher", False: "lower", None: "neither"}


def metrics() -> str:
    """Format every metric of a record."""
    rows = [
        (
            code(metric.name),
            metric.title,
            metric.unit.name.replace("_", " "),
            BETTER[metric.higher_is_better],
            "no" if metric.device_dependent else "yes",
        )
        for metric in METRICS.values()
    ]
    headings = ("metric", "title", "unit of the record", "better", "compared between devices")
    return table(headings, rows)


def checks() -> str:
    """Format every validity rule, and what the rules of each scope see."""
    topics = ", ".join(f"{start}xx {topic}" for start, topic in RULE_TOPICS.items())
    scopes = table(("scope", "what the rule sees"), [(code(s), text) for s, text in SCOPES.items()])
    return f"{rules_markdown()}\n\nThe first digit is the topic: {topics}.\n\n{scopes}"


def methods() -> str:
    """Format the built-in methods, and what each of them does."""
    about = "\n".join(
        f"- **{one.title}** {one.about}" for one in (METHODS[n].info for n in METHODS)
    )
    return f"{methods_markdown()}\n\n{about}"


def methods_converted_to_lora() -> str:
    """List the methods whose saved adapters can be converted to LoRA, and why others cannot."""
    reasons: dict[str, list[str]] = {}
    for name in METHODS:
        if reason := why_not(METHODS[name]):
            reasons.setdefault(reason, []).append(name)
    others = "\n".join(f"- {codes(names)}: {reason}" for reason, names in reasons.items())
    return f"Methods that can be converted: {codes(convertible())}.\n\nOthers:\n\n{others}"


def methods_on_several_gpus() -> str:
    """Format which method can be trained over several GPUs with which strategy."""
    infos = [METHODS[name].info for name in METHODS]
    rows = [
        (one.title, *("yes" if strategy in one.strategies else "–" for strategy in STRATEGIES))
        for one in infos
    ]
    return table(("method", *map(code, STRATEGIES)), rows)


def tasks() -> str:
    """Format every task: its metrics and the predictor that it is compared with."""
    rows = [
        (code(task.name), codes(metric.name for metric in task.metrics), task.trivial)
        for task in TASKS.values()
    ]
    return table(("task", "metrics (the first selects the best epoch)", "trivial baseline"), rows)


def recipes() -> str:
    """Format the shipped recipes."""
    rows = []
    for name in shipped_recipes():
        recipe = load_recipe(name)
        rows.append(
            (
                code(name),
                recipe.title,
                code(recipe.model.source),
                code(recipe.data.source),
                "yes" if recipe.gpu else "no",
            )
        )
    return table(("recipe", "title", "model", "data", "needs a GPU"), rows)


def engines() -> str:
    """Format the engines in the order in which `auto` tries them."""
    by_priority = sorted(ENGINES.values(), key=lambda engine: engine.priority, reverse=True)
    rows = [
        (
            code(engine.name),
            paragraphs(engine.__doc__).splitlines()[0],
            codes(engine.devices),
            "yes" if engine.trains_on_several_gpus else "no",
            code(engine.fallback) if engine.fallback else "–",
        )
        for engine in by_priority
    ]
    return table(
        ("engine", "what it does", "devices", "one run over several GPUs", "falls back to"), rows
    )


def model_presets() -> str:
    """List the models whose sizes come with the package."""
    return codes(shape_names())


def extras() -> str:
    """Format the optional dependencies of the package, from its metadata."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found = tomllib.load(file)["project"]["optional-dependencies"]
    return table(("extra", "brings"), [(code(name), codes(found[name])) for name in found])
