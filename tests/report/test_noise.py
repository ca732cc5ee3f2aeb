"""What the reports say about the sources of noise, from records of one session or of several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders import (
    CLEARLY_DIFFERENT,
    make_comparison,
    make_predictions,
    make_record,
    report_html,
    write_results,
)
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.noise_sources import noise_sources
from peft_methods.analysis.variance_parts import Share
from peft_methods.recipes.schema import Recipe
from peft_methods.report.noise import share_text
from peft_methods.report.paper.noise import noise
from peft_methods.report.paper.study import studies_of
from peft_methods.report.text.noise import noise_notes
from peft_methods.runs.store import Store


def varying(recipe: Recipe, *parts: str, name: str = "") -> Recipe:
    budget = replace(recipe.budget, vary=parts)
    return replace(recipe, name=name or recipe.name, budget=budget)


def with_one_part_alone(comparison: Comparison, part: str, **changes: object) -> Comparison:
    """Add a session in which one part varies alone: about a tenth of the spread."""
    records, predictions = list(comparison.records), dict(comparison.predictions)
    for number, record in enumerate(comparison.records):
        recipe = varying(record.spec.recipe, part, name=f"embedded.{part}")
        spec = replace(record.spec, recipe=recipe, **changes)
        one = replace(record, spec=spec, fingerprint=f"{record.fingerprint}-{part}")
        records.append(one)
        right = 0.8 + 0.001 * (record.seed + len(record.method_name))
        predictions[one.fingerprint] = make_predictions(right, number)
    return Comparison(tuple(records), predictions=predictions)


def test_share_text_never_shows_a_share_below_zero() -> None:
    assert share_text(Share(0.123, 0.02, 0.8)) == "12 % (2 to 80)"
    assert share_text(Share(None, 0.0, 0.35)) == "at most 35 %"
    assert share_text(None) == "–"


def test_notes_name_rows_and_seeds_for_all_methods_and_each() -> None:
    everything, each = noise_notes(make_comparison(CLEARLY_DIFFERENT))
    assert everything.startswith(
        "Where the noise of a mean over 3 seeds and 500 test rows comes from (shares of its "
        "variance, in parentheses their 95 % intervals; seeds vary initialisation, data order and "
        "dropout): test rows "
    )
    assert everything.endswith("More test rows make the means more exact than more seeds do.")
    assert each.startswith("By method, test rows and seeds: LoRA ")
    assert noise_notes(Comparison((make_record(),))) == []  # one seed


def test_shares_add_up_to_one_where_all_are_known() -> None:
    found = noise_sources(make_comparison(CLEARLY_DIFFERENT), "embedded")
    assert found is not None
    assert list(found.by_method) == ["lora", "full", "head_only"]
    for shares in (*found.by_method.values(), found.together):
        assert shares is not None
        known = [shares.rows.estimate, shares.answers.estimate, shares.seeds.estimate]
        assert sum(one or 0 for one in known) == pytest.approx(1)
    assert found.together is not None
    assert found.together.freedom > max(one.freedom for one in found.by_method.values())


def test_a_session_with_one_part_alone_tells_what_it_brings() -> None:
    alone = with_one_part_alone(make_comparison(CLEARLY_DIFFERENT), "dropout")
    found = noise_sources(alone, "embedded")
    assert found is not None
    assert found.parts == ("dropout",)
    assert all("dropout" in shares.parts for shares in found.by_method.values())
    other = noise_sources(alone, "embedded.dropout")
    assert other is not None
    assert (other.parts, other.vary) == ((), ("dropout",))
    assert ", dropout alone " in noise_notes(alone)[0]


def test_a_session_with_other_settings_tells_nothing() -> None:
    base = make_comparison(CLEARLY_DIFFERENT)
    assert (found := noise_sources(with_one_part_alone(base, "split"), "embedded"))
    assert found.parts == ()  # not among what the seeds vary
    other = with_one_part_alone(base, "dropout", device="cuda:0")
    assert (found := noise_sources(other, "embedded"))
    assert found.parts == ()


def test_methods_whose_seeds_draw_the_same_rows_are_not_added() -> None:
    base = make_comparison(CLEARLY_DIFFERENT)
    records = tuple(
        replace(r, spec=replace(r.spec, recipe=varying(r.spec.recipe, "dropout", "split")))
        for r in base.records
    )
    found = noise_sources(replace(base, records=records), "embedded")
    assert found is not None
    assert found.together is None


def test_paper_has_a_table_and_cites_its_source() -> None:
    study = studies_of(with_one_part_alone(make_comparison(CLEARLY_DIFFERENT), "dropout"), None)[0]
    paragraph, table = noise(study)
    assert "@bouthillier2021" in paragraph
    assert "which vary initialisation, data order and dropout, bring" in paragraph
    assert "Dropout alone" in table
    assert "All methods" in table
    assert "%" in table
    assert " %" not in table


def test_html_finds_the_parts_in_other_sections(tmp_path: Path) -> None:
    """Results of two sessions, in the second of which only dropout varies."""
    usual = write_results(tmp_path / "usual")
    both = Store(usual)
    for record in both.records()[0]:
        recipe = varying(record.spec.recipe, "dropout")
        predictions = both.read_predictions(record)
        fingerprint = f"d{record.fingerprint}"
        spec = replace(record.spec, recipe=recipe)
        both.write(replace(record, spec=spec, fingerprint=fingerprint), predictions)
    html = report_html(tmp_path / "report", usual)
    assert html.count("Where the noise comes from</h4>") == 2
    assert "Dropout alone" in html
    assert "budget.vary" in html  # as a difference between the sections


def test_seeds_that_leave_a_usual_part_out_are_named() -> None:
    base = make_comparison(CLEARLY_DIFFERENT)
    assert not [one for one in base.findings() if one.rule == "V507"]
    found = [one for one in with_one_part_alone(base, "dropout").findings() if one.rule == "V507"]
    assert len(found) == 3  # methods
    assert found[0].evidence == "initialisation, data order: the same for all seeds"
