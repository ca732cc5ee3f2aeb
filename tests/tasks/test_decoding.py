"""Texts decoded in refilled slots equal those of transformers' `generate`, one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import nn

from builders import DECODER, DECODERS, make_decoder, mostly_slow, words_tokenizer
from language_builders import (
    generated_alone,
    prompts_of,
    ready,
    recipe_of,
    vivid,
    vivid_decoder,
    wide_gaps,
    write_pairs,
)
from peft_methods.data import splits
from peft_methods.methods import METHODS
from peft_methods.models import loading
from peft_methods.recipes.schema import ModelSpec
from peft_methods.tasks.decoding import graphs, greedy
from peft_methods.tasks.decoding.greedy import Prompt, decode
from peft_methods.tasks.decoding.probe import differs
from peft_methods.tasks.decoding.support import refusal
from peft_methods.tasks.generation import generate_texts
from peft_methods.tasks.lm_predictions import LanguagePredictions
from peft_methods.tasks.registry import TASKS

TASK = TASKS["causal_lm"]
IN_SLOTS = ("llama", "qwen2", "qwen3", "smollm3", "gemma", "phi", "phi3", "gpt2", "gpt_neox", "opt")
TOKENS = list(range(5, 40))


@pytest.mark.parametrize("kind", mostly_slow(IN_SLOTS, "llama", "qwen2", "gpt2", "opt"))
def test_slots_write_the_tokens_of_generate(kind: str) -> None:
    model, prompts = vivid_decoder(kind), prompts_of(11)
    assert refusal(model) == ""
    free = generated_alone(model, prompts, ())
    ends = [free[0][2], free[3][-1]]  # tokens that end some texts early
    expected = generated_alone(model, prompts, ends)
    assert len({len(one) for one in expected}) > 4
    for slots in (1, 4, 11):
        assert decode(model, prompts, (), slots) == free
        assert decode(model, prompts, ends, slots) == expected


@pytest.mark.parametrize("name", mostly_slow(METHODS, "lora", "qlora", "ia3", "adapter"))
def test_every_method_writes_the_same_in_slots_as_in_batches(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(
        make_decoder(tmp_path / "model"), write_pairs(tmp_path / "data"), name, max_new_tokens=9
    )
    method = METHODS[name]
    base = loading.load(recipe.model, TASK.head, ())
    made = METHODS.create(name, {"learning_rate": 1e-2, **method.example_settings()}, "test")
    if made.unsupported(base.architecture, "cpu") or made.prerequisites(recipe):
        pytest.skip("not a method of one run of a language model")
    _, _, base, model, _ = ready(recipe, name)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    vivid(nn.ParameterDict({n.replace(".", "_"): p for n, p in trained.items()}))
    model.eval()
    table = splits.load(recipe.data, TASK).splits["test"]
    greedy = generate_texts(model, base.tokenizer, table, recipe)
    assert greedy.fallback == (
        "trained prompts, which are in the cache" * bool(made.virtual_tokens)
    )
    assert len(set(greedy.texts)) > 2
    texts = [base.tokenizer(text.strip())["input_ids"] for text in table.texts]
    prompts = [Prompt(ids, 9) for ids in texts]
    alone = generated_alone(model, prompts, [base.tokenizer.eos_token_id])
    assert list(greedy.texts) == [
        base.tokenizer.decode(ids, skip_special_tokens=True) for ids in alone
    ]


class CalledGraph:
    """Stands for a CUDA graph on a CPU: a replay calls the function that was captured."""

    def __init__(self, function: Callable[[int], object], number: int) -> None:
        self.replay = partial(function, number)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_steps_of_all_slots_at_a_time_write_the_same(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: free slots take part, and the host looks after several steps."""

    def capture(self: Any, function: Callable[[int], object], number: int) -> None:
        function(number)
        self._graphs[number] = CalledGraph(function, number)

    monkeypatch.setattr(graphs.Replayed, "captures", True, raising=False)
    monkeypatch.setattr(
        graphs.Replayed,
        "__init__",
        lambda self, device: vars(self).update(_device=device, _graphs={}),
    )
    monkeypatch.setattr(graphs.Replayed, "_capture", capture)
    monkeypatch.setattr(greedy, "WINDOW", 8)
    model, prompts = vivid_decoder(kind), prompts_of(23, new=30)
    expected = generated_alone(model, prompts, ())
    ends = [expected[0][2], expected[3][-1]]
    expected = generated_alone(model, prompts, ends)
    for slots in (1, 5, 23):
        assert greedy.decode(model, prompts, ends, slots) == expected


# models that are not decoded in slots


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("mistral", "layers of the kind DynamicSlidingWindowLayer"),
        ("gemma3_text", "layers of the kind DynamicSlidingWindowLayer"),
        ("eager", "attention computed by 'eager'"),
        ("dynamic", "dynamic rotary positions"),
        ("prompts", "trained prompts, which are in the cache"),
        ("own", "codegen has an attention of its own"),
    ],
)
def test_other_models_fall_back_with_the_reason(
    change: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_decoder(tmp_path / "model")
    recipe = recipe_of(folder, write_pairs(tmp_path / "data"), max_new_tokens=4)
    model = changed_model(change)
    found = generate_texts(model, words_tokenizer(), rows_of(recipe), recipe)
    assert reason in found.fallback
    assert set(found.lengths.tolist()) != {0}
    assert f"{reason}" in TASK.remark([TASK.evaluate(predictions_of(found), ()).plain()])
    restored = LanguagePredictions.restore(dict(predictions_of(found).arrays()).__getitem__)
    assert restored.generated == found or restored.generated.fallback == found.fallback


def changed_model(change: str) -> Any:
    if change in DECODERS:
        return vivid_decoder(change)
    if change == "own":
        config = transformers.CodeGenConfig(
            vocab_size=60,
            n_embd=32,
            n_layer=2,
            n_head=4,
            rotary_dim=8,
            n_positions=64,
            bos_token_id=2,
            eos_token_id=3,
        )
        return vivid(transformers.AutoModelForCausalLM.from_config(config))
    if change == "dynamic":
        rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
        return vivid(
            transformers.LlamaForCausalLM(
                transformers.LlamaConfig(**{**DECODER, "rope_parameters": rope})
            )
        )
    model = vivid_decoder("llama")
    if change == "eager":
        model.set_attn_implementation("eager")
        return model
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    return peft.get_peft_model(model, config).eval()


def rows_of(recipe: Any) -> Any:
    return splits.load(recipe.data, TASK).splits["test"]


def predictions_of(generated: Any) -> LanguagePredictions:
    rows = len(generated.texts)
    return LanguagePredictions(
        np.ones(rows), np.ones(rows, dtype=np.int64), np.arange(rows), generated
    )


def test_beams_are_written_in_batches_without_a_remark(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "model")
    recipe = recipe_of(folder, write_pairs(tmp_path / "data"), max_new_tokens=4, beams=2)
    base = loading.load(ModelSpec(str(folder)), TASK.head, ())
    found = generate_texts(vivid(base.model), base.tokenizer, rows_of(recipe), recipe)
    assert (found.fallback, len(found.texts)) == ("", 12)


class Mixes(nn.Module):
    """Adds the state before a token to its own, which a cache does not keep."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.inner(states + nn.functional.pad(states, (0, 0, 1, 0))[:, :-1])


def test_a_model_whose_states_are_not_all_in_the_cache_is_found_out(tmp_path: Path) -> None:
    model = vivid_decoder("llama")
    assert differs(model, TOKENS) == ""
    model.model.layers[1].mlp = Mixes(model.model.layers[1].mlp)
    reason = "its logits differ when it is decoded with slots"
    assert differs(model, TOKENS) == reason
    recipe = recipe_of(
        make_decoder(tmp_path / "m"), write_pairs(tmp_path / "data"), max_new_tokens=4
    )
    found = generate_texts(model, words_tokenizer(), rows_of(recipe), recipe)
    assert found.fallback == reason


@pytest.mark.parametrize("tokens", [[7], [7, 8], TOKENS])
def test_few_tokens_are_enough_to_try_a_model(tokens: list[int]) -> None:
    for kind in ("llama", "gpt2", "opt"):
        assert differs(vivid_decoder(kind), tokens) == ""


# what stays as it was


def test_the_model_is_as_it_was_and_nothing_is_drawn(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "model")
    recipe = recipe_of(folder, write_pairs(tmp_path / "data"), max_new_tokens=4)
    base = loading.load(ModelSpec(str(folder)), TASK.head, ())
    model, random = base.model.eval(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = rows_of(recipe)
    first = generate_texts(model, base.tokenizer, table, recipe)
    assert model.config._attn_implementation == "sdpa"
    assert all("forward" not in vars(module) for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    one = replace(recipe, budget=replace(recipe.budget, evaluation_batch_size=3))
    assert generate_texts(model, base.tokenizer, table, one).texts == first.texts


def test_a_text_has_all_the_positions_that_its_own_prompt_leaves() -> None:
    """In a padded batch the longest prompt takes them from all."""
    model = vivid_decoder("gpt2")
    positions = model.config.max_position_embeddings
    prompts = [Prompt(TOKENS[: positions - room], room) for room in (30, 50)]
    found = decode(model, prompts, (), 2)
    assert [len(one) for one in found] == [30, 50]
    assert found == generated_alone(model, prompts, ())


def test_in_bf16_texts_differ_only_where_two_tokens_are_within_rounding() -> None:
    """Batches of another size round differently, those of transformers' `generate` too."""
    model, prompts = vivid_decoder("llama"), prompts_of(40)
    with torch.autocast("cpu", torch.bfloat16):
        made, alone = decode(model, prompts, (), 8), generated_alone(model, prompts, ())
        assert wide_gaps(model, prompts, made, alone) == []
    assert made[0] == alone[0]
    wrong = [[(text[0] + 1) % 60, *text[1:]] for text in made]
    assert len(wide_gaps(model, prompts, made, wrong)) > 30
