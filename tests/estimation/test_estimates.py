"""Estimates of all methods, over an estimator by formulas: what fits, ways to fit, times, notes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from estimate_builders import CONTEXT, PARAMETERS, VOCABULARY, FormulaEstimator, refusing

from builders import make_data
from peft_methods.estimation import ways
from peft_methods.estimation.api import Estimates, estimate
from peft_methods.estimation.connected import default_estimator
from peft_methods.estimation.gpu import gpu_of
from peft_methods.estimation.results import MethodEstimate, Way
from peft_methods.utils.errors import ModelError, OptionError

MODEL = "roberta-base"
SOME = ("full", "lora", "qlora", "ia3")
TOKENS = 16 * 512  # of a batch of the recipe


def estimated(**arguments: Any) -> Estimates:
    """Estimates by the formulas."""
    arguments = {"methods": SOME, "estimator": FormulaEstimator(), **arguments}
    return estimate(arguments.pop("model", MODEL), **arguments)


def of(estimates: Estimates, name: str) -> MethodEstimate:
    """The estimate of one method."""
    return next(one for one in estimates if one.method == name)


def test_gpu_decides_what_fits_and_how_large_it_may_be() -> None:
    found = estimated(gpu="T4")
    lora = of(found, "lora")
    assert lora.fit is not None
    assert lora.memory is not None
    assert (lora.fit.verdict, lora.fit.ways) == ("yes", ())
    rest = lora.memory.peak - 1_000_000 * TOKENS
    largest = lora.fit.largest_batch
    needs = [1.1 * (rest + 1_000_000 * n * 512) + CONTEXT for n in (largest, largest + 1)]
    assert needs[0] <= 16e9 < needs[1]
    assert lora.fit.largest_length == 512  # the model reads no more
    assert lora.time is not None
    batches = -(-3000 // 16)
    assert lora.time.epoch_seconds.expected == pytest.approx(
        batches * lora.time.step_seconds.expected
    )
    assert lora.time.train_seconds.expected == pytest.approx(5 * lora.time.epoch_seconds.expected)
    assert lora.time.energy is not None
    assert lora.time.energy.expected == pytest.approx(70 * lora.time.train_seconds.expected)


def test_ways_to_fit_fit_and_have_their_price() -> None:
    found = estimated(gpu="8GB")
    full = of(found, "full")
    assert full.fit is not None
    assert full.fit.verdict == "no"
    assert full.time is None
    ways = {way.settings: way for way in full.fit.ways}
    halves = ways["budget.batch_size=8", "budget.gradient_accumulation=2"]
    assert halves.time_ratio == pytest.approx(1, abs=0.01)
    checkpointed = ways["budget.gradient_checkpointing=true",]
    assert checkpointed.by_flops
    assert checkpointed.time_ratio == pytest.approx(4 / 3, abs=0.01)
    (shorter,) = full.fit.ways[-1].settings
    assert int(shorter.removeprefix("data.max_length=")) == full.fit.largest_length
    assert all(way.needed_bytes <= 8e9 for way in full.fit.ways)
    for way in full.fit.ways:
        again = of(estimated(gpu="8GB", methods=["full"], settings=way.settings), "full")
        assert again.fit is not None
        assert again.fit.verdict == "yes"


def test_quantised_weights_are_a_way_where_weights_are_large() -> None:
    found = estimated(gpu="0.95GB", batch_size=1, max_length=16, methods=["full", "lora"])
    for one in found:
        assert one.fit is not None
        assert one.fit.verdict in {"no", "unsure"}
        assert [way.method for way in one.fit.ways if way.method] == ["qlora"]


def test_a_smaller_state_is_a_way_where_all_weights_are_trained() -> None:
    found = estimated(gpu="2GB", batch_size=4, max_length=64, methods=["full", "head_only"])
    full = of(found, "full")
    assert full.fit is not None
    (way,) = (one for one in full.fit.ways if one.method == "full_8bit")
    assert way.needed_bytes <= 2e9
    assert way.settings == ()
    assert way.time_ratio is not None
    (own,) = estimated(gpu="0.9GB", batch_size=4, max_length=64, methods=["full_8bit"])
    assert own.fit is not None
    assert "full_8bit" not in {one.method for one in own.fit.ways}


def test_a_method_is_estimated_for_the_engine_that_trains_it() -> None:
    asked: list[tuple[str, str]] = []

    class Watched(FormulaEstimator):
        def memory(self, recipe: Any, method: Any, **how: Any) -> Any:
            asked.append((method.name, how["engine"]))
            return super().memory(recipe, method, **how)

    estimated(methods=["full", "full_8bit"], engine="cuda_graphs", estimator=Watched())
    assert set(asked) == {("full", "cuda_graphs"), ("full_8bit", "trainer")}


def test_engine_of_methods_that_another_one_cannot_replay_is_noted() -> None:
    """The first line names the engine of the others."""
    found = estimated(methods=["full", "full_8bit", "adalora"], gpu="T4")
    (note,) = [one for one in found.notes if "engine" in one]
    assert note == (
        "estimated for the trainer engine, since cuda_graphs cannot replay such steps: "
        "Full fine-tuning, 8-bit AdamW; AdaLoRA"
    )
    for other in ({"methods": ["lora"]}, {"methods": ["full_8bit"], "engine": "trainer"}):
        assert not [one for one in estimated(gpu="T4", **other).notes if "engine" in one]


def test_changes_are_combined_where_none_is_enough() -> None:
    found = estimated(gpu="1GB", batch_size=4, methods=["lora"], max_length=512)
    (lora,) = found
    assert lora.fit is not None
    both = [way for way in lora.fit.ways if len(way.settings) > 1 or way.method]
    assert lora.fit.largest_batch == 0
    assert any("gradient_checkpointing=true" in " ".join(way.settings) for way in both)
    assert all(way.needed_bytes <= 1e9 for way in lora.fit.ways)


def test_accumulated_batches_count_one_optimizer_step() -> None:
    whole = of(estimated(gpu="T4", methods=["lora"]), "lora").time
    parts = of(
        estimated(gpu="T4", methods=["lora"], settings=["budget.gradient_accumulation=4"]), "lora"
    ).time
    assert whole is not None
    assert parts is not None
    optimizer = 0.001  # seconds, by the formula
    assert whole.step_seconds.expected - parts.step_seconds.expected == pytest.approx(
        0.75 * optimizer
    )


def test_surprises_are_explained_where_they_occur() -> None:
    found = estimated()
    rules = {one.method: set(one.explanations) for one in found}
    assert "above its counterpart" in rules["qlora"]
    assert {"as much memory as full", "hardly faster than full"} <= rules["ia3"]
    assert rules["full"] == {"activations"}
    small = estimated(batch_size=1, max_length=16)
    rules = {one.method: set(one.explanations) for one in small}
    assert "above its counterpart" not in rules["qlora"]
    assert "weights" in rules["lora"]
    assert rules["full"] == set()
    assert "as much memory as full" not in rules["ia3"]


def test_logits_are_named_where_they_are_large() -> None:
    logits = 4 * TOKENS * VOCABULARY
    without = estimated(methods=["lora"], estimator=FormulaEstimator(token_bytes=300_000))
    found = estimated(methods=["lora"], estimator=FormulaEstimator(300_000, logits=True))
    assert found[0].memory is not None
    assert logits / found[0].memory.peak > 0.2
    assert "logits" in found[0].explanations
    assert "1.6 GB" in found[0].explanations["logits"]
    assert "logits" not in without[0].explanations


def test_method_that_cannot_be_is_a_row_with_its_reason() -> None:
    failing: dict[str, Exception] = {
        "lora": refusing("no such layers"),
        "ia3": ZeroDivisionError("in a library"),
    }
    found = estimated(
        methods=["lora", "ia3", "full", "prompt_tuning"],
        estimator=FormulaEstimator(failing=failing),
    )
    problems = {one.method: one.problem for one in found}
    assert problems["lora"] == "no such layers"
    assert problems["ia3"] == "it cannot be estimated (ZeroDivisionError: in a library)"
    assert "set data.max_length = 502 or less" in problems["prompt_tuning"]
    assert problems["full"] == ""
    assert of(found, "lora").memory is None


def test_recipe_follows_the_model_and_is_named(tmp_path: Path) -> None:
    decoder = estimated(model="SmolLM2-135M", methods=["lora"])
    assert decoder.question.recipe.name == "gsm8k_sft"
    assert any("recipe gsm8k_sft" in note for note in decoder.notes)
    assert "recipe imdb_roberta" in " ".join(estimated().notes)
    own = estimated(recipe="sst2_bert", methods=["lora"])
    assert own.question.recipe.name == "sst2_bert"
    assert not any("usual one" in note for note in own.notes)


def test_own_data_give_the_number_of_rows(tmp_path: Path) -> None:
    make_data(tmp_path)
    data = str(tmp_path)
    found = estimated(data=data, gpu="T4", methods=["lora"])
    assert found[0].time is not None
    rows = found[0].time.epoch_seconds.expected / found[0].time.step_seconds.expected * 16
    assert 16 <= rows < 3000
    assert any("token_lengths" in note for note in found.notes)


def test_everything_is_json() -> None:
    found = estimated(gpu="8GB")
    written = json.loads(json.dumps(found.to_json()))
    assert written["gpu"]["memory_bytes"] == 8e9
    full = written["methods"][0]
    assert full["memory"]["parts"]["weights"] == 4 * PARAMETERS
    assert full["fit"]["ways"][0]["needed_bytes"] <= 8e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpu": "T5"}, "unknown gpu 'T5'. Did you mean 'T4'?.*Or give its memory"),
        ({"gpu": "16 sheep"}, "unknown gpu '16 sheep'"),
        ({"gpu": "3090 Ti"}, "unknown gpu '3090 Ti'"),
        ({"gpu": "-16GB"}, "gpu '-16GB' is below zero"),
        ({"gpu": "1.2.3GB"}, "gpu '1.2.3GB' is not a number"),
        ({"gpu": "16MB"}, "should be the memory of a GPU"),
        ({"batch_size": -3}, "budget.batch_size = -3 should be a whole number from 1 to 4,096"),
        ({"batch_size": 10**9}, "budget.batch_size = 1,000,000,000 should be"),
        ({"max_length": 0}, "data.max_length = 0 should be"),
        ({"precision": "bf17"}, "budget.precision = 'bf17' should be"),
        ({"methods": "lroa"}, "unknown method 'lroa'. Did you mean"),
        ({"engine": "trainr"}, "unknown engine 'trainr'. Did you mean 'trainer'?"),
        ({"recipe": "imdb"}, "unknown recipe 'imdb'"),
    ],
)
def test_bad_option_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        estimated(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "has no hidden_size and no num_hidden_layers"),
        ({"model_type": "gpt2", "n_embd": 64}, "has no num_hidden_layers"),
        ({"hidden_size": 64}, 'JSON object with "model_type"'),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "code.Own"}},
            "needs its own Python code, which is not executed",
        ),
        (None, "has no config.json"),
    ],
)
def test_model_without_sizes_or_with_own_code_is_refused(
    config: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message) as caught:
        estimated(model=str(folder))
    assert "\n" not in str(caught.value)


def test_model_of_the_hub_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot be fetched from the hub") as caught:
        estimated(model="someone/roberta-bse")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"there is no folder \./nowhere"):
        estimated(model="./nowhere")


def test_encoder_decoder_has_an_estimate(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "num_layers": 1, "d_ff": 64, "num_heads": 2, "vocab_size": 100}
    ends = {"eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **sizes, **ends}))
    found = estimated(
        model=str(tmp_path), methods=["lora"], max_length=16, estimator=default_estimator()
    )
    assert found[0].problem == ""
    assert found[0].memory is not None


@pytest.mark.parametrize(
    ("model", "task", "recipe"),
    [
        ("SmolLM2-135M", "text_classification", "imdb_decoder"),
        ("SmolLM2-135M", "causal_lm", "gsm8k_sft"),
        (MODEL, "token_classification", "wnut17_ner"),
    ],
)
def test_recipe_follows_the_task(model: str, task: str, recipe: str) -> None:
    found = estimated(model=model, task=task, methods=["lora"])
    assert (found.question.recipe.name, found.question.recipe.task) == (recipe, task)
    assert found[0].problem == ""


def test_method_is_asked_about_the_gpu_that_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unsupported(self: Any, architecture: Any, device: str) -> None:
        asked.append(device)

    monkeypatch.setattr("peft_methods.methods.peft_method.PeftMethod.unsupported", unsupported)
    estimated(methods=["lora"])
    assert set(asked) == {"cuda"}


@pytest.mark.parametrize(
    ("given", "taken", "other"),
    [("A100", "A100 40GB", "A100 80GB"), ("V100", "V100 16GB", "V100 32GB")],
)
def test_name_of_several_sizes_is_said(given: str, taken: str, other: str) -> None:
    gpu = gpu_of(given, default_estimator())
    assert gpu.name == taken
    assert gpu.note == f"{given} is taken as {taken}; name another size with it, such as {other}"
    for full in (taken, f"NVIDIA {taken}", "T4", "16GB"):
        assert gpu_of(full, default_estimator()).note == ""


@pytest.mark.parametrize(("size", "bytes_"), [("16GB", 16e9), ("16 GiB", 2**34), ("16g", 16e9)])
def test_size_is_in_its_own_unit(size: str, bytes_: float) -> None:
    assert gpu_of(size, default_estimator()).memory_bytes == bytes_


def test_advice_is_nothing_that_the_run_has() -> None:
    small = {one.method: one for one in estimated(batch_size=1, max_length=16, methods=["qlora"])}
    words = " ".join(small["qlora"].explanations.values())
    assert "4 or 8 bits" not in words
    large = estimated(batch_size=256, methods=["lora"], checkpointing=True)
    assert "activations" in large[0].explanations
    assert "checkpointing" not in large[0].explanations["activations"]


def test_unknown_price_is_not_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    prices = iter([None, 1.4, 1.1])

    def way(case: Any, what: str, other: Any) -> Way:
        return Way(what, 1.0, time_ratio=next(prices, 2.0))

    monkeypatch.setattr(ways, "_way", way)
    monkeypatch.setattr(ways, "_shorter", lambda case, length: iter(()))
    fit = of(estimated(gpu="8GB"), "full").fit
    assert fit is not None
    ratios = [one.time_ratio for one in fit.ways]
    assert ratios[-1] is None
    assert ratios[:-1] == sorted(ratios[:-1], key=float)


def test_length_beyond_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="reads at most 512 tokens"):
        estimated(max_length=600)


def test_config_file_alone_is_enough(tmp_path: Path) -> None:
    from peft_methods.models.presets import presets

    path = tmp_path / "config.json"
    path.write_text(json.dumps(dict(presets()[MODEL])))
    found = estimated(model=str(path), methods=["lora"])
    assert replace(found[0], explanations={}) == replace(
        estimated(methods=["lora"])[0], explanations={}
    )
