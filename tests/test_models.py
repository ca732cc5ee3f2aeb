"""Models: what is a head, what may carry a classifier, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from builders import CONFIGS, make_model
from peft_methods import models
from peft_methods.errors import ModelError
from peft_methods.recipe import ModelSpec

NAMES = ("no", "yes")


def load(folder: Path, **more: str) -> models.Base:
    return models.load(ModelSpec(str(folder), **more), NAMES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("bert", ("classifier",)),
        ("roberta", ("classifier",)),
        ("mpnet", ("classifier",)),
        ("distilbert", ("pre_classifier", "classifier")),
    ],
)
def test_the_head_is_what_has_no_pretrained_weights(
    kind: str, head: tuple[str, ...], tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models[kind])
    assert base.head == head
    assert base.model.config.id2label == {0: "no", 1: "yes"}
    assert all(p.dtype == torch.float32 for p in base.model.parameters())


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_the_closed_form_counts_every_encoder_parameter(
    kind: str, tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models[kind])
    assert base.shape.encoder_parameters + base.shape.head_parameters == sum(
        p.numel() for p in base.model.parameters()
    )
    biases = sum(
        p.numel()
        for n, p in base.model.named_parameters()
        if n.endswith(".bias") and not models.in_modules(n, base.head)
    )
    assert base.shape.encoder_biases == biases


def test_a_pooler_without_weights_is_trained_with_the_head(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weights = {
        n: t for n, t in load_file(folder / "model.safetensors").items() if "pooler" not in n
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).head == ("classifier", "bert.pooler.dense")


def test_a_pooler_that_was_never_trained_starts_anew_with_the_head(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", trained_pooler=False)
    torch.manual_seed(0)
    first = load(folder)
    torch.manual_seed(1)
    second = load(folder)
    assert first.head == ("classifier", "bert.pooler.dense")
    assert not torch.equal(
        first.model.bert.pooler.dense.weight, second.model.bert.pooler.dense.weight
    )
    assert first.weights_sha256 == second.weights_sha256
    assert first.shape.encoder_parameters + first.shape.head_parameters == sum(
        p.numel() for p in first.model.parameters()
    )


def test_half_precision_files_are_loaded_as_fp32(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    half = {
        n: t.half() if t.is_floating_point() else t
        for n, t in load_file(folder / "model.safetensors").items()
    }
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    assert {p.dtype for p in load(folder).model.parameters()} == {torch.float32}


def test_the_same_weights_have_the_same_digest_wherever_they_lie(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    shutil.copytree(tiny_models["bert"], tmp_path / "copy")
    first, copied, random = (
        load(tiny_models["bert"]),
        load(tmp_path / "copy"),
        load(tmp_path / "copy", weights="random"),
    )
    assert first.weights_sha256 == copied.weights_sha256 != random.weights_sha256


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"hidden_dropout_prob": 0.3}, True),
        ({"hidden_act": "relu"}, True),
        ({"layer_norm_eps": 1e-5}, True),
        ({"_name_or_path": "/elsewhere", "transformers_version": "4.0.0"}, False),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, False),
        ({"architectures": ["BertForMaskedLM"], "dtype": "float16"}, False),
        ({"attention_probs_dropout_prob": 0.1}, False),  # as it is where nothing is said
    ],
)
def test_the_same_weights_used_otherwise_are_another_model(
    change: dict[str, Any], another: bool, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    before = load(folder)
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    after = load(folder)
    assert after.weights_sha256 == before.weights_sha256
    assert (after.config_sha256 != before.config_sha256) == another


def refused(folder: Path | str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        models.load(ModelSpec(str(folder)), NAMES)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    refused(folder, "cannot be loaded")


def test_a_folder_without_config(tmp_path: Path) -> None:
    refused(tmp_path, "cannot be loaded")


def test_weights_that_do_not_fit_the_config(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weights = {
        n: t for n, t in load_file(folder / "model.safetensors").items() if "layer.1." not in n
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "lacks 16 tensors of its encoder")


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9),
        transformers.T5Config(num_layers=1),
    ],
)
def test_a_model_that_is_no_encoder(config: transformers.PretrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    refused(
        tmp_path,
        f"is a '{config.model_type}' model, which is no encoder to put a classifier on. Use an encoder such as BERT",
    )


def test_no_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/nothing", "--peft-model DIR")


def test_an_embedded_name_that_is_not() -> None:
    from peft_methods.errors import DataError

    with pytest.raises(DataError, match=r"unknown embedded model 'minilmm'. Did you mean 'minilm'"):
        models.load(ModelSpec("embedded:minilmm"), NAMES)


def test_a_finished_classifier_gets_a_new_head(tmp_path: Path) -> None:
    for number, names in enumerate((("a", "b"), ("a", "b", "c"))):
        folder = make_model(tmp_path / str(number))
        finished = models.load(ModelSpec(str(folder)), names).model
        with torch.no_grad():
            finished.classifier.weight.fill_(7.0)
        finished.save_pretrained(folder)
        again = load(folder).model.classifier
        assert again.weight.shape == (2, 32)
        assert again.weight.abs().max() < 1


def test_random_weights_are_the_same_for_every_seed_and_4bit_where_asked(
    tiny_models: dict[str, Path],
) -> None:
    digests = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.append(load(tiny_models["bert"], weights="random").weights_sha256)
    assert digests[0] == digests[1]
    quantized = models.load(
        ModelSpec(str(tiny_models["bert"]), weights="random"), NAMES, quantization="nf4"
    ).model
    assert sum(models.is_4bit(p) for p in quantized.parameters()) == 12


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_random_weights_have_the_head_and_the_sizes_of_the_pretrained_model(
    kind: str, quantization: str | None, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """Its pooler's bias is zero, as in one that was never trained; here that says nothing."""
    shutil.copy(tiny_models[kind] / "config.json", tmp_path)
    pretrained, alone = (
        models.load(ModelSpec(str(folder), weights=weights), NAMES, quantization=quantization)
        for folder, weights in ((tiny_models[kind], "pretrained"), (tmp_path, "random"))
    )
    assert (alone.head, alone.shape) == (pretrained.head, pretrained.shape)
    sizes = [
        {name: models.size_of(p) for name, p in base.model.named_parameters()}
        for base in (pretrained, alone)
    ]
    assert sizes[0] == sizes[1]


def test_each_seed_has_a_head_of_its_own_over_the_same_random_encoder(
    tiny_models: dict[str, Path],
) -> None:
    bases = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        bases.append(load(tiny_models["bert"], weights="random"))
    assert not torch.equal(*(base.model.classifier.weight for base in bases))
    assert torch.equal(*(base.model.bert.pooler.dense.weight for base in bases))


def test_a_shape_is_built_without_hub_or_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = models.load(ModelSpec("distilbert-base-uncased", weights="random"), NAMES)
    assert sum(p.numel() for p in base.model.parameters()) == 66_955_010
    assert base.shape.encoder_parameters == 66_362_880
    assert len(base.tokenizer) == 30_522


@pytest.mark.parametrize(("kind", "most"), [("bert", 64), ("roberta", 63), ("distilbert", 64)])
def test_more_tokens_than_positions_are_refused(
    kind: str, most: int, tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models[kind])
    base.check_length(most)
    ids = torch.full((1, most), 7)
    base.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    with pytest.raises(
        ModelError, match=f"reads {most} tokens at most: --peft-set data.max_length={most}"
    ):
        base.check_length(most + 1)
