"""Configs: the sizes of random weights, found without the hub.

Configs that do not describe an encoder are refused by name.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import transformers

from builders import CONFIGS, MORE_CONFIGS, TASK
from peft_methods.models.config import load_config
from peft_methods.models.model_head import ModelHead
from peft_methods.models.presets import shape_names
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError


def sized(source: Path | str) -> transformers.PretrainedConfig:
    return load_config(ModelSpec(str(source), weights="random"), TASK.head)


def refused(source: Path | str, *expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        sized(source)
    assert all(part in str(caught.value) for part in expected), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_load_config_reads_a_folder_and_its_config_file_alike(kind: str, tmp_path: Path) -> None:
    CONFIGS[kind]().save_pretrained(tmp_path / "m")
    shutil.copy(tmp_path / "m" / "config.json", tmp_path / "elsewhere.json")
    for source in (tmp_path / "m", tmp_path / "m" / "config.json", tmp_path / "elsewhere.json"):
        assert (sized(source).model_type, sized(source).hidden_size) == (kind, 32)


def test_warnings_at_the_import_of_a_models_code_are_not_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeBERTa's code warns of torch's deprecation; here, all warnings are errors."""
    MORE_CONFIGS["deberta-v2"]().save_pretrained(tmp_path)
    monkeypatch.delitem(sys.modules, "transformers.models.deberta_v2.modeling_deberta_v2")
    assert sized(tmp_path).model_type == "deberta-v2"


def test_load_config_prefers_a_local_folder_to_a_preset_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CONFIGS["bert"]().save_pretrained(tmp_path / "roberta-base")
    assert sized("roberta-base").hidden_size == 768
    monkeypatch.chdir(tmp_path)
    assert sized("roberta-base").hidden_size == 32


def test_load_config_lists_presets_for_an_unknown_name_without_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def contact_hub(*_: object, **__: object) -> None:
        raise AssertionError("the hub was contacted")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", contact_hub)
    refused(
        "FacebookAI/roberta-bass",
        "'FacebookAI/roberta-bass' is neither a local folder or file nor an architecture preset.",
        "Did you mean 'FacebookAI/roberta-base'?",
        f"Presets: {', '.join(shape_names())}.",
        "or to the path of that file",
    )
    refused("/nowhere/at/all", "is neither a local folder or file")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not a valid JSON file"),
        ("[1]", "TypeError"),
        ("{}", "Should have a `model_type` key"),
        ('{"model_type": "nope"}', "model type `nope`"),
        ('{"model_type": "bert", "hidden_size": "x"}', "hidden_size"),
        (
            '{"model_type": "bert", "hidden_size": 30, "num_attention_heads": 7}',
            "not a multiple of the number of attention heads",
        ),
        ('{"model_type": "bert", "hidden_size": -12}', "negative dimension"),
        (
            '{"model_type": "bert", "pad_token_id": 99, "vocab_size": 9}',
            "does not describe a model",
        ),
    ],
)
def test_load_config_refuses_a_config_that_describes_no_model(
    text: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    refused(
        tmp_path,
        "does not describe a model",
        expected,
        "Fix its config.json, or set model.source to an architecture preset (Llama-3.1-8B,",
    )


def test_load_config_refuses_a_folder_without_config(tmp_path: Path) -> None:
    refused(tmp_path, "does not describe a model")


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [
        ("mamba", ""),
        ("gpt_neox_japanese", "the nearest type that can: "),
        ("umt5", "the nearest type that can: 'mt5'"),
    ],
)
def test_load_config_refuses_a_model_without_a_classifier(
    kind: str, nearest: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    refused(
        tmp_path,
        f"is a {kind!r} model, which is not a model that can carry a classifier",
        nearest,
        "Set model.source to an encoder such as BERT, RoBERTa or DeBERTa, a decoder such as",
    )


def test_an_encoder_decoder_is_refused_where_its_head_does_not_fit(tmp_path: Path) -> None:
    """T5 has no decoder alone: it cannot be trained as a causal language model."""
    transformers.T5Config(num_layers=1).save_pretrained(tmp_path)
    head = ModelHead(
        "AutoModelForCausalLM",
        ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
        needed="a causal language model",
        examples="a decoder such as Llama",
    )
    with pytest.raises(ModelError, match=r"is an encoder-decoder \('t5'\), which is not a causal"):
        load_config(ModelSpec(str(tmp_path), weights="random"), head)


def test_gguf_files_are_refused_as_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    (tmp_path / "SmolLM2-135M.Q4_1.gguf").write_bytes(b"GGUF")
    for source in (
        tmp_path,
        tmp_path / "SmolLM2-135M.Q4_1.gguf",
        "bartowski/SmolLM2-135M-Instruct-GGUF",
    ):
        refused(source, "is a model in GGUF format", "Set model.source to the folder or hub id")
        with pytest.raises(ModelError, match="GGUF format"):
            load_config(ModelSpec(str(source)), TASK.head)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert sized(tmp_path).model_type == "llama"
