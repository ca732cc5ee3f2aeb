"""The contract every method keeps, on every family of encoder it supports."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import CORE, TASK
from peft_methods.methods.adapters.modules import Bottleneck, Fusion
from peft_methods.methods.base import FAMILIES, TRAINED, ApplyContext, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading, parameters, quantization
from peft_methods.models.config import ModelKind
from peft_methods.models.module_maps import MODULE_MAPS
from peft_methods.models.module_names import in_modules
from peft_methods.models.parameters import count_parameters, load_trainable, save_trainable
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import ModelSpec
from peft_methods.training.weight_checks import fingerprint
from peft_methods.utils.errors import ModelError, OptionError

ENCODERS = ("bert", "roberta", "mpnet", "distilbert")


def create(name: str, **settings: Any) -> Method:
    example = METHODS[name].example_settings()
    return METHODS.create(name, {"learning_rate": 0.01, **example, **settings}, "test")


def load(folder: Path, method: Method) -> loading.LoadedModel:
    torch.manual_seed(1)
    return loading.load(
        ModelSpec(str(folder)),
        TASK.head,
        ("no", "yes", "maybe"),
        quantization=method.info.quantization,
    )


def apply(
    base: loading.LoadedModel, method: Method, folders: tuple[Path, ...] = ()
) -> torch.nn.Module:
    context = ApplyContext(
        base.architecture,
        base.head,
        TASK.peft_type,
        folders,
        unquantized=lambda: load(Path(base.model.name_or_path), create("full")).model,
        train_batches=lambda most: [batch()] * most,
    )
    return method.apply(base.model, context)


def prerequisite_folders(method: Method, folder: Path, root: Path) -> tuple[Path, ...]:
    """Save a trained model for each prerequisite run, with weights that change the outputs."""
    folders = []
    for number, (_, earlier) in enumerate(method.prerequisites(load_recipe("embedded"))):
        base = load(folder, earlier)
        model = apply(base, earlier)
        torch.manual_seed(number)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and not in_modules(name, base.head):
                    parameter.normal_(std=0.3)
        folders.append(root / str(number))
        folders[-1].mkdir()
        save_trainable(model, folders[-1] / TRAINED)
    return tuple(folders)


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 30, (4, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(**batch()).logits
    return result


CASES = [
    pytest.param(
        (name, family),
        id=f"{name}-{family}",
        marks=() if name in CORE or family == "bert" else pytest.mark.slow,
    )
    for name in METHODS
    for family in ENCODERS
]


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest, tiny_models: dict[str, Path]
) -> tuple[Method, loading.LoadedModel]:
    name, family = request.param
    method = create(name)
    base = load(tiny_models[family], method)
    if (reason := method.unsupported(base.architecture, "cpu")) is not None:
        pytest.skip(reason)
    return method, base


def test_starts_as_the_base_model_within_tolerance(
    case: tuple[Method, loading.LoadedModel], tiny_models: dict[str, Path]
) -> None:
    method, base = case
    if method.info.start_tolerance is None:
        pytest.skip("this method promises nothing at its start")
    plain = load(tiny_models[base.architecture.model_type], create("full"))
    before = logits(plain.model)
    plain_head = {n: p for n, p in plain.model.named_parameters() if in_modules(n, plain.head)}
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if name in plain_head:
                parameter.copy_(plain_head[name])
    assert torch.allclose(
        logits(apply(base, method)), before, atol=method.info.start_tolerance + 1e-6
    )


def test_only_its_parameters_train_and_they_are_as_many_as_the_closed_form(
    case: tuple[Method, loading.LoadedModel],
) -> None:
    method, base = case
    model = apply(base, method)
    counted = count_parameters(model, base.head)
    assert counted.method == method.expected_trainable(base.architecture)
    assert counted.head == base.architecture.head_parameters


def test_a_step_moves_all_of_it_and_nothing_else(
    case: tuple[Method, loading.LoadedModel], tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    method, base = case
    model = apply(
        base,
        method,
        prerequisite_folders(method, tiny_models[base.architecture.model_type], tmp_path),
    )
    frozen = {n: fingerprint(p) for n, p in model.named_parameters() if not p.requires_grad}
    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(
            model(**batch()).logits, torch.tensor([0, 1, 2, 1])
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    logits(model)
    key = MODULE_MAPS[base.architecture.model_type].key
    unmoved = [n for n, p in model.named_parameters() if n in start and torch.equal(start[n], p)]
    unmoved = [n for n in unmoved if not n.endswith(f"{key}.bias")]
    assert [n for n in unmoved if not method.has_zero_gradient(n)] == []
    assert {n: fingerprint(p) for n, p in model.named_parameters() if n in frozen} == frozen


def test_what_is_saved_and_loaded_gives_the_same_logits(
    case: tuple[Method, loading.LoadedModel], tmp_path: Path
) -> None:
    method, base = case
    fresh = apply(base, method)
    model = copy.deepcopy(fresh)
    fresh = copy.deepcopy(fresh)  # weights read from a file are aligned otherwise than copies
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    size = save_trainable(model, tmp_path / "trained.safetensors")
    assert size >= 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert not torch.allclose(logits(fresh), logits(model))
    load_trainable(fresh, tmp_path / "trained.safetensors")
    assert torch.equal(logits(fresh), logits(model))


def test_a_merged_model_answers_as_the_trained_one_without_wrappers(
    case: tuple[Method, loading.LoadedModel],
) -> None:
    method, base = case
    model = apply(base, method)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    before = logits(model)
    merged = method.merge(model)
    assert (merged is not None) == method.info.mergeable
    if merged is not None:
        assert torch.allclose(logits(merged), before, atol=1e-5)
        assert type(merged) is type(base.model)
        assert not any("peft" in type(module).__module__ for module in merged.modules())


def test_an_example_has_the_same_logits_alone_as_in_a_batch(
    case: tuple[Method, loading.LoadedModel],
) -> None:
    method, base = case
    model = apply(base, method).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        alone = model(**{name: rows[:1, :5] for name, rows in batch().items()}).logits
    assert torch.allclose(logits(model)[:1], alone, atol=1e-5)


@pytest.mark.parametrize("name", list(METHODS))
def test_model_without_module_map_is_supported_or_refused_with_the_reason(
    name: str, tiny_models: dict[str, Path]
) -> None:
    method = create(name)
    known = load(tiny_models["bert"], create("full")).architecture
    strange = dataclasses.replace(known, module_map=None, counted=None, model_type="xlnet")
    reason = method.unsupported(strange, "cpu")
    assert (reason is None) == (method.info.needs == "any model")
    assert reason is None or "xlnet" in reason
    named = dataclasses.replace(known, module_map=None)
    needs_paths = method.info.needs in {"module map", "layer ends"}
    assert (method.unsupported(named, "cpu") is None) == (not needs_paths)
    if not needs_paths:  # counted sizes give what the closed form gives
        assert method.expected_trainable(named) == method.expected_trainable(known)


@pytest.mark.parametrize("name", list(METHODS))
def test_info_of_every_method_is_complete(name: str) -> None:
    info = METHODS[name].info
    assert info.name == name
    assert re.fullmatch("[a-z0-9_]+", name)
    assert info.title
    assert info.trained
    assert info.about.endswith(".")
    assert re.search("(arXiv|OpenReview):", info.paper)
    assert info.family in FAMILIES
    assert info.aliases or info.generic_aliases
    for pattern in (info.aliases, info.generic_aliases, info.not_aliases):
        re.compile(pattern)
    assert METHODS.recognize(info.title) == name
    assert METHODS.recognize(name) == name
    assert info.unquantized_counterpart is None or info.unquantized_counterpart in METHODS


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("kind", ["small_encoder", "encoder"])
def test_every_method_has_a_default_rate_with_its_source(name: str, kind: ModelKind) -> None:
    rate = METHODS[name].info.rate_for(kind)
    assert rate is not None
    assert 0 < rate.value < 1
    assert rate.source


def test_possible_counts_contain_the_expected_count(
    case: tuple[Method, loading.LoadedModel],
) -> None:
    method, base = case
    possible = set(method.possible_counts(base.architecture))
    assert not possible or method.expected_trainable(base.architecture) in possible


def test_methods_are_listed_by_family_then_order() -> None:
    assert [name for name in METHODS if name in CORE] == list(CORE)
    assert [METHODS[name].info.rank for name in METHODS] == sorted(
        METHODS[name].info.rank for name in METHODS
    )
    assert METHODS.reference == "full"


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("QLoRA", "qlora"), ("LoRA (4-bit)", "qlora"), ("nf4 LoRA", "qlora"), ("LoRA r=8", "lora"),
        ("LoRA adapters", "lora"), ("LoRA, frozen base", "lora"), ("Full-rank LoRA", "lora"),
        ("(IA)³", "ia3"), ("AdapterFusion (Pfeiffer)", "adapter_fusion"), ("FFT", "full"),
        ("Houlsby adapter", "houlsby_adapter"), ("Adapter, frozen base", "adapter"),
        ("Linear probe", "linear_probe"), ("Head only", "head_only"), ("Fine-tuning", "full"),
        ("Full fine-tuning (no frozen layers)", "full"), ("DyLoRA", None),
        ("DyLoRA adapters", None), ("LongLoRA 4-bit", None), ("LoRA-XS", None),
        ("AdaLoRA adapters", "adalora"), ("LoRA-FA", "lora_fa"), ("LoRA+", "lora_plus"),
        ("DoRA", "dora"), ("QDoRA", "qdora"), ("DoRA (4-bit)", "qdora"),
        ("LoRA FP4", "qlora_fp4"), ("LoRA (8-bit)", "lora_int8"), ("RandLoRA", "randlora"),
        ("VeRA (r=256)", "vera"), ("P-VeRA", "pvera"), ("GraLoRA 4-bit", "gralora"),
        ("using LoRA", "lora"), ("lora / max lora", "lora"), ("LoRA on all layers", "lora_all"),
        ("AdapterDrop", "adapter_drop"), ("LLaMA-Adapter", None), ("BitFit + LoRA", None),
        ("LoRA + BitFit", None), ("prompt tuning", "prompt_tuning"), ("", None),
    ],
)  # fmt: skip
def test_a_name_in_a_table_is_recognized_as_one_method_or_none(
    text: str, method: str | None
) -> None:
    assert METHODS.recognize(text) == method


def test_param_groups_hold_the_head_where_it_has_its_own_rate(tiny_models: dict[str, Path]) -> None:
    method = create("lora", head_learning_rate=0.5)
    base = load(tiny_models["roberta"], method)
    model = apply(base, method)
    (group,) = method.param_groups(model, base.head)
    assert group.settings() == {"lr": 0.5}
    named = {n for n, p in model.named_parameters() if any(p is one for one in group.parameters)}
    assert named == {n for n, _ in model.named_parameters() if in_modules(n, base.head)}
    assert not create("lora").param_groups(model, base.head)


def test_ia3_is_the_papers_and_not_pefts_default(tiny_models: dict[str, Path]) -> None:
    model = apply(load(tiny_models["bert"], create("ia3")), create("ia3"))
    touched = {
        n.partition(".layer.0.")[2].split(".ia3_l")[0]
        for n, _ in model.named_parameters()
        if ".layer.0." in n and "ia3_l" in n
    }
    assert touched == {"attention.self.key", "attention.self.value", "output.dense"}


def test_roberta_base_ia3_has_the_papers_count() -> None:
    from transformers import RobertaConfig

    from peft_methods.models.architecture import architecture_of

    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2
    )
    head = 768 * 768 + 768 + 768 * 2 + 2
    shape = architecture_of(config, head_parameters=head, pooler=False)
    assert create("ia3").expected_trainable(shape) + head == 647_426
    assert create("lora", rank=16).expected_trainable(shape) + head == 1_181_954
    assert shape.encoder_parameters + head == 124_647_170


def test_4bit_weights_are_4bit_in_the_encoder_and_nowhere_else(
    tiny_models: dict[str, Path],
) -> None:
    base = load(tiny_models["bert"], create("qlora"))
    quantized = {name for name, p in base.model.named_parameters() if quantization.is_4bit(p)}
    assert len(quantized) == 2 * 6
    assert not any("classifier" in name or "pooler" in name for name in quantized)
    plain = load(tiny_models["bert"], create("full"))
    assert sum(parameters.size_of(p) for p in base.model.parameters()) == sum(
        p.numel() for p in plain.model.parameters()
    )


@pytest.mark.parametrize(
    ("name", "settings"), [("lora", {"targets": ["query", "valu"]}), ("ia3", {"targets": ["ffn"]})]
)
def test_an_unknown_target_names_the_nearest(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"unknown target .*Did you mean"):
        create(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("lora", {"ranks": 4}, "unknown key 'ranks'. Did you mean 'rank'"),
        ("lora", {"learning_rate": 0}, "learning_rate = 0 should be greater than 0"),
        ("adapter", {"placement": "left"}, "'houlsby' or 'pfeiffer'"),
        ("adapter_fusion", {"sources": ["one"]}, "sources"),
        ("loar", {}, "unknown method 'loar'. Did you mean 'lora'"),
    ],
)
def test_a_wrong_method_setting_is_named(
    name: str, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(OptionError) as caught:
        create(name, **settings)
    assert expected in str(caught.value)


def test_fusion_is_the_attention_it_stands_for() -> None:
    """The rearranged products equal the paper's: softmax(q·K u_i) over V u_i."""
    torch.manual_seed(0)
    blocks = [Bottleneck(12, 4, "relu") for _ in range(3)]
    for block in blocks:
        torch.nn.init.normal_(block.up.weight)
    fusion = Fusion(12, blocks, dropout=0.0)
    for linear in (fusion.query, fusion.key, fusion.value):
        torch.nn.init.normal_(linear.weight)
    torch.nn.init.normal_(fusion.key.bias)
    x = torch.randn(2, 5, 12)
    outputs = torch.stack([block(x) for block in blocks], dim=2)
    scores = torch.einsum("bth,btih->bti", fusion.query(x), fusion.key(outputs))
    expected = torch.einsum("bti,btih->bth", scores.softmax(-1), fusion.value(outputs))
    assert torch.allclose(fusion(x), expected, atol=1e-4)


def test_fusion_keeps_its_value_map_near_the_identity(tiny_models: dict[str, Path]) -> None:
    method = create("adapter_fusion")
    model = apply(load(tiny_models["bert"], method), method)
    penalty = method.penalty(model)
    assert penalty is not None
    assert penalty.item() < 1e-6
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Fusion):
                module.value.weight += 0.1
    penalty = method.penalty(model)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.01 * 2 * 32 * 32 * 0.01, rel=1e-3)


def test_a_fusion_carries_its_sources_adapters_frozen(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    method = create("adapter_fusion")
    folders = prerequisite_folders(method, tiny_models["bert"], tmp_path)
    model = apply(load(tiny_models["bert"], method), method, folders)
    for number, folder in enumerate(folders):
        for name, weights in load_file(folder / TRAINED).items():
            if ".adapter." in name:
                copied = model.get_parameter(
                    name.replace(".adapter.", f".adapter.bottlenecks.{number}.")
                )
                assert torch.equal(copied, weights)
                assert not copied.requires_grad


def test_a_source_that_does_not_fit_is_named(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    wider = create("adapter_fusion", reduction_factor=2)
    folders = prerequisite_folders(wider, tiny_models["bert"], tmp_path)
    method = create("adapter_fusion")
    with pytest.raises(ModelError, match="source adapter 0 does not fit this model"):
        apply(load(tiny_models["bert"], method), method, folders)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_biases_of_4bit_maps_stay_what_they_are(
    precision: str, tiny_models: dict[str, Path]
) -> None:
    method = create("qlora")
    base = loading.load(
        ModelSpec(str(tiny_models["bert"])),
        TASK.head,
        ("no", "yes"),
        quantization="nf4",
        precision=precision,
    )
    model = apply(base, method)
    before = {n: fingerprint(p) for n, p in model.named_parameters() if not p.requires_grad}
    logits(model)
    assert {n: fingerprint(p) for n, p in model.named_parameters() if not p.requires_grad} == before
