"""Regression check of a pytest session: compare with baselines at its end, and write new ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.utils.words import counted

if TYPE_CHECKING:
    import pytest

    from peft_methods.analysis.regression import RegressionCheck
    from peft_methods.analysis.regression_report import RegressionEntry, RegressionReport
    from peft_methods.runs.record import Record


def finish(
    session: pytest.Session,
    records: Iterable[Record],
    regression: RegressionCheck | None,
    paths: dict[str, Path],
    *,
    append: bool = False,
) -> RegressionReport:
    """Compare all methods with their baselines, then write the requested baselines.

    A failure entry sets the session's exit status to 1 even if every test passed.
    """
    from peft_methods.analysis.regression_report import RegressionReport, merge

    report = regression.check(records) if regression is not None else RegressionReport()
    if paths:
        failed = session.testsfailed or len(report.failures)
        saved = save_baselines(session.config, paths, failed, append=append)
        report = merge([report, RegressionReport(tuple(saved))])
    if session.exitstatus == 0 and report.failures:
        session.exitstatus = 1
    return report


def ended_early() -> RegressionReport:
    """Return the report of a session that ended before all runs were trained."""
    from peft_methods.analysis.regression_report import EntryKind, RegressionEntry, RegressionReport

    text = (
        "No regression check was made and no baseline was written: "
        "the session ended before all runs were trained."
    )
    return RegressionReport((RegressionEntry(EntryKind.NOT_CHECKED, text),))


def save_baselines(
    config: pytest.Config, paths: dict[str, Path], failed: int, *, append: bool
) -> list[RegressionEntry]:
    """Write the baseline files; with `append` the sessions that they have are kept.

    Writes none if any test failed: later sessions are compared with these files.
    """
    from peft_methods.analysis.regression_report import EntryKind, RegressionEntry

    if failed:
        text = f"{failed} failed; a baseline must come from a session without failures."
        return [RegressionEntry(EntryKind.NOT_SAVED, text)]
    document = _document(config)
    return [
        _save(
            path,
            sorted(name for name, place in paths.items() if place == path),
            document,
            append=append,
        )
        for path in dict.fromkeys(paths.values())
    ]


def _save(
    path: Path, recipes: list[str], document: dict[str, Any], *, append: bool
) -> RegressionEntry:
    """Write one baseline file with the benchmarks of these recipes."""
    from peft_methods.analysis.baseline import EARLIER
    from peft_methods.analysis.baseline_writing import with_session, write_baseline
    from peft_methods.analysis.regression_report import EntryKind, RegressionEntry
    from peft_methods.runs.store import StoreError

    recipe = recipes[0] if len(recipes) == 1 else None
    found = [one for one in document["benchmarks"] if one["extra_info"].get("recipe") in recipes]
    # Several tests may have asked for one method.
    kept = list({_method_of(one): one for one in found}.values())
    if not kept:
        text = f"{path} would be empty, because no benchmark of {', '.join(recipes)} has results."
        return RegressionEntry(EntryKind.NOT_SAVED, text, recipe)
    try:
        document = {**document, "benchmarks": kept}
        if append:
            document = with_session(path, document)
        write_baseline(path, document)
    except StoreError as error:
        return RegressionEntry(EntryKind.NOT_SAVED, str(error), recipe)
    reused = sum(len(one["extra_info"].get("reused", ())) for one in kept)
    origin = f", {counted(reused, 'run')} of an earlier session" if reused else ""
    sessions = 1 + len(document.get(EARLIER, ()))
    more = f", {sessions} sessions" if sessions > 1 else ""
    text = f"baseline written: {path} ({counted(len(kept), 'method')}{origin}{more})"
    return RegressionEntry(EntryKind.SAVED, text, recipe)


def _method_of(benchmark: dict[str, Any]) -> tuple[str, str]:
    return benchmark["extra_info"]["recipe"], benchmark["extra_info"]["method"]


def _document(config: pytest.Config) -> dict[str, Any]:
    """Build this session's pytest-benchmark JSON, as `--benchmark-json` would write it."""
    session: Any = config._benchmarksession  # type: ignore[attr-defined]
    if not session.benchmarks:
        return {"benchmarks": []}
    document: dict[str, Any] = config.hook.pytest_benchmark_generate_json(
        config=config,
        benchmarks=session.benchmarks,
        include_data=True,
        machine_info=session.get_machine_info(),
        commit_info=config.hook.pytest_benchmark_generate_commit_info(config=config),
    )
    return document
