"""Tables rebuilt from published ones: what a careful reader finds in them, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.external.tables import TableError
from table_audit import RULES_OF_KIND, findings_in, is_found

KEYS = {"source", "why", "expected", "allowed", "may_refuse"}
FOLDER = Path(__file__).parents[1] / "tables/published"
TABLES: dict[str, dict[str, Any]] = tomllib.loads(
    (FOLDER / "SOURCES.toml").read_text(encoding="utf-8")
)
EXPECTED = [
    pytest.param(name, *found, id=f"{name}-{found[0]}-{found[1]}")
    for name, table in TABLES.items()
    for found in table["expected"]
]


def test_every_table_has_a_source_and_every_source_a_table() -> None:
    assert set(TABLES) == {path.name for path in FOLDER.iterdir()} - {"SOURCES.toml"}
    assert len(TABLES) >= 60
    for name, table in TABLES.items():
        assert set(table) <= KEYS, name
        assert table["source"], name
        for rule, _ in table["expected"] + table.get("allowed", []):
            assert rule in RULES or rule in RULES_OF_KIND, f"{name}: {rule}"


@pytest.mark.parametrize("name", TABLES)
def test_no_error_is_found_that_a_reader_would_not_make(name: str) -> None:
    known = TABLES[name]["expected"] + TABLES[name].get("allowed", [])
    try:
        errors = [found for found in findings_in(FOLDER / name) if found.severity == "error"]
    except TableError:
        if not TABLES[name].get("may_refuse"):
            raise
        return
    assert [
        str(error)
        for error in errors
        if not any(is_found(rule, subject, [error]) for rule, subject in known)
    ] == []


@pytest.mark.parametrize(("name", "rule", "subject"), EXPECTED)
def test_what_a_reader_finds_is_found(name: str, rule: str, subject: str) -> None:
    findings = findings_in(FOLDER / name)
    assert is_found(rule, subject, findings), list(map(str, findings))
