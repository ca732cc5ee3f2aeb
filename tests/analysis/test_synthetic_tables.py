"""Error rates of the audit on many tables: honest ones, and ones with a planted mistake."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from peft_methods.analysis.external.tables import TableError
from table_audit import errors_in, findings_in, is_found
from table_builders import honest_table, mixed_table
from table_flaws import FLAWS, flawed_table
from table_writers import write_table


def false_errors(count: int, folder: Path, seed: int = 0) -> list[str]:
    """Return the errors in this many honest tables, with the seed that builds each again."""
    found = []
    for number in range(seed, seed + count):
        rng = random.Random(number)
        build = honest_table if rng.random() < 0.75 else mixed_table
        path = write_table(build(rng), rng, folder)
        found += [f"seed {number}, {path.name}: {error}" for error in errors_in(path)[:1]]
    return found


def missed(kind: str, count: int, folder: Path) -> list[str]:
    """Return what was found instead, for each table with such a flaw that was not found."""
    found = []
    for number in range(count):
        rng = random.Random(f"{kind} {number}")
        flaw = flawed_table(kind, rng)
        path = write_table(flaw.table, rng, folder, needed=flaw.needed)
        try:
            findings = findings_in(path)
        except TableError as error:
            found.append(f"{number}: refused: {error}")
            continue
        if not is_found(kind, flaw.subject, findings):
            found.append(f"{number}: {flaw.subject}: {[str(one) for one in findings]}")
    return found


def test_honest_tables_have_no_errors(tmp_path: Path) -> None:
    assert false_errors(50, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)  # half an hour to an hour
def test_at_most_one_honest_table_of_a_thousand_has_an_error(tmp_path: Path) -> None:
    found = false_errors(20_000, tmp_path, seed=1_000)
    assert len(found) <= 20, found[:20]


@pytest.mark.parametrize("kind", list(FLAWS))
def test_planted_flaws_are_found(kind: str, tmp_path: Path) -> None:
    found = missed(kind, 12, tmp_path)
    assert len(found) <= 1, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FLAWS))
def test_19_of_20_planted_flaws_are_found(kind: str, tmp_path: Path) -> None:
    found = missed(kind, 400, tmp_path)
    assert len(found) <= 400 * 0.05, found[:5]
