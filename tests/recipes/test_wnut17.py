"""The recipe wnut17_ner, over a local folder in the hub's layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from builders import CORE, make_tagged_rows
from peft_methods.data import splits, synthetic, tokenize
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import chosen_methods
from peft_methods.recipes.loading import find_recipe, load_recipe
from peft_methods.tasks.registry import task_of, with_task

TYPES = ("corporation", "creative-work", "group", "location", "person", "product")
TAGS = ("O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI"))


def hub_layout(folder: Path) -> Path:
    """Write splits as the hub's Parquet copy has them: ids, with the names in the features."""
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=list(TAGS))),
        }
    )
    rows = make_tagged_rows(90)
    for number, row in enumerate(rows):
        kind = TYPES[number % len(TYPES)]
        row["ner_tags"] = [tag if tag == "O" else f"{tag[0]}-{kind}" for tag in row["ner_tags"]]
    for name, part in (("train", rows[:50]), ("validation", rows[50:70]), ("test", rows[70:])):
        columns = {
            "id": [str(number) for number in range(len(part))],
            "tokens": [row["tokens"] for row in part],
            "ner_tags": [[TAGS.index(tag) for tag in row["ner_tags"]] for row in part],
        }
        data = datasets.Dataset.from_dict(columns, features=features)
        data.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def test_it_reads_the_hubs_layout(tmp_path: Path) -> None:
    recipe = with_task(load_recipe("wnut17_ner"))
    folder = hub_layout(tmp_path)
    found = splits.load(replace(recipe.data, source=str(folder)), task_of(recipe))
    assert found.facts.label_names == TAGS
    assert [len(one) for one in found.splits.values()] == [50, 20, 20]
    assert [sum(counts) for counts in found.facts.class_counts.values()] == [50, 20, 20]
    assert found.facts.notes == ()


def test_it_trains_every_method_but_the_fusion_and_selects_by_entity_f1() -> None:
    recipe = with_task(load_recipe("wnut17_ner"))
    assert recipe.selection_metric == "entity_f1"
    methods = [method.name for method in chosen_methods(recipe, None)]
    assert methods == [name for name in METHODS if name in recipe.methods]
    assert set(CORE) - set(methods) == {"adapter_fusion"}
    lines = find_recipe("wnut17_ner").read_text(encoding="utf-8").splitlines()
    assert all("  # " in line for line in lines if "learning_rate =" in line)
    assert lines[0].startswith("# Reproduces ")


def test_rows_without_texts_have_the_lengths_and_tags_of_the_sentences() -> None:
    sizes = ["data.train=3291", "data.validation=1000", "data.test=1280"]
    recipe = load_recipe("wnut17_ner", sizes, weights="random")
    task = task_of(recipe)
    drawn = synthetic.load(recipe, task)
    assert drawn.tokenizer is not None
    tokens = tokenize.tokenize(drawn, drawn.tokenizer, recipe.data, task)
    assert np.mean(tokens.train.lengths) == pytest.approx(31.3, abs=0.6)
    tags = np.unique(np.concatenate(tokens.train.tokens["tags"]))
    assert tags.tolist() == list(range(13))
    assert len(drawn.facts.label_names) == 13
