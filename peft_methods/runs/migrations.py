"""Convert the JSON of records and baselines of earlier schema versions to the current version.

Version 2 renamed fields (`cell` to `spec`, `identity` to `fingerprint`, `stages` to
`prerequisites`, `instead_of` to `fallback_from`), engines (`stock`, `graphed`) and the prefix of
bundled sources (`embedded:`), and replaced the flags `is_source` and `trial` by a role.

Version 3 counts in `checkpoint_bytes` everything that a task needs beside the base model. Before,
it was the trained weights: too few for a method that also saves frozen ones (AdapterFusion), whose
old value is therefore missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.bundled_names import bundled_name
from peft_methods.training.registry import ALIASES

Values = dict[str, Any]
FIRST, TRAINED_WEIGHTS_ONLY = 1, 2


def migrate_record(values: Mapping[str, Any]) -> Values:
    """Return the JSON of a record in the current version.

    Raises `KeyError`, `TypeError` or `AttributeError` if it is not that of a record.
    """
    current = _from_first(values) if values["schema_version"] == FIRST else dict(values)
    if current["schema_version"] != TRAINED_WEIGHTS_ONLY:
        return current
    metrics = current.get("metrics", {})
    if "checkpoint_bytes" in metrics and _saves_more_than_trained(current["spec"]):
        current["metrics"] = {**metrics, "checkpoint_bytes": None}
    return {**current, "schema_version": TRAINED_WEIGHTS_ONLY + 1}


def _from_first(values: Mapping[str, Any]) -> Values:
    """Convert a record of version 1 to version 2."""
    current = _renamed(values, {"identity": "fingerprint"})
    cell, is_source = current.pop("cell"), current.pop("is_source", False)
    role = "trial" if cell.get("trial") else "prerequisite" if is_source else "main"
    current["spec"] = _spec(cell, role)
    for part in ("tuning", "data"):
        if part in current:
            current[part] = _with_bundled_names(current[part])
    return {**current, "schema_version": FIRST + 1}


def migrate_baseline_entry(values: Mapping[str, Any]) -> Values:
    """Return the `extra_info` of one method in a baseline, in the current version.

    Raises `KeyError`, `TypeError` or `AttributeError` if its spec is not one.
    """
    current = dict(values)
    if values.get("schema_version", FIRST) == FIRST:
        current = _renamed(values, {"identities": "fingerprints"})
        current |= {"spec": _spec(current["spec"], "main"), "schema_version": FIRST + 1}
    if current["schema_version"] != TRAINED_WEIGHTS_ONLY:
        return current
    metrics = current.get("metrics", {})
    if "checkpoint_bytes" in metrics and _saves_more_than_trained(current["spec"]):
        seeds = len(metrics["checkpoint_bytes"])
        current["metrics"] = {**metrics, "checkpoint_bytes": [None] * seeds}
    return {**current, "schema_version": TRAINED_WEIGHTS_ONLY + 1}


def _saves_more_than_trained(spec: Mapping[str, Any]) -> bool:
    """Whether the method saves frozen weights too, as far as it is known."""
    name = spec["method"]["name"]
    return name in METHODS and METHODS[name].saved_parameters is not Method.saved_parameters


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> Values:
    return {names.get(name, name): value for name, value in values.items()}


def _spec(old: Mapping[str, Any], role: str) -> Values:
    """Convert a run's spec and, recursively, those of its prerequisites."""
    spec = _renamed(old, {"stages": "prerequisites", "instead_of": "fallback_from"})
    spec.pop("trial", None)  # a flag then, a name now; the role says the same
    for name in ("engine", "fallback_from"):
        if name in spec:
            spec[name] = ALIASES.get(spec[name], spec[name])
    for name in ("recipe", "method"):
        spec[name] = _with_bundled_names(spec[name])
    spec["prerequisites"] = [_spec(one, "prerequisite") for one in spec["prerequisites"]]
    return {**spec, "role": role}


def _with_bundled_names(value: Any) -> Any:
    """Return a JSON value with the current prefix in every name of bundled data or models."""
    if isinstance(value, str):
        return bundled_name(value)
    if isinstance(value, dict):
        return {name: _with_bundled_names(one) for name, one in value.items()}
    return [_with_bundled_names(one) for one in value] if isinstance(value, list) else value
