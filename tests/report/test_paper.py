"""The paper: the claims in its sentences, its files, and its option.

Typesetting is slow, so few tests do it.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typst
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    BENCHMARK,
    CLEARLY_DIFFERENT,
    ReplayRecords,
    error_line,
    make_comparison,
    make_record,
    random_record,
    records_of,
    unregistered,
    with_changed_specs,
)
from peft_methods.__main__ import main
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.constraints import parse_constraints
from peft_methods.analysis.noise_sources import noise_sources
from peft_methods.api import PrintableComparison
from peft_methods.methods.low_rank.lora import LoRA
from peft_methods.methods.registry import METHODS
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import load_recipe, shipped_recipes
from peft_methods.report.paper.document import document, write_paper
from peft_methods.report.paper.english import counted, listed, ratio, share, tidy, with_spread
from peft_methods.report.paper.references import (
    BIBLIOGRAPHY,
    bibliography,
    of_data,
    of_method,
    of_model,
)
from peft_methods.report.paper.study import studies_of
from peft_methods.report.paper.typst import PaperError, compiled, escaped, table
from peft_methods.runs.store import Store

CLAIM = re.compile(r"(?<=is )(?:better|worse) than [\w -]*\w|outperform\w*|superior|significant")


def source_of(comparison: Comparison, limits: str | None = None) -> str:
    """Return the paper's source without its template and figures."""
    studies = studies_of(comparison, parse_constraints(limits) if limits else None)
    source = document(studies, "paper", {study.recipe: [] for study in studies})
    return source[source.index("#show: paper") :]


def part(source: str, heading: str) -> str:
    """Return one section: from its heading to the next one of the same or a higher level."""
    level = heading.split(maxsplit=1)[0]
    start = source.index(f"\n{heading}")
    following = re.search(rf"\n={{1,{len(level)}}} ", source[start + 1 :])
    return source[start : start + 1 + following.start()] if following else source[start:]


def claims(source: str) -> list[str]:
    """Return all claims that one method is better or worse, except in the section on statistics."""
    return CLAIM.findall(source.replace(part(source, "== Statistics"), ""))


def test_paper_calls_only_separable_pairs_better_or_worse() -> None:
    source = source_of(make_comparison(CLEARLY_DIFFERENT))
    ranking = make_comparison(CLEARLY_DIFFERENT).rankings["embedded"]
    pair = ranking.pair("lora", "head_only")
    assert pair is not None
    shown = (
        f"by {100 * pair.difference:.1f} points, 95% interval {100 * pair.low:.1f} to "
        f"{100 * pair.high:.1f}, _p_ \\< 0.001"
    )
    assert f"LoRA, which has the highest mean, is better than Head only ({shown})." in source
    near = ranking.pair("lora", "full")
    assert near is not None
    assert (
        "It is not separable from Full fine-tuning (difference 0.3 points, 95% interval "
        f"−{-100 * near.low:.1f} to {100 * near.high:.1f})."
    ) in source
    assert "As for full fine-tuning, it is better than Head only (by 29.3 points" in source
    assert "Two of the three pairs of methods are separable" in source
    # In the abstract, the results (twice), and the conclusion.
    assert claims(source) == ["better than Head only"] * 4


def test_paper_compares_the_models_of_one_recipe() -> None:
    source = source_of(of_two_models())
    section = part(source, "== Models Compared")
    assert "@t-models-1 compares two models" in section
    assert "Models are compared by the method that is best for each" in section
    assert re.search(r"With LoRA, small is worse against large with LoRA \(difference ", section)
    assert "with Two Models on" in source
    assert "with two models on" in source
    poor = replace(of_two_models(), predictions={})
    assert "no intervals between models" in part(source_of(poor), "== Models Compared")
    assert "Models Compared" not in source_of(make_comparison(CLEARLY_DIFFERENT))


def of_two_models() -> PrintableComparison:
    """Return the same methods trained on a better and on a worse model."""
    worse = {
        name: ([value - 0.1 for value in accuracies], more)
        for name, (accuracies, more) in CLEARLY_DIFFERENT.items()
    }
    records, predictions = [], {}
    for model, methods in (("large", CLEARLY_DIFFERENT), ("small", worse)):
        found = make_comparison(methods)
        named = with_changed_specs(
            found,
            ("name", f"embedded.{model}"),
            ("models_of", "embedded"),
            ("model.source", f"owner/{model}"),
        )
        for record in named.records:
            fingerprint = f"{model}-{record.fingerprint}"
            records.append(replace(record, fingerprint=fingerprint))
            predictions[fingerprint] = found.predictions[record.fingerprint]
    return PrintableComparison(tuple(records), predictions=predictions)


def test_paper_claims_nothing_without_a_separable_pair() -> None:
    alike = make_comparison(
        {
            name: ([0.88 + shift, 0.90, 0.92 - shift], {})
            for name, shift in (("full", 0.0), ("lora", 0.01), ("ia3", 0.02))
        }
    )
    source = source_of(alike)
    assert (
        "None of the three pairs of methods is separable: this comparison shows no difference in "
        "quality between any two methods."
    ) in source
    assert "is not separable from" in source
    assert claims(source) == []


@pytest.mark.parametrize("accuracies", [[0.9], [0.7]])
def test_paper_claims_nothing_with_one_seed(accuracies: list[float]) -> None:
    source = source_of(
        make_comparison({"full": (accuracies, {}), "lora": ([0.8], {}), "ia3": ([0.5], {})})
    )
    assert (
        "All methods were trained with one seed each, so the spread over seeds is unknown"
        in part(source, "== Quality")
    )
    assert "(one seed, no spread)" in source
    assert "none is recommended" in part(source, "= Conclusion")
    assert "is not separable" not in source
    assert "are not separable" not in source.replace(part(source, "== Statistics"), "")
    assert claims(source) == []


def test_paper_names_excluded_methods_with_the_reason() -> None:
    some = make_comparison({**CLEARLY_DIFFERENT, "ia3": ([0.95], {})})
    lost = {
        key: value for key, value in some.predictions.items() if not key.startswith("head_only")
    }
    source = source_of(replace(some, predictions=lost))
    assert "IA3 was trained with one seed, so the spread over seeds is unknown" in source
    assert "Head only has no predictions stored with its records" in source
    assert "LoRA has the higher mean of the compared methods" in source
    assert (
        "Best quality_: none is recommended; IA3, which has the highest figure, was not compared"
        in source
    )


def test_paper_names_the_highest_figure_though_a_cheaper_method_is_the_answer() -> None:
    """With one seed each, the intervals overlap, and IA3 is cheaper to train."""
    source = source_of(
        make_comparison(
            {
                "full": ([0.91], {"train_seconds": 30.0}),
                "ia3": ([0.90], {"train_seconds": 10.0}),
            }
        )
    )
    assert (
        "none is recommended; Full fine-tuning, which has the highest figure, was not compared"
        in source
    )


def test_paper_explains_missing_predictions_and_random_weights() -> None:
    unpredicted = source_of(
        Comparison(
            tuple(make_record(method, seed) for method in ("full", "lora") for seed in (0, 1))
        )
    )
    assert "All methods have no predictions stored with their records" in unpredicted
    assert "no statistical test was possible" in unpredicted
    random = source_of(Comparison(tuple(random_record(method) for method in ("full", "lora"))))
    assert "are random, so quality has no meaning: only costs are compared" in random
    assert "ccuracy" not in random
    assert "*V501* (note)" in random


def test_paper_lists_failures_silenced_rules_and_notes() -> None:
    clear = make_comparison(CLEARLY_DIFFERENT)
    more = (
        make_record("qlora", 0, status="skipped", message="needs $y$ #z [x]", metrics={}),
        make_record("ia3", 0),
        make_record("ia3", 1, status="oom", message="9 GB\nmore", metrics={}),
    )
    source = source_of(
        replace(clear, records=(*clear.records, *more), silenced=("V105",), notes=("a note @x",))
    )
    assert "Of 12 runs (method and seed), ten finished." in source
    assert (
        "QLoRA was skipped: “needs \\$y\\$ \\#z \\[x\\]”. "
        "IA3 with seed 1 ran out of memory: “9 GB more”."
    ) in source
    assert "One rule was silenced and not checked: V105" in source
    assert "- A note \\@x." in source
    assert "[QLoRA (skipped)], [–]" in source
    assert "[IA3 (1 of 2 seeds)]" in source


def test_paper_lists_findings_as_threats() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT)
    comparison.records[0].metrics["accuracy"] = 0.5
    comparison.records[0].data["majority"] = 0.5
    found = {finding.rule: finding for finding in comparison.findings()}
    threats = part(source_of(comparison), "== Threats to Validity")
    assert found
    for rule, finding in found.items():
        assert f"*{rule}* ({finding.severity})" in threats


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (
            ("initialisation", "data_order", "dropout"),
            "Seeds vary initialisation, data order and dropout alone: the intervals do not include "
            "what other training rows and validation rows would change.",
        ),
        (
            ("dropout", "training_subset"),
            "Seeds vary dropout and training subset alone: the intervals do not include what other "
            "initial weights, orders of the training rows, and validation rows would change.",
        ),
        ((), "All seeds repeat one training: the intervals do not include"),
        (("initialisation", "data_order", "dropout", "training_subset", "split"), ""),
    ],
)
def test_threats_say_what_the_seeds_do_not_vary(vary: tuple[str, ...], said: str) -> None:
    comparison = with_changed_specs(make_comparison(CLEARLY_DIFFERENT), ("budget.vary", vary))
    threats = part(source_of(comparison), "== Threats to Validity")
    assert said in threats
    assert ("the intervals do not include" in threats) == bool(said)


@pytest.mark.parametrize(
    ("name", "factor"), [("train_seconds", 37), ("peak_memory_bytes", 3), ("trainable_share", 211)]
)
def test_paper_shows_a_changed_metric_in_its_results(name: str, factor: int) -> None:
    comparison = make_comparison({**CLEARLY_DIFFERENT, "head_only": ([0.6, 0.62, 0.61], {})})
    for record in comparison.records:
        if record.method_name == "head_only":
            record.metrics[name] = (record.metrics[name] or 0.0) * factor
    row = next(row for row in comparison.rows() if row.method == "head_only")
    shown = (
        share(row.mean(name)) if name == "trainable_share" else with_spread(name, row.metrics[name])
    )
    assert shown in part(source_of(comparison), "= Results")


def test_results_contain_only_numbers_of_the_comparison() -> None:
    comparison = make_comparison(CLEARLY_DIFFERENT)
    study = studies_of(comparison, None)[0]
    ranking, rows = study.ranking, study.rows
    known = {100 * one for pair in ranking.pairs for one in (pair.difference, pair.low, pair.high)}
    known |= {100 * one for ends in ranking.intervals.values() for one in ends} | {
        pair.p for pair in ranking.pairs
    }
    for row in rows:
        for name, figure in row.metrics.items():
            scale = 100 if METRICS[name].is_share else 2**-20 if name.endswith("_bytes") else 1
            known |= {scale * figure.mean, scale * (figure.deviation or 0.0)}
        known |= {value for name in METRICS for other, value in study.ratios(name) if other is row}
    known |= {95, 1, 0.001}  # in "95% interval", "Macro F1" and "< 0.001"
    found = noise_sources(study.comparison, study.recipe)
    assert found is not None
    for shares in (*found.by_method.values(), *filter(None, [found.together])):
        for one in (shares.seeds, shares.rows, shares.answers):
            known |= {100 * (one.estimate or 0), 100 * one.low, 100 * one.high}
    known |= {found.seeds, found.rows}
    results = re.sub(r"@[\w-]+|<[\w-]+>|#\w+|\b1fr\b", "", part(source_of(comparison), "= Results"))
    numbers = [
        (text, float(text.replace(",", ""))) for text in re.findall(r"\d[\d,]*(?:\.\d+)?", results)
    ]
    assert len(numbers) > 80
    for text, number in numbers:
        digits = len(text.partition(".")[2])
        assert any(abs(abs(value) - number) <= 0.51 * 10**-digits for value in known), text


def test_paper_gives_costs_relative_to_full_fine_tuning() -> None:
    source = source_of(
        make_comparison(
            {
                **CLEARLY_DIFFERENT,
                "head_only": ([0.6, 0.6], {"train_seconds": 45.0, "peak_memory_bytes": 2e9}),
            }
        )
    )
    assert (
        "trained for 0.67 (LoRA) to 1.50 times (Head only) as long "
        "and needed 0.22 (Head only) to 0.78 times (LoRA)"
    ) in source
    assert "On average, Head only took more time than full fine-tuning." in source
    without = source_of(
        make_comparison({name: CLEARLY_DIFFERENT[name] for name in ("lora", "head_only")})
    )
    assert "Relative to full" not in without
    assert "LoRA is better than every other compared method" in without


def test_paper_on_one_method_makes_no_comparison() -> None:
    source = source_of(make_comparison({"lora": ([0.9, 0.91], {})}))
    assert (
        "LoRA reached a test accuracy of 90.5\u00a0±\u00a00.7%. "
        "With one method there is nothing to compare."
    ) in source
    assert "title: [LoRA Measured: all-MiniLM-L6\\-v2 on Rated Movie-Review Sentences]" in source
    assert "methods are" not in source


def test_paper_gives_the_limits_of_its_recommendations() -> None:
    assert "Based on these figures alone, within memory 8GB, the recommendations are" in source_of(
        make_comparison(CLEARLY_DIFFERENT), "memory=8GB"
    )


def test_paper_has_a_section_for_each_recipe() -> None:
    first = make_comparison(CLEARLY_DIFFERENT)
    second = with_changed_specs(make_comparison(CLEARLY_DIFFERENT), ("name", "a-b.c"))
    both = Comparison((*first.records, *second.records), predictions=first.predictions)
    source = source_of(both)
    assert source.count("\n== “embedded”") == 2
    assert "=== Costs" in source
    assert "Compared on Two Recipes" in source
    assert "<t-main-r1>" in source
    assert "<t-main-r2>" in source


def test_references_cover_every_shipped_method_model_and_data_set() -> None:
    entries = BIBLIOGRAPHY.read_text(encoding="utf-8")
    for name in METHODS:
        numbers = re.findall(r"(?:arXiv|OpenReview):([\w.]+)", METHODS[name].info.paper)
        keys = of_method(name)
        found = bibliography(" ".join(f"@{key}" for key in keys), [name])
        assert len(numbers) == len(keys) == found.count("\n\n") + 1
        assert all(number in found for number in numbers)
        assert METHODS[name].info.about
    recipes = [load_recipe(name) for name in shipped_recipes()]
    for recipe in recipes:
        assert of_model(recipe.model.source)
        assert of_data(recipe.data.source)
    cited = set(re.findall(r"@\w+\{([^,]+),", entries))
    assert {
        key
        for recipe in recipes
        for key in (*of_model(recipe.model.source), *of_data(recipe.data.source))
    } <= cited
    assert of_model("someone/never-heard-of") == of_data("my folder") == ()


@pytest.mark.parametrize(
    ("source", "model_type", "keys"),
    [
        ("albert-base-v2", "albert", ("lan2020albert",)),
        ("albert-base-v2", "", ()),
        ("camembert-base", "camembert", ("martin2020camembert",)),
        ("microsoft/deberta-base", "deberta", ("he2021deberta",)),
        ("microsoft/deberta-v3-base", "deberta-v2", ()),
        ("xlm-roberta-base", "xlm-roberta", ()),
        ("answerdotai/ModernBERT-base", "modernbert", ()),
        ("my/bert-base-uncased", "albert", ("lan2020albert",)),
        ("my/bert-base-uncased", "", ("devlin2019bert",)),
        ("my/folder", "bert", ("devlin2019bert",)),
        ("bundled:minilm", "bert", ("wang2020minilm", "reimers2019sbert")),
        ("FacebookAI/roberta-base", "roberta", ("liu2019roberta",)),
    ],
)
def test_paper_cites_a_model_by_its_type(
    source: str, model_type: str, keys: tuple[str, ...]
) -> None:
    assert of_model(source, model_type) == keys
    comparison = with_changed_specs(
        make_comparison({"lora": ([0.9, 0.91], {})}), ("model.source", source)
    )
    environment = {**comparison.records[0].environment, "model_type": model_type}
    records = tuple(replace(record, environment=environment) for record in comparison.records)
    text = part(source_of(replace(comparison, records=records)), "= Experimental Setup")
    sentence = text[text.index("The model is") :].partition(", pretrained")[0]
    assert tuple(re.findall(r"@(\w+)", sentence)) == keys
    assert set(keys) <= set(re.findall(r"@\w+\{([^,]+),", BIBLIOGRAPHY.read_text("utf-8")))
    assert ("model type" in sentence) == (
        bool(keys)
        and source.partition("/")[2].lower() not in {"bert-base-uncased", "roberta-base"}
        and not source.startswith("bundled")
    )


def test_paper_cites_a_third_party_method_by_its_registered_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = replace(
        LoRA.info,
        name="my_own",
        title="My <own>",
        paper="Me {et} al. 2030, @home",
        about="",
        citations=(),
    )
    own = type("Own", (LoRA,), {"info": info})
    monkeypatch.setitem(METHODS._methods, "my_own", own)
    source = source_of(_renamed(make_comparison({"lora": ([0.9, 0.91], {})}), "my_own"))
    assert "_My \\<own\\>_~@method-my-own is described in the reference." in source
    assert bibliography(source, ["my_own"]).count("Me  et  al. 2030,  home") == 1


def _renamed(comparison: PrintableComparison, name: str) -> PrintableComparison:
    records = (replace(r, spec=unregistered(name, r.spec)) for r in comparison.records)
    return replace(comparison, records=tuple(records))


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TRICKY = (
    *(
        "= a",
        "- b",
        "1. c",
        "/ d: e",
        "a--b---c",
        "...",
        "-1",
        "\\u{41}",
        "//x",
        "/* y",
        "https://a.b",
        "#let",
        "@hu2022lora",
        "<t>",
    ),
    *("$x$", "`", "~", "'", '"', "*_*", "[", "]", "a-?b"),
)
FLAT = """#let flat(it) = if it.has("text") {
  it.text
} else if it.has("children") {
  it.children.map(flat).join("")
} else {
  " "
}
#let text-of(it) = [#metadata(flat(it)) <text-of>]
"""


@settings(max_examples=1)
@given(st.lists(ANY, min_size=150, max_size=200))
def test_escaped_text_is_typeset_unchanged(texts: list[str]) -> None:
    texts = [*TRICKY, *texts]
    lines = "\n".join(f"#text-of([{escaped(text)}])\n\n{escaped(text)}\n" for text in texts)
    found = json.loads(typst.query((FLAT + lines).encode(), "<text-of>", field="value"))
    for text, shown in zip(texts, found, strict=True):
        words = re.sub(r"[^\S\u00a0]+", " ", text).strip(" ")
        expected = re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", words)
        assert (shown or "") == expected, repr(text)


@pytest.mark.parametrize(("columns", "widths"), [(4, "(1fr, auto"), (11, "(auto, auto")])
def test_first_column_takes_the_rest_of_the_width_only_where_there_is_one(
    columns: int, widths: str
) -> None:
    """With eleven columns a first one of 1fr was 20 pt wide and its names ran over the second."""
    source = table("results", "Results", ["head"] * columns, [["cell"] * columns], wide=True)
    assert f"ruled({widths}" in source


def test_english_formats_words_and_numbers() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b, and c",
    ]
    assert listed(["a (1, 2)", "b", "c"]) == "a (1, 2); b; and c"
    assert listed([str(n) for n in range(9)], 3) == "0, 1, and seven more"
    assert [counted(n, "seed") for n in (0, 1, 3, 11)] == [
        "no seeds",
        "one seed",
        "three seeds",
        "11 seeds",
    ]
    assert [ratio(value) for value in (0.634, 12.4, 0.0065, 0.00001)] == [
        "0.63",
        "12",
        "0.0065",
        "\\< 0.001",
    ]
    assert [share(value) for value in (1.0, 0.0, 0.000034)] == ["100.00%", "0.00%", "0.003%"]
    assert (
        tidy("77.5 % (not separable: -4.1 to +5.2), 2-4 x-1 3 s")
        == "77.5% (not separable: −4.1 to +5.2), 2-4 x-1 3\u00a0s"
    )


def test_write_paper_writes_all_files_with_the_same_bytes_every_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    comparison = make_comparison(CLEARLY_DIFFERENT)
    written = comparison.paper(tmp_path / "a" / "my paper.pdf")
    again = write_paper(comparison, tmp_path / "b" / "my paper.pdf")
    assert {path.name for path in written} >= {
        "my paper.pdf",
        "my paper.typ",
        "my paper.bib",
        "r1-accuracy.svg",
    }
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert written[0].read_bytes().startswith(b"%PDF")
    assert sorted(tmp_path.joinpath("a").rglob("*.*")) == sorted(written)
    text = typst.query(written[1], "heading.where(level: 1)", field="body")
    assert [
        json.dumps(one) for one in ("Introduction", "Experimental Setup", "Results")
    ] == re.findall(r'"(?:Introduction|Experimental Setup|Results)"', text)
    assert typst.compile(written[1]).startswith(b"%PDF")  # an author can compile it from its folder


def test_paper_typesets_many_methods_with_long_names_and_other_scripts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = []
    for number in range(50):
        name, title = f"method{number}", f"A rather long name of a method, number {number} 方法 $x$"
        info = replace(LoRA.info, name=name, title=title, paper="Nobody 2030", citations=())
        own = type("Own", (LoRA,), {"info": info})
        monkeypatch.setitem(METHODS._methods, name, own)
        made = make_record("lora", number)
        records.append(replace(made, spec=unregistered(name, made.spec)))
    studies = studies_of(Comparison(tuple(records)), None)
    source = document(studies, "many", {"embedded": []})
    assert source.count("(continued)") == 2  # hyperparameters, and the main table
    files = {"many.bib": bibliography(source, {row.method for row in studies[0].rows}).encode()}
    assert compiled(source, files, 0).startswith(b"%PDF")


def test_write_paper_refuses_bad_arguments_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PaperError, match=r"should be named FILE\.pdf"):
        write_paper(make_comparison(CLEARLY_DIFFERENT), tmp_path / "paper.docx")
    with pytest.raises(PaperError, match="no records to write a paper about"):
        write_paper(Comparison(()), tmp_path / "paper.pdf")
    with pytest.raises(PaperError, match=r"the folder .*absent does not exist"):
        write_paper(make_comparison({"lora": ([0.9], {})}), tmp_path / "absent" / "paper.pdf")


def test_paper_needs_a_run_that_succeeded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    store.write(replace(make_record("lora", status="oom", message="9 GB", metrics={})))
    command = ["report", str(store.folder), "-o", str(tmp_path / "out"), "--charts=none"]
    assert main([*command, f"--paper={tmp_path / 'paper.pdf'}"]) == 2
    assert (
        "no paper was written: none of its runs succeeded (the first: lora seed 0 oom: 9 GB)."
        in capsys.readouterr().err
    )
    assert not (tmp_path / "paper.pdf").exists()


def test_report_refuses_a_paper_that_is_no_pdf_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    store.write(make_record("lora"))
    command = ["report", str(store.folder), "-o", str(tmp_path / "out"), "--charts=none"]
    assert main([*command, f"--paper={tmp_path / 'paper.txt'}"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("should be the name of a PDF: paper.pdf. Change it with --paper.")
    assert not list(tmp_path.rglob("*.html"))


@pytest.fixture
def run(pytester: pytest.Pytester) -> Any:
    """Return a function that runs the benchmark on prepared records."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))

    def go(*arguments: str) -> pytest.RunResult:
        records = [
            *records_of("lora"),
            make_record("ia3", 0, status="failed", message="why not", metrics={}),
        ]
        plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "--peft-method=lora,ia3")
        return pytester.runpytest_inprocess(*plain, *arguments, plugins=[ReplayRecords(records)])

    return go


def test_paper_option_writes_the_paper_even_if_a_run_failed(
    run: Any, pytester: pytest.Pytester
) -> None:
    result = run("--peft-paper=out.pdf")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["written: out.pdf, out.typ, *out.bib*"])
    assert "IA3 failed: “why not”." in (pytester.path / "out.typ").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("out.txt", "paper 'out.txt' should be the name of a PDF: out.pdf."),
        ("absent/out.pdf", "paper 'absent/out.pdf': the folder absent does not exist"),
        (".", "paper '.': it is a folder; give a file. Change it with --peft-paper."),
    ],
)
def test_paper_option_refuses_a_bad_path_before_any_run(run: Any, value: str, message: str) -> None:
    assert message in error_line(run(f"--peft-paper={value}"))


def test_paper_option_names_the_missing_extra(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "typst" else find(name, *more),
    )
    assert error_line(run("--peft-paper=out.pdf")).endswith(
        "a paper needs typst: pip install 'peft-methods[paper]'."
    )
