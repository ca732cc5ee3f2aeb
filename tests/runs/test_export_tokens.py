"""Saved taggers predict as measured: as their users load them, and by `load_trained`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from seqeval.metrics import f1_score
from torch import nn

from builders import runs
from peft_methods.data import splits
from peft_methods.runs import pipeline
from peft_methods.runs.export import load_trained
from peft_methods.runs.run_paths import RunPaths
from peft_methods.tasks.registry import TASKS
from peft_methods.tasks.tag_predictions import TagPredictions

TASK = TASKS["token_classification"]
SETTINGS = ("data.train=80", "data.max_length=14", "budget.epochs=3")


def by_hand(model: nn.Module, folder: Path, table: Any) -> list[list[str]]:
    """Tag the words as a user would, sentence by sentence; words that are cut off are O."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = model.config.id2label
    found = []
    for words in table.words:
        batch = tokenizer(
            [list(words)],
            is_split_into_words=True,
            truncation=True,
            max_length=14,
            return_tensors="pt",
        )
        with torch.no_grad():
            tags = model.eval()(**batch).logits[0].argmax(-1).tolist()
        first: dict[int, str] = {}
        for word, tag in zip(batch.word_ids(0), tags, strict=True):
            if word is not None:
                first.setdefault(word, names[tag])
        found.append([first.get(number, "O") for number in range(len(words))])
    return found


@pytest.mark.parametrize(
    "name", ["lora", *(pytest.param(one, marks=pytest.mark.slow) for one in ("full", "adapter"))]
)
def test_a_saved_tagger_predicts_as_measured(
    tagged_recipe: Path, tmp_path: Path, name: str
) -> None:
    (run,) = runs(tagged_recipe, name, *SETTINGS)
    folder, work = tmp_path / "saved", tmp_path / "work"
    work.mkdir()
    record, kept = pipeline.execute(
        run, RunPaths(work, save_to=folder), lambda news: None, threads=1
    )
    assert record.status == "ok", record.message
    assert isinstance(kept, TagPredictions)
    texts = splits.load(run.recipe.data, TASK)
    table, names = texts.splits["test"], texts.facts.label_names
    models = [load_trained(folder)]
    if name == "full":
        models.append(transformers.AutoModelForTokenClassification.from_pretrained(folder))
    if name == "lora":
        config = transformers.AutoConfig.from_pretrained(folder)
        plain = transformers.AutoModelForTokenClassification.from_pretrained(
            run.recipe.model.source, config=config
        )
        models += [peft.PeftModel.from_pretrained(plain, folder), load_trained(folder, merge=True)]
    expected = np.where(kept.predicted < 0, 0, kept.predicted)
    true = [[names[tag] for tag in tags] for tags in table.labels]
    for model in models:
        found = by_hand(model, folder, table)
        assert [tag for tags in found for tag in tags] == [names[tag] for tag in expected]
        assert record.metrics["entity_f1"] == f1_score(true, found)
    assert record.metrics["entity_f1"] > 0.3
    assert any("Not read" in note for note in record.data["notes"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForTokenClassification" in card
    assert "labels: O, B-LOC, I-LOC, B-PER, I-PER" in card
    assert 'pipeline("token-classification"' in card


@pytest.mark.slow
def test_the_pipeline_of_transformers_finds_entities(tagged_recipe: Path, tmp_path: Path) -> None:
    (run,) = runs(tagged_recipe, "full", *SETTINGS)
    folder, work = tmp_path / "saved", tmp_path / "work"
    work.mkdir()
    pipeline.execute(run, RunPaths(work, save_to=folder), lambda news: None, threads=1)
    found = transformers.pipeline(
        "token-classification", str(folder), aggregation_strategy="first", device="cpu"
    )("the plot was a film")
    assert {one["entity_group"] for one in found} <= {"LOC", "PER"}
    assert [one["word"] for one in found] == ["plot", "film"]
