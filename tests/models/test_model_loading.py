"""Loading models: their heads, models that cannot carry a classifier, and refused models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from builders import CONFIGS, DECODER, TASK, make_model, words_tokenizer
from peft_methods.models import loading, parameters, quantization
from peft_methods.models.module_names import in_modules
from peft_methods.recipes.schema import ModelSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import ModelError

LANGUAGE = TASKS["causal_lm"]
NAMES = ("no", "yes")


def load(folder: Path, **more: str) -> loading.LoadedModel:
    return loading.load(ModelSpec(str(folder), **more), TASK.head, NAMES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("bert", ("classifier",)),
        ("roberta", ("classifier",)),
        ("mpnet", ("classifier",)),
        ("distilbert", ("pre_classifier", "classifier")),
    ],
)
def test_load_takes_modules_without_pretrained_weights_as_head(
    kind: str, head: tuple[str, ...], tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models[kind])
    assert base.head == head
    assert base.model.config.id2label == {0: "no", 1: "yes"}
    assert all(p.dtype == torch.float32 for p in base.model.parameters())


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_architecture_counts_every_encoder_parameter(
    kind: str, tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models[kind])
    assert base.architecture.encoder_parameters + base.architecture.head_parameters == sum(
        p.numel() for p in base.model.parameters()
    )
    biases = sum(
        p.numel()
        for n, p in base.model.named_parameters()
        if n.endswith(".bias") and not in_modules(n, base.head)
    )
    assert base.architecture.encoder_biases == biases


def test_load_adds_a_pooler_without_weights_to_the_head(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weights = {
        n: t for n, t in load_file(folder / "model.safetensors").items() if "pooler" not in n
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).head == ("classifier", "bert.pooler.dense")


def test_load_reinitialises_an_untrained_pooler_with_the_head(tmp_path: Path) -> None:
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
    assert first.architecture.encoder_parameters + first.architecture.head_parameters == sum(
        p.numel() for p in first.model.parameters()
    )


def test_load_converts_half_precision_files_to_fp32(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    half = {
        n: t.half() if t.is_floating_point() else t
        for n, t in load_file(folder / "model.safetensors").items()
    }
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    assert {p.dtype for p in load(folder).model.parameters()} == {torch.float32}


def test_weights_digest_is_independent_of_the_folder(
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
    ("change", "changes_digest"),
    [
        ({"hidden_dropout_prob": 0.3}, True),
        ({"hidden_act": "relu"}, True),
        ({"layer_norm_eps": 1e-5}, True),
        ({"_name_or_path": "/elsewhere", "transformers_version": "4.0.0"}, False),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, False),
        ({"architectures": ["BertForMaskedLM"], "dtype": "float16"}, False),
        ({"attention_probs_dropout_prob": 0.1}, False),  # the default value
    ],
)
def test_config_digest_changes_only_with_fields_that_affect_the_model(
    change: dict[str, Any], changes_digest: bool, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    before = load(folder)
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    after = load(folder)
    assert after.weights_sha256 == before.weights_sha256
    assert (after.config_sha256 != before.config_sha256) == changes_digest


def refused(folder: Path | str, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        loading.load(ModelSpec(str(folder)), TASK.head, NAMES)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_refuses_a_folder_without_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    refused(folder, "cannot be loaded")


def test_load_refuses_a_folder_without_config(tmp_path: Path) -> None:
    refused(tmp_path, "cannot be loaded")


def test_load_refuses_weights_that_do_not_match_the_config(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weights = {
        n: t for n, t in load_file(folder / "model.safetensors").items() if "layer.1." not in n
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "lacks 16 tensors of its encoder")


@pytest.mark.parametrize(
    "config",
    [
        transformers.MambaConfig(num_hidden_layers=1, hidden_size=8, vocab_size=9),
        transformers.PegasusConfig(encoder_layers=1, decoder_layers=1),
    ],
)
def test_load_refuses_a_model_without_a_classifier(
    config: transformers.PretrainedConfig, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    refused(
        tmp_path,
        f"is a '{config.model_type}' model, which is not a model that can carry a classifier",
    )


def test_load_without_hub_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/nothing", "set model.source to a local folder")


def test_load_refuses_an_unknown_bundled_model() -> None:
    from peft_methods.utils.errors import DataError

    with pytest.raises(DataError, match=r"unknown bundled model 'minilmm'. Did you mean 'minilm'"):
        loading.load(ModelSpec("bundled:minilmm"), TASK.head, NAMES)


def test_load_gives_a_finished_classifier_a_new_head(tmp_path: Path) -> None:
    for number, names in enumerate((("a", "b"), ("a", "b", "c"))):
        folder = make_model(tmp_path / str(number))
        finished = loading.load(ModelSpec(str(folder)), TASK.head, names).model
        with torch.no_grad():
            finished.classifier.weight.fill_(7.0)
        finished.save_pretrained(folder)
        again = load(folder).model.classifier
        assert again.weight.shape == (2, 32)
        assert again.weight.abs().max() < 1


def test_load_draws_the_same_random_encoder_for_every_seed_and_quantises_it(
    tiny_models: dict[str, Path],
) -> None:
    digests = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.append(load(tiny_models["bert"], weights="random").weights_sha256)
    assert digests[0] == digests[1]
    quantized = loading.load(
        ModelSpec(str(tiny_models["bert"]), weights="random"), TASK.head, NAMES, quantization="nf4"
    ).model
    assert sum(quantization.is_4bit(p) for p in quantized.parameters()) == 12


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_load_random_weights_has_head_and_sizes_of_the_pretrained_model(
    kind: str, quantization: str | None, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """The random model's pooler belongs to the encoder although its bias is all zero."""
    shutil.copy(tiny_models[kind] / "config.json", tmp_path)
    pretrained, alone = (
        loading.load(
            ModelSpec(str(folder), weights=weights), TASK.head, NAMES, quantization=quantization
        )
        for folder, weights in ((tiny_models[kind], "pretrained"), (tmp_path, "random"))
    )
    assert (alone.head, alone.architecture) == (pretrained.head, pretrained.architecture)
    sizes = [
        {name: parameters.size_of(p) for name, p in base.model.named_parameters()}
        for base in (pretrained, alone)
    ]
    assert sizes[0] == sizes[1]


def test_load_random_weights_draws_a_different_head_per_seed(
    tiny_models: dict[str, Path],
) -> None:
    bases = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        bases.append(load(tiny_models["bert"], weights="random"))
    assert not torch.equal(*(base.model.classifier.weight for base in bases))
    assert torch.equal(*(base.model.bert.pooler.dense.weight for base in bases))


def test_load_builds_a_preset_without_hub_or_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = loading.load(ModelSpec("distilbert-base-uncased", weights="random"), TASK.head, NAMES)
    assert sum(p.numel() for p in base.model.parameters()) == 66_955_010
    assert base.architecture.encoder_parameters == 66_362_880
    assert len(base.tokenizer) == 30_522


@pytest.mark.parametrize(("kind", "limit"), [("bert", 64), ("roberta", 63), ("distilbert", 64)])
def test_check_length_refuses_more_tokens_than_positions(
    kind: str, limit: int, tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models[kind])
    base.check_length(limit)
    ids = torch.full((1, limit), 7)
    base.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    with pytest.raises(
        ModelError, match=f"reads at most {limit} tokens. Set data.max_length = {limit} or less"
    ):
        base.check_length(limit + 1)


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_load_keeps_the_cap_of_attention_scores(tmp_path: Path, weights: str) -> None:
    """transformers' default attention would drop it: Gemma 2's outputs would be other ones."""
    config = transformers.Gemma2Config(
        **DECODER, head_dim=8, attn_logit_softcapping=0.01, initializer_range=0.5
    )
    kind = transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    made = kind.from_config(config, attn_implementation="eager")
    made.save_pretrained(tmp_path)
    words_tokenizer().save_pretrained(tmp_path)
    loaded = loading.load(ModelSpec(str(tmp_path), weights=weights), LANGUAGE.head, ()).model.eval()
    other = kind.from_config(config, attn_implementation="sdpa")
    other.load_state_dict(loaded.state_dict())
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        found, dropped = loaded(ids).logits, other.eval()(ids).logits
        other.set_attn_implementation("eager")
        expected = other(ids).logits
    assert torch.equal(found, expected)
    assert not torch.allclose(found, dropped, atol=1e-2)
