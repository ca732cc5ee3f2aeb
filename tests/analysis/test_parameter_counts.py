"""Every count that libraries build is possible, and most others are not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from torch import nn

from builders import PUBLISHED_SIZES
from peft_methods.analysis.checks.counts.architectures import known
from peft_methods.analysis.checks.counts.catalogue import configs
from peft_methods.analysis.checks.counts.heads import HeadKind
from peft_methods.analysis.checks.counts.others import dropped_counts
from peft_methods.analysis.checks.parameter_counts import (
    Settings,
    candidates,
    known_models,
    models_named,
    models_of_size,
    verdict,
)
from peft_methods.analysis.checks.rounded_count import RoundedCount
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.method_words import MethodWords, method_words
from peft_methods.methods.registry import METHODS
from peft_methods.utils.units import parse

KINDS = {
    "sequence": ("AutoModelForSequenceClassification", "SEQ_CLS"),
    "token": ("AutoModelForTokenClassification", "TOKEN_CLS"),
    "question": ("AutoModelForQuestionAnswering", "QUESTION_ANS"),
    "language": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
    "image": ("AutoModelForImageClassification", None),
    "none": ("AutoModel", "FEATURE_EXTRACTION"),
}
# Names of the linear layers in all layers, by model type.
BERT = ("query", "key", "value", "dense")
QKV = ("query", "key", "value")
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NAMES: Mapping[str, tuple[str, ...]] = {
    "mpnet": ("q", "k", "v", "o", "dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    "deberta": ("in_proj", "pos_proj", "pos_q_proj", "dense"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "dense"),
    "modernbert": ("Wqkv", "Wo", "Wi"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "falcon": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "t5": ("q", "k", "v", "o", "wo"),
    "vit": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
} | dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "albert"), BERT)


def count(text: str) -> RoundedCount:
    quantity = parse(text, "count")
    assert quantity is not None
    return RoundedCount(text, quantity.value, quantity.low, quantity.high)


def built(name: str, kind: str, labels: int = 2) -> nn.Module:
    """Build a known model as transformers does, without memory."""
    fields = dict(configs()[next(one for one in configs() if one.lower() == name.lower())])
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    config.num_labels = labels
    with torch.device("meta"):
        model: nn.Module = getattr(transformers, KINDS[kind][0]).from_config(config)
    return model


def trainable(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def in_peft(name: str, kind: str, config: type[Any], labels: int = 2, **fields: Any) -> int:
    """Count what PEFT trains on a known model."""
    is_low_rank = config in {LoraConfig, IA3Config}
    if is_low_rank and configs()[name]["model_type"] == "gpt2":
        fields["fan_in_fan_out"] = True  # its layers are transposed
    own = config(task_type=KINDS[kind][1], **fields)
    with torch.device("meta"):
        return trainable(get_peft_model(built(name, kind, labels), own))


def settings(kind: str, names: tuple[str, ...]) -> Iterator[tuple[str, type[Any], dict[str, Any]]]:
    """Yield a method with settings of PEFT, for layers with these names."""
    some, last = list(names[:2]), list(names[-1:])
    saved = {"modules_to_save": ["classifier"]} if kind == "image" else {}
    yield "lora", LoraConfig, {"r": 8, "target_modules": some, **saved}
    yield "lora", LoraConfig, {"r": 13, "target_modules": last, **saved}
    yield "lora", LoraConfig, {"r": 4, "target_modules": list(names), "bias": "all", **saved}
    yield "lora", LoraConfig, {"r": 4, "target_modules": some, "bias": "lora_only", **saved}
    yield "lora", LoraConfig, {"r": 16, "target_modules": some, "layers_to_transform": [0]} | saved
    yield "dora", LoraConfig, {"r": 2, "target_modules": list(names), "use_dora": True, **saved}
    yield "ia3", IA3Config, {"target_modules": list(names), "feedforward_modules": last, **saved}
    if kind in {"language", "seq2seq"}:
        yield "lora", LoraConfig, {"r": 32, "target_modules": "all-linear"}


FAST = (
    ("bert-tiny", "sequence", 2), ("bert-mini", "token", 9), ("bert-mini", "question", 2),
    ("distilroberta-base", "sequence", 77), ("distilroberta-base", "token", 11),
    ("distilbert-base-cased", "sequence", 3), ("mpnet-base", "sequence", 2),
    ("electra-small-discriminator", "sequence", 5), ("albert-base-v2", "sequence", 2),
    ("deberta-base", "token", 4), ("deberta-v3-xsmall", "none", 2),
    ("ModernBERT-base", "sequence", 2), ("distilgpt2", "language", 2),
    ("distilgpt2", "sequence", 4), ("flan-t5-small", "seq2seq", 2),
    ("vit-tiny-patch16-224", "image", 10), ("falcon-rw-1b", "language", 2),
)  # fmt: skip
SLOW = tuple(
    (name, kind, labels)
    for name in configs()
    for kind, labels in (
        (("image", 100),)
        if name.startswith("vit")
        else (("seq2seq", 2),)
        if "t5" in name
        else (("sequence", 2), ("token", 7))
        if configs()[name]["model_type"] in {*NAMES} - {"gpt2", "opt", "phi", "phi3", "falcon"}
        else (("language", 2),)
    )
    if "70b" not in name and "72b" not in name and "65b" not in name
)


def check_settings(name: str, kind: str, labels: int) -> None:
    model_type = configs()[next(n for n in configs() if n.lower() == name.lower())]["model_type"]
    head: HeadKind | None = {"image": "sequence", "seq2seq": "language"}.get(kind, kind)  # type: ignore[arg-type, assignment]
    wrong = []
    for method, config, fields in settings(kind, NAMES.get(model_type, LLAMA)):
        found = in_peft(name, kind, config, labels, **fields)
        for some in {head, None}:
            if (one := verdict(method, count(f"{found}"), models_named(name), head=some)) != "fits":
                wrong.append((method, fields, found, some, one))
    # PEFT leaves the dense layer of these heads untrained: that is what the rule finds.
    if kind == "sequence" and model_type in {"deberta", "deberta-v2", "modernbert"}:
        wrong = [one for one in wrong if one[-1] != "head missing"]
    assert wrong == []


@pytest.mark.parametrize(("name", "kind", "labels"), FAST)
def test_what_peft_builds_is_possible(name: str, kind: str, labels: int) -> None:
    check_settings(name, kind, labels)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "labels"), SLOW)
def test_what_peft_builds_on_every_model_is_possible(name: str, kind: str, labels: int) -> None:
    check_settings(name, kind, labels)


def check_full_and_bitfit(name: str, kind: str, labels: int) -> None:
    model = built(name, kind, labels)
    named = models_named(name)
    assert verdict("full", count(f"{trainable(model)}"), named) == "fits"
    biases = sum(p.numel() for n, p in model.named_parameters() if n.endswith("bias"))
    if known()[name.lower()].architecture.encoder_biases:
        assert verdict("bitfit", count(f"{biases}"), named) in {"fits", None}


@pytest.mark.parametrize(("name", "kind", "labels"), FAST)
def test_what_transformers_builds_is_possible(name: str, kind: str, labels: int) -> None:
    check_full_and_bitfit(name, kind, labels)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "labels"), SLOW)
def test_every_known_model_has_the_size_that_transformers_builds(
    name: str, kind: str, labels: int
) -> None:
    check_full_and_bitfit(name, kind, labels)


@pytest.mark.parametrize("name", ["distilgpt2", "SmolLM2-135M", "flan-t5-small"])
def test_what_peft_builds_of_prompts_is_possible(name: str) -> None:
    kind = "seq2seq" if "t5" in name else "language"
    for tokens, fields in ((20, {}), (10, {"prefix_projection": True, "encoder_hidden_size": 512})):
        found = in_peft(name, kind, PrefixTuningConfig, num_virtual_tokens=tokens, **fields)
        named = models_named(name)
        for known_tokens in (None, tokens):
            said = Settings(virtual_tokens=known_tokens)
            assert verdict("prefix_tuning", count(f"{found}"), named, settings=said) == "fits"
    found = in_peft(name, kind, PromptTuningConfig, num_virtual_tokens=20)
    said = Settings(virtual_tokens=20)
    assert verdict("prompt_tuning", count(f"{found}"), models_named(name), settings=said) == "fits"


@pytest.mark.parametrize(
    ("method", "name", "known_share", "share"),
    [
        ("lora", "roberta-base", 0.97, 0.85), ("lora", "Llama-3.2-1B", 0.97, 0.9),
        ("ia3", "bert-large-uncased", 0.97, 0.9), ("adapter", "t5-base", 0.97, 0.9),
        ("bitfit", "roberta-base", 0.97, 0.85),
    ],
)  # fmt: skip
def test_most_wrong_counts_are_impossible(
    method: str, name: str, known_share: float, share: float
) -> None:
    """Nearly all where the number of classes is known."""
    draw = random.Random(0)
    wrong = [count(f"{draw.randrange(700_000, 9_000_000)}") for _ in range(200)]
    named = models_named(name)
    for architectures, least in (
        (tuple(replace(one, labels=2) for one in named), known_share),
        (named, share),
    ):
        found = [verdict(method, one, architectures) for one in wrong]
        assert sum(one not in {"fits", None} for one in found) >= least * len(wrong)


def test_known_models_have_the_size_that_transformers_builds() -> None:
    for name, (_, classifier) in PUBLISHED_SIZES.items():
        one = known_models()[name.lower()]
        last = 2 * (one.hidden + 1)
        assert (
            one.encoder_parameters + one.head_parameters + last - classifier
            in {
                0,
                one.hidden * 0,
            }
            or one.model_type == "modernbert"
        )


def test_models_named_and_models_of_size_find_known_models() -> None:
    assert {shape.model_type for shape in models_named("FacebookAI/roberta-base")} == {"roberta"}
    assert {known_models()[f"bert-base-{case}"] for case in ("cased", "uncased")} < set(
        models_named("bert-base")
    )
    assert models_named("bert") == models_named("deberta-v3") == models_named("unheard-of") == ()
    assert models_named("meta-llama/Llama-3.2-3B-Instruct") == models_named("llama 3.2 3b") != ()
    assert [shape.labels for shape in models_of_size(count("124,647,170"))] == [2]
    assert [shape.labels for shape in candidates("roberta-base", count("124,704,845"))] == [77]
    assert {"bert", "mpnet"} < {shape.model_type for shape in models_of_size(count("110M"))}
    # Llama-3.1-8B with 20 classes, 7,505,006,592; with two it would be 7.50B.
    assert "llama" in {shape.model_type for shape in models_of_size(count("7.51B"))}


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("full", "124,647,170", "fits"), ("full", "124.6M", "fits"), ("full", "125M", "fits"),
        ("full", "110M", "off"), ("full", "119M", "fits"), ("full", "110,000,000", "off"),
        ("full", "1.0M", "off"), ("full", "125,237,762", "fits"), ("lora", "1,181,956", "off"),
        ("lora", "1,181,954", "fits"),
        ("lora", "294,912", "fits"), ("lora", "0.3M", "fits"), ("lora", "1.48M", "fits"),
        ("lora", "944,717", "fits"), ("qlora", "296,450", "head missing"),
        ("qlora", "592,130", "nothing"), ("ia3", "656,642", "fits"), ("ia3", "647,426", "fits"),
        ("ia3", "675K", "fits"), ("ia3", "1.30M", "off"), ("ia3", "592,130", "nothing"),
        ("adapter", "1,486,658", "fits"), ("adapter", "2,381,186", "fits"),
        ("adapter", "5", "off"), ("bitfit", "694,274", "fits"), ("head_only", "592,130", "fits"),
        ("head_only", "1,181,954", "off"), ("adapter_fusion", "3", None), ("unheard_of", "3", None),
    ],
)  # fmt: skip
def test_verdict_on_roberta_base_fits_possible_counts_only(
    method: str, text: str, expected: str | None
) -> None:
    found = verdict(method, count(text), models_named("roberta-base"), head="sequence")
    assert found == expected


@pytest.mark.parametrize(
    ("method", "name", "text", "head", "said", "expected"),
    [
        ("ia3", "bert-base-uncased", "76,034", None, Settings(), "fits"),
        ("bitfit", "bert-base-uncased", "47,618", None, Settings(), "fits"),
        ("lora", "roberta-large", "1,855,499", "token", Settings(), "fits"),
        ("lora", "roberta-base", "296,450", "question", Settings(rank=8), "fits"),
        ("lora", "roberta-base", "296,450", None, Settings(), "fits"),
        ("lora", "distilbert", "739,586", None, Settings(), "fits"),
        ("prefix_tuning", "roberta-base", "352000", None, Settings(virtual_tokens=20), "off"),
        ("prefix_tuning", "roberta-base", "368640", None, Settings(virtual_tokens=20), "fits"),
        ("lora", "Llama-3.2-3B", "9175040", None, Settings(), "fits"),
        ("ia3", "Llama-3.2-3B", "286720", None, Settings(), "fits"),
        ("lora", "Llama-3.2-3B", "3212749824", None, Settings(), "off"),
        ("lora", "roberta-base", "887,042", "sequence", Settings(rank=8), "fits"),
        ("lora", "roberta-base", "887,042", "sequence", Settings(rank=8, bias="none"), "fits"),
        ("lora", "roberta-base", "887,042", "sequence", Settings(8, ("key",)), "off"),
        # Those of query and value in all layers; with the third target they would be 8 of 12.
        ("lora", "roberta-base", "887,042", None, Settings(8, QKV), "off"),
        ("lora", "roberta-base", "887,042", None, Settings(8, QKV, some_layers=True), "fits"),
        ("prefix_tuning", "roberta-base", "769694", None, Settings(virtual_tokens=10), "off"),
        ("prefix_tuning", "opt-1.3b", "3454566", None, Settings(virtual_tokens=30), "off"),
        ("full", "flan-t5-small", "76961152", None, Settings(), "fits"),
    ],
)
def test_published_counts(
    method: str, name: str, text: str, *, head: HeadKind | None, said: Settings, expected: str
) -> None:
    assert verdict(method, count(text), models_named(name), head=head, settings=said) == expected


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("FT", "full"), ("Fine-tune", "full"), ("Fine-tuning", "full"), ("Full FT", "full"),
        ("DistilBERT Full FT", "full"), ("BERT-base LoRA", "lora"), ("LoRA (r=8)", "lora"),
        ("GPT2-LoRA", "lora"), ("LoRA (DoRA)", "dora"), ("Uni-LoRA", "unilora"),
        ("VB-LoRA", "vblora"), ("Rand-LoRA", "randlora"), ("Tiny-LoRA", "tinylora"),
        ("De-LoRA", "delora"), ("Gra-LoRA", "gralora"), ("Tied-LoRA", None), ("FFA-LoRA", None),
        ("LoRA-XS", None), ("MoRA", None), ("Partial FT", None), ("LoRA-FA", "lora_fa"),
        ("FT (last 2 layers)", "last_layers"), ("QLoRA (4-bit)", "qlora"),
    ],
)  # fmt: skip
def test_method_of_knows_kin_from_the_method_itself(name: str, method: str | None) -> None:
    assert method_of(name) == method


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LoRA (r=8)", MethodWords(rank=8)), ("LoRA rank 16", MethodWords(rank=16)),
        ("lora_r64_alpha=16", MethodWords(rank=64, alpha=16)), ("RoBERTa LoRA", MethodWords()),
        ("LoRA r=16, Q+K+V", MethodWords(16, ("query", "key", "value"))),
        ("LoRA q,v", MethodWords(None, ("query", "value"))), ("Adapter 8", MethodWords()),
        ("LoRA all linear", MethodWords(None, ("all",))), ("LoRA r8 / r16", MethodWords()),
        ("Prefix-Tuning (20 tokens)", MethodWords(virtual_tokens=20)),
        ("LoRA bias=all", MethodWords(bias="all")), ("LoRA, k = 5", MethodWords()),
    ],
)  # fmt: skip
def test_method_words_reads_settings(name: str, words: MethodWords) -> None:
    assert method_words(name) == words


def test_counts_of_adapter_drop_are_bounded() -> None:
    """A deep model has some 10^5 counts, not the millions of each width in each number of layers.

    They are those that the method lists itself, for models up to a width of 1,024.
    """
    (deep,) = models_named("llama-2-70b")
    assert len(dropped_counts(deep)) < 500_000
    # Half of 80 layers, with bottlenecks a sixteenth as wide as the layers, without biases or with
    assert {40 * 2 * 8192 * 512, 40 * (2 * 8192 * 512 + 512 + 8192)} <= set(dropped_counts(deep))
    (roberta,) = models_named("roberta-base")
    assert set(METHODS["adapter_drop"].possible_counts(roberta)) <= set(dropped_counts(roberta))
