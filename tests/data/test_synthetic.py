"""Random tokens: drawn if no text can be read.

Their lengths follow the recipe, and the same seed gives the same tokens.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from builders import CONFIGS, TASK
from peft_methods.data import synthetic, tokenize
from peft_methods.data.facts import SPLITS, TokenData
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import DataSpec, ModelSpec, Recipe
from peft_methods.utils.errors import DataError

VOCABULARY, PADDING = 90, 3


def spec(**more: Any) -> DataSpec:
    return DataSpec(
        "some/texts", **{"train": 200, "validation": 20, "test": 41, "max_length": 30, **more}
    )


def tokens_of(wanted_spec: DataSpec) -> TokenData:
    drawn = synthetic.draw(wanted_spec, TASK, VOCABULARY, PADDING)
    assert drawn.tokenizer is not None
    return tokenize.tokenize(drawn, drawn.tokenizer, wanted_spec, TASK)


def test_draw_returns_the_requested_rows_without_padding_ids() -> None:
    tokens = tokens_of(spec())
    assert [len(getattr(tokens, split)) for split in SPLITS] == [200, 20, 41]
    ids = np.concatenate([np.asarray(row) for row in tokens.train.tokens["input_ids"]])
    assert set(ids.tolist()) == set(range(VOCABULARY)) - {PADDING}
    assert set(tokens.train.lengths) == {30}
    assert tokens.facts.truncated == {"train": 0, "validation": 0, "test": 0}


def test_draw_balances_labels_over_the_recipes_classes() -> None:
    assert tokens_of(spec()).facts.class_counts["test"] == (21, 20)
    six = tokens_of(spec(classes=6)).facts
    assert len(six.label_names) == 6
    assert six.class_counts["train"] == (34, 34, 33, 33, 33, 33)


def test_draw_depends_on_the_data_seed_and_the_source() -> None:
    first, again, other_seed, other_source = (
        tokens_of(wanted_spec)
        for wanted_spec in (spec(), spec(), spec(seed=1), replace(spec(), source="other/texts"))
    )
    assert all(
        np.array_equal(a["input_ids"], b["input_ids"])
        for a, b in zip(first.train, again.train, strict=True)
    )
    assert len({t.facts.fingerprint for t in (first, again, other_seed, other_source)}) == 3
    assert [row.tolist() for row in first.train.tokens["input_ids"][:20]] != [
        row.tolist() for row in first.validation.tokens["input_ids"][:20]
    ]


def test_draw_marks_the_facts_as_random() -> None:
    facts = tokens_of(spec()).facts
    assert facts.random
    assert facts.fingerprint.startswith("random-")
    assert facts.source == "some/texts"


@given(st.lists(st.integers(1, 60), min_size=2, max_size=9).map(sorted))
def test_draw_follows_the_length_quantiles_and_truncates(quantiles: list[int]) -> None:
    tokens = tokens_of(spec(token_lengths=tuple(quantiles)))
    lengths = np.asarray(tokens.train.lengths)
    assert lengths.min() >= min(quantiles[0], 30)
    assert lengths.max() <= min(quantiles[-1], 30)
    evenly = np.interp(
        (np.arange(1000) + 0.5) / 1000, np.linspace(0, 1, len(quantiles)), quantiles
    ).round()
    assert abs(lengths.mean() - np.minimum(evenly, 30).mean()) < 1
    assert abs(tokens.facts.truncated["train"] - (evenly > 30).mean()) < 0.05


def test_draw_matches_the_token_lengths_of_imdb() -> None:
    wanted_spec = load_recipe("imdb_roberta").data
    lengths = np.asarray(tokens_of(wanted_spec).train.lengths)
    assert len(lengths) == 3000
    assert lengths.mean() == pytest.approx(279, abs=2)  # of 5,000 reviews, cut at 512: 279.0
    assert (lengths == 512).mean() == pytest.approx(0.153, abs=0.01)


@pytest.mark.parametrize(
    ("name", "settings", "classes", "mean"),
    [
        ("sst2_bert", [], 2, 13.3),
        ("sst2_bert_as_published", [], 2, 13.3),
        ("trec_bert", ["data.train=4869"], 6, 13.5),
    ],
)
def test_draw_matches_the_token_lengths_of_the_recipes_texts(
    name: str, settings: list[str], classes: int, mean: float
) -> None:
    """The tolerance is about half a token.

    Between the last two quantiles drawn lengths rise linearly, unlike those of the texts.
    """
    recipe = load_recipe(name, settings, weights="random")
    drawn = synthetic.load(recipe, TASK)
    assert drawn.facts.random
    assert drawn.tokenizer is not None
    tokens = tokenize.tokenize(drawn, drawn.tokenizer, recipe.data, TASK)
    assert (
        set(tokens.train.labels.tolist()) == set(range(classes)) == set(tokens.test.labels.tolist())
    )
    assert np.mean(tokens.train.lengths) == pytest.approx(mean, abs=0.6)


def recipe(model: Path | str, source: Path | str, weights: Any = "random") -> Recipe:
    return Recipe(
        "r",
        ModelSpec(str(model), weights),
        replace(spec(max_length=16), source=str(source)),
        load_recipe("embedded").budget,
        {},
    )


def test_load_reads_texts_if_tokenizer_and_data_are_available(
    tiny_models: dict[str, Path], tiny_data: Path
) -> None:
    read = synthetic.load(recipe(tiny_models["bert"], tiny_data), TASK)
    assert not read.facts.random
    assert (
        read.facts
        == synthetic.load(recipe(tiny_models["bert"], tiny_data, "pretrained"), TASK).facts
    )
    with pytest.raises(DataError, match="there is no folder /nowhere/x"):
        synthetic.load(recipe(tiny_models["bert"], "/nowhere/x"), TASK)


def test_load_draws_texts_if_tokenizer_or_data_is_missing(
    tiny_models: dict[str, Path], tiny_data: Path, tmp_path: Path
) -> None:
    CONFIGS["bert"]().save_pretrained(tmp_path)
    for model, source in (
        (tmp_path, tiny_data),
        (tmp_path / "config.json", tiny_data),
        (tiny_models["bert"], "stanfordnlp/imdb"),
    ):
        wanted = recipe(model, source)
        drawn = synthetic.load(wanted, TASK)
        assert drawn.facts.random
        tokenizer = AutoTokenizer.from_pretrained(tiny_models["bert"])
        tokens = tokenize.tokenize(drawn, tokenizer, wanted.data, TASK)
        assert set(tokens.train.lengths) == {16}


def test_draw_refuses_all() -> None:
    with pytest.raises(
        DataError,
        match=r"data.train = 'all' needs the texts.*'some/texts' are not read\. Set data\.train",
    ):
        synthetic.draw(spec(train="all"), TASK, VOCABULARY, PADDING)
