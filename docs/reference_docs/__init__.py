"""Generate the reference pages from the code.

A page holds a line that ends in a mark such as `<!-- generated: options -->`. When the site is
built, `fill` replaces the line by the Markdown that the function of that name returns. What the
line says before the mark is for readers of the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from reference_docs import (
    capabilities,
    commands,
    fields,
    many_methods,
    models,
    options,
    python_api,
    tables,
)

GENERATORS: dict[str, Callable[[], str]] = {
    "capabilities": capabilities.matrix,
    "capability-checks": capabilities.checks,
    "checks": tables.checks,
    "commands": commands.commands,
    "csv-columns": fields.csv_columns,
    "engines": tables.engines,
    "exit-codes": commands.exit_codes,
    "extra-info": fields.extra_info_fields,
    "extras": tables.extras,
    "fixtures": python_api.fixtures,
    "many-methods-decoder": many_methods.decoder,
    "many-methods-encoder": many_methods.encoder,
    "many-methods-not-run": many_methods.not_run,
    "method-fields": fields.method_fields,
    "methods": tables.methods,
    "methods-by-model": models.methods_by_model,
    "methods-converted-to-lora": tables.methods_converted_to_lora,
    "methods-on-several-gpus": tables.methods_on_several_gpus,
    "metrics": tables.metrics,
    "model-presets": tables.model_presets,
    "options": options.option_table,
    "python-api": python_api.python_api,
    "recipe-fields": fields.recipe_fields,
    "recipes": tables.recipes,
    "record-fields": fields.record_fields,
    "tasks": tables.tasks,
}
MARK = re.compile(r"^.*<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """Replace every mark by the generated Markdown. Raises `KeyError` for an unknown name."""
    return MARK.sub(lambda mark: GENERATORS[mark[1]](), text)
