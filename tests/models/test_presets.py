"""Architecture presets: their published sizes, and the stand-in for a missing tokenizer."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
import transformers

from builders import PUBLISHED_LANGUAGE_MODELS, PUBLISHED_SIZES, TASK, make_model
from peft_methods.analysis.checks.parameter_counts import known_models, models_of_size
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading, presets
from peft_methods.models.config import kind_of, load_config
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError


def test_every_preset_has_a_published_size_and_a_module_map() -> None:
    assert set(presets.shape_names()) == {*PUBLISHED_SIZES, *PUBLISHED_LANGUAGE_MODELS}
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


@pytest.mark.parametrize("name", list(PUBLISHED_LANGUAGE_MODELS))
def test_language_model_has_the_published_number_of_parameters(name: str) -> None:
    config = load_config(ModelSpec(name, weights="random"), TASK.head)
    kind = (
        transformers.AutoModelForMaskedLM if "BERT" in name else transformers.AutoModelForCausalLM
    )
    with torch.device("meta"):
        model = kind.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_LANGUAGE_MODELS[name]


@pytest.mark.parametrize("name", presets.shape_names())
def test_counts_of_the_audit_are_those_of_the_classifier(name: str) -> None:
    config = load_config(ModelSpec(name, weights="random"), TASK.head)
    with torch.device("meta"):
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    total = sum(p.numel() for p in model.parameters())
    found = models_of_size(RoundedCount.exactly(total))
    known = known_models()[name.lower()]
    assert any(one.labels == 2 and one.hidden == known.hidden for one in found)


def test_random_decoder_of_a_preset_is_loaded_with_a_padding_token() -> None:
    spec = ModelSpec("HuggingFaceTB/SmolLM2-135M", weights="random")
    assert kind_of(spec) == "decoder"
    base = loading.load(spec, TASK.head, ("no", "yes"))
    assert base.model.config.pad_token_id == base.tokenizer.pad_token_id == 0
    assert base.architecture.encoder_parameters == PUBLISHED_LANGUAGE_MODELS["SmolLM2-135M"]
    base.check_length(8192)
    with pytest.raises(ModelError, match="at most 8192 tokens"):
        base.check_length(8193)
    lora = METHODS.create("lora", {"learning_rate": 0.01}, "test")
    # queries are 576 wide, values 3 heads of 64
    assert lora.expected_trainable(base.architecture) == 30 * 8 * (2 * 576 + 576 + 192)


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
