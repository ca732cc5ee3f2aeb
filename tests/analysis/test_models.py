"""Several models of one recipe: named recipes, and their best methods compared on the same rows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import (
    CLEARLY_DIFFERENT,
    SMALL,
    TEST_LABELS,
    make_any,
    make_comparison,
    make_predictions,
)
from peft_methods.analysis.data_sets import summarize_data_sets
from peft_methods.analysis.models import ModelsCompared, compare_models
from peft_methods.api import PrintableComparison, compare
from peft_methods.cli.options import Options
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.several_models import parse_models, recipes_of_models
from peft_methods.report.html.models import models_views
from peft_methods.report.text.comparison import terminal_table
from peft_methods.report.text.layout import Layout
from peft_methods.report.text.models import MODELS_NOTE, models_parts
from peft_methods.tasks.lm_predictions import Generated, LanguagePredictions
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import OptionError

WORSE = {
    "full": ([0.80, 0.81, 0.80], {"train_seconds": 50.0}),
    "lora": ([0.81, 0.80, 0.82], {"train_seconds": 40.0}),
}


def of_model(comparison: PrintableComparison, model: str) -> PrintableComparison:
    """Give the records the name that a session with several models gives them."""
    records = []
    for record in comparison.records:
        recipe = record.spec.recipe
        changed = replace(
            recipe,
            name=f"embedded.{model}",
            models_of="embedded",
            model=replace(recipe.model, source=f"owner/{model}"),
        )
        spec = replace(record.spec, recipe=changed)
        fingerprint = f"{model}-{record.fingerprint}"
        records.append(replace(record, spec=spec, fingerprint=fingerprint))
    predictions = {f"{model}-{name}": one for name, one in comparison.predictions.items()}
    return replace(comparison, records=tuple(records), predictions=predictions)


def text_of(found: ModelsCompared) -> str:
    """Return the table and the lines below it, with single blanks."""
    return " ".join("\n".join(models_parts(found, Layout((), 250))).split())


def together(*parts: PrintableComparison) -> PrintableComparison:
    records = tuple(record for part in parts for record in part.records)
    predictions = {name: one for part in parts for name, one in part.predictions.items()}
    return replace(parts[0], records=records, predictions=predictions)


@pytest.fixture(scope="module")
def both() -> PrintableComparison:
    return together(
        of_model(make_comparison(WORSE), "small-decoder"),
        of_model(make_comparison(CLEARLY_DIFFERENT), "encoder"),
    )


def test_best_method_of_each_model_is_compared_with_the_best_model(
    both: PrintableComparison,
) -> None:
    (found,) = compare_models(both)
    assert [(one.model, one.row.method) for one in found.models] == [
        ("owner/encoder", "lora"),
        ("owner/small-decoder", "lora"),
    ]
    pair = found.against_best("embedded.small-decoder")
    assert pair is not None
    assert pair.verdict == "worse"
    assert pair.low <= pair.difference <= pair.high < 0
    assert found.against_best("embedded.encoder") is None


def test_intervals_allow_for_the_choice_among_all_methods(both: PrintableComparison) -> None:
    """They are wider than those of the two chosen methods alone."""
    (found,) = compare_models(both)
    chosen = {("embedded.encoder", "lora"), ("embedded.small-decoder", "lora")}
    records = tuple(one for one in both.records if (one.recipe_name, one.method_name) in chosen)
    (alone,) = compare_models(replace(both, records=records))
    wide, narrow = found.pairs[0], alone.pairs[0]
    assert wide.high - wide.low > narrow.high - narrow.low


def test_models_are_no_data_sets(both: PrintableComparison) -> None:
    assert summarize_data_sets(both) is None


def test_table_and_sentences_say_that_the_models_differ(both: PrintableComparison) -> None:
    text = terminal_table(both)
    assert "embedded: different models, each with its best method" in text
    assert MODELS_NOTE in " ".join(text.split())
    (found,) = compare_models(both)
    assert re.search(r"owner/small-decoder LoRA 81\.0 -9\.7 \(.* to .*\) worse", text_of(found))
    (view,) = models_views(both)
    assert view.models is not None
    assert [line.title for line in view.models.lines] == ["owner/encoder", "owner/small-decoder"]
    assert "worse" in {item.text for item in view.models.lines[1].items}
    assert view.notes == (MODELS_NOTE,)


def test_one_seed_or_other_examples_give_no_intervals() -> None:
    one = {name: (accuracies[:1], more) for name, (accuracies, more) in WORSE.items()}
    single = together(of_model(make_comparison(one), "a"), of_model(make_comparison(WORSE), "b"))
    (found,) = compare_models(single)
    assert found.pairs == ()
    assert "one seed" in text_of(found)
    other = of_model(make_comparison(WORSE), "c")
    flipped = {
        name: make_predictions(0.8, seed, 1 - TEST_LABELS)
        for seed, name in enumerate(other.predictions)
    }
    (found,) = compare_models(
        together(of_model(make_comparison(WORSE), "b"), replace(other, predictions=flipped))
    )
    assert (found.pairs, found.other_examples) == ((), True)


def test_models_without_a_method_to_compare_are_named() -> None:
    """Every method has an error finding: it learnt nothing."""
    poor = {name: ([0.5, 0.5], more) for name, (_, more) in WORSE.items()}
    parts = [of_model(make_comparison(poor), name) for name in "ab"]
    (found,) = compare_models(together(*parts))
    assert (found.models, found.pairs) == ((), ())
    assert set(found.not_compared) == {"embedded.a", "embedded.b"}
    text = terminal_table(together(*parts))
    assert "embedded.a: no method to compare with other models" in text
    one = together(of_model(make_comparison(WORSE), "c"), parts[0])
    (found,) = compare_models(one)
    assert ([model.model for model in found.models], found.pairs) == (["owner/c"], ())


def test_one_model_is_no_comparison() -> None:
    assert compare_models(of_model(make_comparison(WORSE), "a")) == []
    assert compare_models(make_comparison(WORSE)) == []


def test_models_are_parsed_from_a_list_or_a_text(tmp_path: Path) -> None:
    assert parse_models(None) == ()
    assert parse_models("a/b, c") == ("a/b", "c") == parse_models(["a/b", "c", "a/b"])
    (tmp_path / "x,y").mkdir()
    assert parse_models(str(tmp_path / "x,y")) == (str(tmp_path / "x,y"),)
    with pytest.raises(OptionError, match="has an empty name"):
        parse_models("a,,b")


def test_each_model_gets_a_recipe_with_its_own_name() -> None:
    def load(name: str, model: str | None) -> object:
        return load_recipe(name, model=model)

    one, other, twin = recipes_of_models(load, "embedded", ("o/bert-tiny", "x/y", "z/y"))  # type: ignore[arg-type]
    assert (one.name, other.name) == ("embedded.bert-tiny", "embedded.y")
    assert twin.name not in {one.name, other.name}
    assert {one.models_of, other.models_of, twin.models_of} == {"embedded"}
    (alone,) = recipes_of_models(load, "embedded", ("x/y",))  # type: ignore[arg-type]
    assert (alone.name, alone.models_of, alone.model.source) == ("embedded", "", "x/y")


def test_options_plan_the_runs_of_each_model(tiny_recipe: Path, tmp_path: Path) -> None:
    models = tuple(str(make_any(tmp_path / kind, kind)) for kind in ("mpnet", "llama"))
    results = tmp_path / "results"
    options = Options((str(tiny_recipe),), ("lora", "bitfit"), (), results, models=models)
    names = [task.recipe.name for task in options.tasks()]
    assert [name.rpartition(".")[2] for name in names] == ["mpnet", "mpnet", "llama", "llama"]
    assert {Path(task.recipe.model.source).name for task in options.tasks()} == {"mpnet", "llama"}


@pytest.mark.slow
def test_models_are_trained_and_compared_in_one_session(tiny_recipe: Path, tmp_path: Path) -> None:
    """An encoder and a decoder: the method that one of them cannot be trained with is skipped."""
    found = compare(
        str(tiny_recipe),
        methods=["bitfit", "lora"],
        model=[str(make_any(tmp_path / kind, kind)) for kind in ("bert", "llama")],
        seeds=2,
        settings=[*SMALL[:3], "budget.epochs=1", "expect.above_majority=false"],
        results=tmp_path / "results",
        progress=False,
    )
    (models,) = compare_models(found)
    assert {Path(one.model).name for one in models.models} == {"bert", "llama"}
    assert len(models.pairs) == 1
    text = str(found)
    assert "different models, each with its best method" in text
    assert "BitFit" in text


def of_language_model(model: str, loss: float, tokens: int, rank_by: str) -> PrintableComparison:
    """Return runs of a language model with this mean loss per token; `tokens` number its rows."""
    rng = np.random.default_rng(tokens)
    kept, records = {}, []
    for record in make_comparison(WORSE).records:
        recipe = record.spec.recipe
        changed = replace(
            recipe,
            task="causal_lm",
            data=replace(recipe.data, select_by="token_loss", rank_by=rank_by),
        )
        made = LanguagePredictions(
            100 * (loss + 0.01 * rng.standard_normal(200)),
            np.full(200, 100),
            np.arange(200) + tokens,
            Generated(
                ("yes",) * 200,
                tuple((word,) for word in ["yes", "no"] * 100),
                (),
                np.full(200, 1),
                np.full(200, True),
            ),
        )
        scores = TASKS["causal_lm"].scores(made)
        metrics = {**record.metrics, **scores}
        spec = replace(record.spec, recipe=changed)
        records.append(replace(record, spec=spec, metrics=metrics))
        kept[record.fingerprint] = made
    return of_model(
        replace(make_comparison(WORSE), records=tuple(records), predictions=kept), model
    )


def test_of_losses_the_lower_one_is_better_and_has_its_own_unit() -> None:
    low = of_language_model("low", 2.0, 0, "token_loss")
    both = together(of_language_model("high", 2.5, 0, "token_loss"), low)
    (found,) = compare_models(both)
    assert [one.model for one in found.models] == ["owner/low", "owner/high"]
    pair = found.against_best("embedded.high")
    assert pair is not None
    assert (pair.verdict, round(pair.difference, 1)) == ("worse", 0.5)
    assert re.search(r"owner/high LoRA 2\.50\d \+0\.\d{3} \(", text_of(found))
    assert "points" not in text_of(found)


def test_losses_of_different_tokens_are_not_compared() -> None:
    parts = [
        of_language_model("a", 2.0, 0, "token_loss"),
        of_language_model("b", 9, 7, "token_loss"),
    ]
    (found,) = compare_models(together(*parts))
    assert (found.other_tokens, found.other_examples, found.pairs) == (True, False, ())
    assert [one.model for one in found.models] == ["owner/a", "owner/b"]  # in the given order
    (reversed_order,) = compare_models(together(*parts[::-1]))
    assert [one.model for one in reversed_order.models] == ["owner/b", "owner/a"]
    assert "different tokens, on which loss per token depends" in text_of(found)


def test_texts_are_compared_whatever_the_tokens() -> None:
    parts = [of_language_model(name, 2.0, at, "exact_match") for name, at in (("a", 0), ("b", 7))]
    (found,) = compare_models(together(*parts))
    assert (found.other_tokens, found.other_examples) == (False, False)
    assert len(found.pairs) == 1
    assert " 50.0 " in text_of(found)
