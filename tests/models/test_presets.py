"""Architecture presets: their published sizes, and the stand-in for a missing tokenizer."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
import transformers

from builders import PUBLISHED_SIZES, TASK, make_model
from peft_methods.models import presets
from peft_methods.models.config import load_config
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.recipes.schema import ModelSpec


def test_every_preset_has_a_published_size_and_a_module_map() -> None:
    assert set(presets.shape_names()) == set(PUBLISHED_SIZES)
    assert {config["model_type"] for config in presets.presets().values()} <= set(MODULE_MAPS)


@pytest.mark.parametrize("name", list(PUBLISHED_SIZES))
def test_preset_has_the_published_number_of_parameters(name: str) -> None:
    config = load_config(ModelSpec(name, weights="random"), TASK.head)
    with torch.device("meta"):
        models = (
            transformers.AutoModel.from_config(config),
            transformers.AutoModelForSequenceClassification.from_config(config),
        )
    assert (
        tuple(sum(p.numel() for p in model.parameters()) for model in models)
        == PUBLISHED_SIZES[name]
    )


def test_hub_ids_with_and_without_owner_give_the_same_preset() -> None:
    known = presets.presets()
    for path in Path(presets.__file__).parent.glob("*.toml"):
        ids = tomllib.loads(path.read_text(encoding="utf-8"))["ids"]
        assert path.stem in ids
        assert len({str(known[name]) for name in ids}) == 1
    assert known["FacebookAI/roberta-base"] == known["roberta-base"]
    assert known["google-bert/bert-base-uncased"] == known["bert-base-uncased"]


def test_number_tokenizer_maps_numbers_to_the_same_ids() -> None:
    tokenizer = presets.number_tokenizer(50_265, 1)
    tokens = tokenizer(["5 17 50264", "11 0 2 4"], truncation=True, max_length=3)
    assert tokens["input_ids"] == [[5, 17, 50_264], [11, 0, 2]]
    assert (tokenizer.pad_token_id, len(tokenizer)) == (1, 50_265)


def test_has_vocabulary_is_false_for_a_tokenizer_config_alone(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    assert presets.has_vocabulary(str(folder))
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    assert (folder / "tokenizer_config.json").is_file()
    assert not presets.has_vocabulary(str(folder))
