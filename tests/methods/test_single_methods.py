"""What single methods promise: their places, random numbers, and the settings they refuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builders import CORE, DECODERS, LACKING, TASK, run_here, small_runs
from peft_methods.methods.adapters.modules import Bottleneck, InputKept, ParallelSum
from peft_methods.methods.adapters.phm import PHMLinear, shared_factors
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.architecture import architecture_of
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import OptionError


def method_of(name: str, **settings: Any) -> Method:
    example = METHODS[name].example_settings()
    return METHODS.create(name, {"learning_rate": 0.01, **example, **settings}, "test")


def load(folder: Path) -> loading.LoadedModel:
    return loading.load(ModelSpec(str(folder)), TASK.head, ("no", "yes"))


def applied(folder: Path, method: Method) -> tuple[loading.LoadedModel, nn.Module]:
    base = load(folder)
    context = ApplyContext(base.architecture, base.head, TASK.peft_type)
    return base, method.apply(base.model, context)


def trained_names(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


LARGE = "is too large for its targets in 'bert', the smallest of which has 32 inputs and 32 outputs"
FOR_ALL = (
    "is too large for its targets in 'bert', the largest of which has 32 inputs and 32 outputs"
)
NARROW = "leaves no bottleneck in 'bert', whose layers are 32 wide: set it to 32 or less"
PARTS = "does not divide the sizes of its targets in 'bert' (32): set it to 32 or a divisor of 32"


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        *(
            (name, {setting: limit + 1}, f"{setting} = {limit + 1} {LARGE}: set it to {limit} or ")
            for name, setting, limit in (
                ("adalora", "init_r", 32),
                ("adamss", "rank", 32),
                ("adamss", "num_subspaces", 32),
                ("deft", "rank", 32),
                ("eva", "rank", 32),
                ("fourierft", "n_frequency", 1024),
                ("loftq", "rank", 32),
                ("miss", "rank", 32),
                ("olora", "rank", 32),
                ("pissa", "rank", 32),
                ("psoft", "rank", 32),
                ("randlora", "rank", 32),
                ("shira", "rank", 16),
                ("tinylora", "rank", 32),
                ("waveft", "n_frequency", 1024),
            )
        ),
        *(
            (name, {"rank": limit + 2}, f"rank = {limit + 2} {FOR_ALL}: set it to {limit} or less")
            for name, limit in (
                *(
                    (name, 32)
                    for name in ("lora", "qlora", "dora", "rslora", "lora_fa", "lora_plus")
                ),
                *((name, 32) for name in ("qdora", "lora_int8", "qlora_fp4")),
                *((name, 32) for name in ("delora", "glora", "gralora", "hira", "loha", "unilora")),
                ("vblora", 32),
                ("vera", 1024),  # as many products of its two vectors as weights
                ("pvera", 1024),
            )
        ),
        ("gralora", {"hybrid_rank": 33}, f"hybrid_rank = 33 {FOR_ALL}: set it to 32 or less"),
        ("compacter", {"phm_rank": 3}, "phm_rank = 3 is too large for maps between the widths 32"),
        *(
            (name, {"reduction_factor": 33}, f"reduction_factor = 33 {NARROW}")
            for name in (
                *("adapter", "adapter_fusion", "adapter_drop", "compacter", "houlsby_adapter"),
                "parallel_adapter",
            )
        ),
        ("hra", {"rank": 34}, f"rank = 34 {LARGE}: set it to 32 or less"),
        ("boft", {"boft_block_size": 5}, f"boft_block_size = 5 {PARTS}"),
        ("c3a", {"block_size": 48}, f"block_size = 48 {PARTS}"),
        ("gralora", {"gralora_k": 64, "rank": 64}, f"gralora_k = 64 {PARTS}"),
        ("oft", {"block_size": 5}, f"block_size = 5 {PARTS}"),
        ("road", {"group_size": 64}, f"group_size = 64 {PARTS}"),
        ("vblora", {"vector_length": 24}, f"vector_length = 24 {PARTS}"),
        ("compacter", {"phm_dim": 5}, "phm_dim = 5 does not divide the widths 32 and 8"),
        ("adalora", {"target_r": 13}, "target_r = 13 is above init_r = 6"),
        ("adalora", {"tinit": 0.5, "tfinal": 0.5}, "leaves no steps in which ranks fall"),
        ("gralora", {"gralora_k": 3}, "gralora_k = 3 does not divide rank = 8"),
        ("last_layers", {"share": 0.9}, "share = 0.9 is all layers"),
        ("osf", {"effective_rank": 0.01}, "effective_rank = 0.01 keeps no direction"),
        ("supertuning", {"sparsity": 1.0}, "sparsity = 1.0 leaves nothing to train"),
        ("unilora", {"theta_d_length": 9999}, "have 1024 weights: set it to 1024 or less"),
        ("vblora", {"topk": 300}, "topk = 300, but the bank has 32 vectors"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(
    name: str, settings: dict[str, Any], expected: str, tiny_models: dict[str, Path]
) -> None:
    base = load(tiny_models["bert"])
    reason = method_of(name, **settings).unsupported(base.architecture, "cpu")
    assert reason is not None
    assert reason.startswith(METHODS[name].title)
    assert expected in reason


# Settings whose size no matrix limits, with the reason.
UNLIMITED = {
    "lokr": "a factor whose rank would exceed its sides is trained whole, as in LyCORIS",
    "peanut": "the rank is the width of a network that is not linear",
}
SIZES = ("rank", "init_r", "hybrid_rank", "phm_rank", "reduction_factor", "num_subspaces")


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        (name, one.name)
        for name in METHODS
        for one in dataclasses.fields(METHODS[name])
        if one.name in SIZES and name not in UNLIMITED and name not in LACKING
    ],
)
def test_size_beyond_every_matrix_is_refused_before_training(
    name: str, setting: str, tiny_models: dict[str, Path]
) -> None:
    """Also for a method that is added later: see UNLIMITED for those without a limit."""
    base = load(tiny_models["bert"])
    reason = method_of(name, **{setting: 2**20}).unsupported(base.architecture, "cpu")
    assert reason is not None
    assert f"methods.{name}.{setting} = {2**20} " in reason
    assert "set it to" in reason


@pytest.mark.parametrize("name", ["lora", "dora", "hira", "loha", "unilora"])
def test_rank_may_exceed_that_of_smaller_targets(name: str) -> None:
    """As rank 256 does for the values of shared heads: the updates of larger targets use it."""
    architecture = architecture_of(DECODERS["llama"](), head_parameters=0, pooler=False)
    assert set(architecture.linear_sizes(("query", "value"))) == {(32, 32), (32, 16)}
    method = method_of(name, rank=32, targets=("query", "value"))
    assert method.unsupported(architecture, "cpu") is None


WIDE = "has 32 inputs and 64 outputs: set it to"


@pytest.mark.parametrize(
    ("name", "fits", "refused", "expected"),
    [
        ("pissa", {"rank": 32}, {"rank": 33}, f"{WIDE} 32 or less"),
        ("deft", {"rank": 64}, {"rank": 65}, f"{WIDE} 64 or less"),  # its limit: the outputs
        ("hra", {"rank": 32}, {"rank": 34}, f"{WIDE} 32 or less"),  # and here the inputs
        ("shira", {"rank": 21}, {"rank": 22}, f"{WIDE} 21 or less"),
        ("c3a", {"block_size": 32}, {"block_size": 64}, "(32): set it to 32 or a divisor of 32"),
        ("oft", {"block_size": 32}, {"block_size": 64}, "(32): set it to 32 or a divisor of 32"),
        ("road", {"group_size": 64}, {"group_size": 48}, "(64): set it to 64 or a divisor of 64"),
    ],
)
def test_limits_of_layers_that_are_not_square(
    name: str,
    fits: dict[str, int],
    refused: dict[str, int],
    expected: str,
    tiny_models: dict[str, Path],
) -> None:
    architecture = load(tiny_models["bert"]).architecture
    assert set(architecture.linear_sizes(("ffn_input",))) == {(32, 64)}
    reasons = [
        method_of(name, targets=("ffn_input",), **settings).unsupported(architecture, "cpu")
        for settings in (fits, refused)
    ]
    assert reasons[0] is None
    assert reasons[1] is not None
    assert expected in reasons[1]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("hra", {"rank": 3}), ("road", {"group_size": 7}), ("osf", {"effective_rank": 1.0})],
)
def test_settings_that_fit_no_model_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        method_of(name, **settings)


def drawn(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what a method draws and keeps beside the weights: matrices, or places in them."""
    found = {n: b for n, b in model.named_buffers() if not n.endswith(("position_ids", "type_ids"))}
    for name, module in model.named_modules():
        for one in ("shira_indices", "indices", "waveft_indices"):
            if hasattr(module, one):
                found[f"{name}.{one}"] = getattr(module, one)["default"]
    return {name: values.clone() for name, values in found.items()}


@pytest.mark.parametrize(
    "name",
    ["fourierft", "frod", "pvera", "randlora", "shira", "tinylora", "unilora", "vera", "waveft"],
)
def test_what_is_drawn_follows_the_seed_of_the_run(name: str, tiny_models: dict[str, Path]) -> None:
    """PEFT's own is the same in every run."""
    runs = []
    for seed in (3, 3, 4):
        base = load(tiny_models["bert"])
        torch.manual_seed(seed)
        context = ApplyContext(base.architecture, base.head, TASK.peft_type)
        runs.append(drawn(method_of(name).apply(base.model, context)))
    one, again, other = runs
    assert one
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)


def test_butterflies_compile_nothing(tiny_models: dict[str, Path]) -> None:
    """PEFT would compile a CUDA extension, or warn that it cannot; warnings are errors here."""
    from peft.tuners.boft import layer

    applied(tiny_models["bert"], method_of("boft"))
    assert layer._FBD_CUDA is None


def test_ia3_peft_is_pefts_default(tiny_models: dict[str, Path]) -> None:
    from peft import IA3Config, get_peft_model

    _, ours = applied(tiny_models["roberta"], method_of("ia3_peft"))
    theirs = get_peft_model(load(tiny_models["roberta"]).model, IA3Config(task_type="SEQ_CLS"))
    sizes = [
        {n: p.shape for n, p in model.named_parameters() if "ia3_l" in n}
        for model in (ours, theirs)
    ]
    assert sizes[0] == sizes[1]


def test_method_that_the_installed_peft_lacks_is_refused(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["oft"], "added_in", (99, 1))
    reason = method_of("oft").unsupported(load(tiny_models["bert"]).architecture, "cpu")
    assert reason is not None
    assert "OFT needs peft 99.1" in reason


def test_last_layers_are_those_next_to_the_head(tiny_models: dict[str, Path]) -> None:
    base, model = applied(tiny_models["mpnet"], method_of("last_layers"))
    own = [n for n in trained_names(model) if not n.startswith(base.head)]
    assert own
    assert all(".layer.1." in name for name in own)


def test_adapter_drop_leaves_out_the_first_layers(tiny_models: dict[str, Path]) -> None:
    _, model = applied(tiny_models["bert"], method_of("adapter_drop"))
    layers = {n.split(".layer.")[1][0] for n in trained_names(model) if ".adapter." in n}
    assert layers == {"1"}


def test_map_of_compacter_is_a_sum_of_kronecker_products() -> None:
    torch.manual_seed(0)
    factors = shared_factors(4)
    linear = PHMLinear(12, 8, rank=2, factors=factors)
    expected = sum(
        torch.kron(factors[i], linear.left[i] @ linear.right[i]) for i in range(len(factors))
    )
    assert isinstance(expected, torch.Tensor)
    assert torch.allclose(linear.weight(), expected)
    x = torch.randn(3, 5, 12)
    assert torch.allclose(linear(x), x @ expected + linear.bias, atol=1e-6)


def test_compacter_shares_its_first_factors(tiny_models: dict[str, Path]) -> None:
    _, model = applied(tiny_models["bert"], method_of("compacter"))
    assert len([name for name in trained_names(model) if name.endswith("factors")]) == 1


@pytest.mark.parametrize("gated", [False, True])
def test_parallel_adapter_reads_what_the_block_reads(*, gated: bool) -> None:
    torch.manual_seed(0)
    up, gate, down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)
    adapter = Bottleneck(6, 3, "relu")
    nn.init.normal_(adapter.up.weight)
    begin = InputKept(up)
    end = ParallelSum(down, adapter, begin, 4.0)

    def block(first: nn.Module, last: nn.Module, x: torch.Tensor) -> torch.Tensor:
        inner = first(x) * gate(x).relu() if gated else first(x).relu()
        result: torch.Tensor = last(inner)
        return result

    x = torch.randn(2, 5, 6)
    expected = block(up, down, x) + 4.0 * adapter(x)
    assert torch.allclose(block(begin, end, x), expected, atol=1e-6)
    assert begin.x is None  # it holds no activation afterwards


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name not in CORE])
def test_every_trained_weight_moves_and_no_other(
    name: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    (run,) = small_runs(tiny_recipe, name, "budget.epochs=3")
    record, _ = run_here(run, tmp_path)
    assert record.status == "ok", record.message
    evidence = record.evidence
    assert (evidence.unmoved, evidence.frozen_changed) == ((), ())
    assert evidence.expected_trainable == record.metrics["method_parameters"]
    assert evidence.moved_checked > 0
    assert (evidence.frozen_checked > 0) == (METHODS[name].info.scope != "all")


def test_psoft_keeps_no_more_than_its_own_singular_vectors(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU all right singular vectors are rows of one matrix, as they are made to be here."""
    svd = torch.linalg.svd

    def by_rows(*args: Any, **options: Any) -> Any:
        return tuple(part.contiguous() for part in svd(*args, **options))

    monkeypatch.setattr(torch.linalg, "svd", by_rows)
    _, model = applied(tiny_models["bert"], method_of("psoft"))
    vectors = {name: p for name, p in model.named_parameters() if "_cache" in name}
    assert vectors
    for name, one in vectors.items():
        assert one.untyped_storage().nbytes() == one.numel() * one.element_size(), name


DROPOUTS = [
    (name, field.name)
    for name in METHODS
    for field in dataclasses.fields(METHODS[name])
    if "dropout" in field.name
]


@pytest.mark.parametrize(("name", "setting"), DROPOUTS)
def test_dropout_of_everything_is_refused(name: str, setting: str) -> None:
    with pytest.raises(OptionError, match=f"{setting} = 1.0 should be less than 1"):
        method_of(name, **{setting: 1.0})
