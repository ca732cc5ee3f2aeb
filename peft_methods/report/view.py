"""What the report says, as plain values: from sections of records to what the template places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.comparing import Comparison, Row
from peft_methods.gate import Gate
from peft_methods.gathering import Section
from peft_methods.recommending import Limits, Recommendation, recommend
from peft_methods.report import circumstances, classes, tables
from peft_methods.report.circumstances import MethodView
from peft_methods.report.classes import ClassView
from peft_methods.report.reproducing import recipe_file
from peft_methods.report.shown import without_home
from peft_methods.report.table import described, grouped_findings, reasons, source_costs
from peft_methods.report.tables import Table
from peft_methods.validity import RULES, Finding

SEVERITIES = ("error", "warning", "note")  # the worst first


@dataclass(frozen=True)
class ChartView:
    """A drawn chart: an <svg> element that is safe to place, and what it shows in words."""

    name: str
    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Told:
    """All that one rule says: (evidence, about whom) for each case, and what to do about them."""

    rule: str
    severity: str
    title: str
    cases: tuple[tuple[str, tuple[str, ...]], ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class SectionView:
    """One section of the report. What is None or empty is a part in which there is nothing to say."""

    anchor: str
    recipe: str
    name: str
    described: str
    apart: tuple[str, ...]
    answers: tuple[Recommendation, ...]
    comparison: Table
    differences: Table | None
    said: tuple[str, ...]
    charts: tuple[ChartView, ...]
    classes: tuple[ClassView, ...]
    baseline: Table | None
    judged: tuple[str, ...]
    findings: tuple[Told, ...]
    figures: Table
    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    methods: tuple[MethodView, ...]
    recipe_file: str
    cells: Table

    @property
    def headline(self) -> str:
        """The answer to the first question, or that there is none."""
        return (
            str(self.answers[0])
            if self.answers
            else "Too little was measured to recommend anything."
        )


def section_view(
    section: Section,
    limits: Limits,
    gate: Gate | None,
    charts: Sequence[ChartView],
    judged: Sequence[str] = (),
) -> SectionView:
    """Build the view of a section; `judged` are the regression check's lines about its recipe."""
    comparison = section.comparison
    rows, standing = comparison.rows(), comparison.standings[section.recipe]
    records = [record for record in comparison.records if not record.is_source]
    of = {
        row.method: [record for record in records if record.method_name == row.method]
        for row in rows
    }
    methods = tuple(circumstances.method_view(row, of[row.method]) for row in rows)
    common, own = circumstances.split(records)
    return SectionView(
        anchor=re.sub(r"[^A-Za-z0-9_.-]", "-", f"{section.recipe}-{section.number}"),
        recipe=section.recipe,
        name=section.name,
        described=without_home(described(comparison, section.recipe)),
        apart=tuple(map(without_home, section.apart)),
        answers=tuple(recommend(comparison, limits)),
        comparison=tables.comparison_table(rows, standing),
        differences=tables.differences_table(rows, standing),
        said=tuple(
            without_home(line)
            for line in (*_said(comparison, rows), tables.front_said(rows, standing))
            if line
        ),
        charts=tuple(charts),
        classes=tuple(
            view for row in rows if (view := classes.class_view(row, of[row.method])) is not None
        ),
        baseline=tables.baseline_table((row, gate.changes(of[row.method])) for row in rows)
        if gate
        else None,
        judged=tuple(map(without_home, judged)),
        findings=_told(comparison),
        figures=tables.figures_table(rows),
        settings=circumstances.settings(records[0]),
        environment=tuple(common.items()),
        methods=methods,
        recipe_file=recipe_file([found[0] for found in of.values()])
        if any(one.again.needs_file for one in methods)
        else "",
        cells=circumstances.cells_table(records, own),
    )


def _said(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    """How to read the table, and why results are missing."""
    ran = next((record for record in comparison.records if record.status == "ok"), None)
    lines = []
    if ran is not None:
        memory = ran.environment.get("memory_kind")
        lines.append(
            "Mean ± standard deviation over seeds. Train time: training steps only. Peak memory: training only"
            + f", {memory}." * bool(memory)
        )
    if any(len(row.seeds) == 1 for row in rows):
        lines.append(
            "One seed shows no spread: differences between methods may be chance; an interval is that of one model."
        )
    lines += reasons(rows) + source_costs(rows)
    return lines + [
        f"{r.method_name} seed {r.seed}: {r.message}"
        for r in comparison.records
        if r.status == "ok" and r.message
    ]


def _told(comparison: Comparison) -> tuple[Told, ...]:
    """Findings by rule, errors first."""
    by_rule: dict[str, list[tuple[Finding, tuple[str, ...]]]] = {}
    for finding, subjects in grouped_findings(comparison):
        by_rule.setdefault(finding.rule, []).append((finding, subjects))
    told = [
        Told(
            rule,
            cases[0][0].severity,
            RULES[rule].title,
            tuple((without_home(finding.evidence), subjects) for finding, subjects in cases),
            tuple(dict.fromkeys(without_home(finding.advice) for finding, _ in cases)),
        )
        for rule, cases in by_rule.items()
    ]
    return tuple(sorted(told, key=lambda one: (SEVERITIES.index(one.severity), one.rule)))
