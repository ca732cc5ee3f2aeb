"""Shapes: the models they describe have the sizes that were published, and their stand-in for a tokenizer counts right."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
import transformers

from builders import PUBLISHED_SIZES as PUBLISHED
from builders import make_model
from peft_methods import configs, shapes
from peft_methods.layouts import LAYOUTS
from peft_methods.recipe import ModelSpec


def test_every_shape_has_its_published_size_beside_it() -> None:
    assert set(shapes.shape_names()) == set(PUBLISHED)
    assert {config["model_type"] for config in shapes.shapes().values()} <= set(LAYOUTS)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_shape_has_as_many_parameters_as_the_published_model(name: str) -> None:
    config = configs.load_config(ModelSpec(name, weights="random"))
    with torch.device("meta"):
        models = (
            transformers.AutoModel.from_config(config),
            transformers.AutoModelForSequenceClassification.from_config(config),
        )
    assert tuple(sum(p.numel() for p in model.parameters()) for model in models) == PUBLISHED[name]


def test_hub_ids_with_and_without_owner_are_one_shape() -> None:
    known = shapes.shapes()
    for path in Path(shapes.__file__).parent.glob("*.toml"):
        ids = tomllib.loads(path.read_text(encoding="utf-8"))["ids"]
        assert path.stem in ids
        assert len({str(known[name]) for name in ids}) == 1
    assert known["FacebookAI/roberta-base"] == known["roberta-base"]
    assert known["google-bert/bert-base-uncased"] == known["bert-base-uncased"]


def test_numbers_are_their_own_tokens() -> None:
    tokenizer = shapes.number_tokenizer(50_265, 1)
    tokens = tokenizer(["5 17 50264", "11 0 2 4"], truncation=True, max_length=3)
    assert tokens["input_ids"] == [[5, 17, 50_264], [11, 0, 2]]
    assert (tokenizer.pad_token_id, len(tokenizer)) == (1, 50_265)


def test_a_config_alone_is_no_tokenizer(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    assert shapes.has_vocabulary(str(folder))
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    assert (folder / "tokenizer_config.json").is_file()
    assert not shapes.has_vocabulary(str(folder))
