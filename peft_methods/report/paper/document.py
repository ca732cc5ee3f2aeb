"""The paper as a whole: its parts in their order, and the files that it is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from peft_methods.comparing import Comparison
from peft_methods.environment import package_versions
from peft_methods.recommending import Limits
from peft_methods.report.paper import charts, discussion, introduction, references, results, setup
from peft_methods.report.paper.charts import Drawn
from peft_methods.report.paper.study import Study, studies_of
from peft_methods.report.paper.typst import (
    TEMPLATE,
    PaperError,
    check_possible,
    compiled,
    escaped,
    literal,
)
from peft_methods.store import atomically


def write_paper(comparison: Comparison, path: Path, limits: Limits | None = None) -> list[Path]:
    """Write FILE.pdf, its source FILE.typ with FILE.bib, and its figures in FILE-figures; returns them, the PDF first.

    The same records give the same bytes. Nothing is written unless the whole paper could be typeset.
    Raises `PaperError`.
    """
    check_possible("the paper")
    if path.suffix.lower() != ".pdf":
        raise PaperError(f"the paper {str(path)!r} should be named FILE.pdf.")
    if not path.absolute().parent.is_dir():
        raise PaperError(f"the paper {str(path)!r}: the folder {path.parent} does not exist.")
    studies = studies_of(comparison, limits)
    if not studies:
        raise PaperError("there are no records to write a paper about.")
    figures = {study.recipe: charts.drawn(study, path.stem) for study in studies}
    files = {
        name: data
        for drawn in figures.values()
        for one in drawn
        for name, data in one.files.items()
    }
    source = document(studies, path.stem, figures)
    files[f"{path.stem}.bib"] = references.bibliography(
        source, {row.method for study in studies for row in study.rows}
    ).encode()
    pdf = compiled(source, files, _finished(comparison))
    return _written(path, {path.name: pdf, f"{path.stem}.typ": source.encode(), **files})


def document(studies: Sequence[Study], stem: str, figures: Mapping[str, Sequence[Drawn]]) -> str:
    """The whole source, template and all, so that it can be compiled from its folder alone."""
    head = (
        f"#show: paper.with(\n  title: [{introduction.title(studies)}],\n  author: [{_author(studies)}],\n"
        f"  abstract: [{introduction.abstract(studies)}],\n"
        f"  terms: ({''.join(f'[{term}], ' for term in introduction.TERMS)}),\n)"
    )
    body = [
        "= Introduction",
        *introduction.introduction(studies),
        "= Experimental Setup <setup>",
        *setup.setup(studies),
        "= Results <results>",
        *results.results(studies, figures),
        "= Analysis and Discussion <discussion>",
        *discussion.discussion(studies),
        "= Conclusion and Recommendation <conclusion>",
        *discussion.conclusion(studies),
        f"#references({literal(f'{stem}.bib')})",
    ]
    return "\n\n".join([TEMPLATE.read_text(encoding="utf-8").strip(), head, *body]) + "\n"


def _author(studies: Sequence[Study]) -> str:
    day = datetime.fromtimestamp(_finished(studies[0].comparison), UTC)
    version = package_versions()["peft-methods"] or ""
    return f"Written by peft-methods {escaped(version)} from its records of {day:%B} {day.day}, {day.year}"


def _finished(comparison: Comparison) -> int:
    """When the last cell ended, in Unix time: the paper's date, so that the same records give the same paper."""
    return int(max(record.finished for record in comparison.records))


def _written(path: Path, files: Mapping[str, bytes]) -> list[Path]:
    paths = []
    for name, data in files.items():
        target = path.parent / name
        try:
            target.parent.mkdir(exist_ok=True)
            atomically(target, lambda file, data=data: file.write(data))  # type: ignore[misc]
        except OSError as error:
            raise PaperError(f"{target} could not be written: {error.strerror}.") from None
        paths.append(target)
    return paths
