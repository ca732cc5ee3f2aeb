"""The results that pytest-benchmark's JSON carries for later sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_methods.runs.record import Record


def extra_info(records: Sequence[Record]) -> dict[str, Any]:
    """Return the `extra_info` of one method: runs that differ in their seed only.

    It holds every metric with one value per seed, and a description of the runs and the machine.
    """
    first = records[0]
    return {
        "schema_version": first.schema_version,
        "recipe": first.recipe_name,
        "method": first.method_name,
        "seeds": [record.seed for record in records],
        "fingerprints": [record.fingerprint for record in records],
        "reused": [record.seed for record in records if record.reused],
        "metrics": {name: [record.metrics[name] for record in records] for name in first.metrics},
        "spec": {name: value for name, value in first.spec.to_json().items() if name != "seed"},
        "data": {name: first.data[name] for name in ("fingerprint", "majority")},
        "environment": first.environment,
    }
