"""Packed batches: the same examples, losses and gradients as padded ones, without attention
between examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    CORE,
    DECODERS,
    UNLIKE,
    Recorder,
    StepLog,
    make_decoder,
    mostly_slow,
    run_here,
    training_job,
    without_dropout,
)
from language_builders import (
    PlainTrainer,
    assert_same_steps,
    method_of,
    ready,
    recipe_of,
    trained_without_dropout,
    write_pairs,
)
from peft_methods.methods.registry import METHODS
from peft_methods.recipes.schema import Budget
from peft_methods.report.paper.setup import budget_paragraph
from peft_methods.report.text.setup import budget_text
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.collate import NO_LABEL, model_inputs
from peft_methods.tasks.lm_packing import packed
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.training.collate import make_collator, training_collator
from peft_methods.training.packing import check_packing, packing_problem
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import ModelError, OptionError

TASK = TASKS["causal_lm"]
REFUSED = {"opt"}  # it makes a mask of its own, in which nothing is masked
PACKING = [kind for kind in DECODERS if kind not in REFUSED]
MIXING: dict[str, Any] = {
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=64, hidden_size=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3
    ),
    "mpt": lambda: transformers.MptConfig(
        vocab_size=64, d_model=32, n_layers=2, n_heads=2, max_seq_len=64
    ),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "data")


# rows


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 60))
def test_every_example_is_in_one_row_and_padding_never_grows(
    lengths: list[int], limit: int
) -> None:
    rows = packed(lengths, limit)
    assert sorted(one for row in rows for one in row) == list(range(len(lengths)))
    sizes = [sum(lengths[one] for one in row) for row in rows]
    assert max(sizes) <= max(limit, *lengths)
    assert len(rows) * max(sizes) <= len(lengths) * max(lengths)


def test_rows_have_the_fewest_tokens_and_equal_examples_a_row_each() -> None:
    assert packed([7, 3], 10) == [[0, 1]]
    assert [len(row) for row in packed([5] * 16, 40)] == [1] * 16
    assert sorted(map(sorted, packed([8, 7, 3, 2], 10))) == [[0, 3], [1, 2]]
    assert sorted(packed([12, 3], 10)) == [[0], [1]]


def test_examples_without_tokens_leave_no_row() -> None:
    assert packed([0, 0], 8) == [[0, 1]]


def rows_of(*lengths: int) -> list[dict[str, Any]]:
    found = []
    for number, length in enumerate(lengths):
        ids = np.arange(5, 5 + length) + 7 * number
        found.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids})
    return found


def test_a_batch_has_positions_that_begin_again_and_no_label_where_an_example_begins(
    tmp_path: Path,
) -> None:
    make_decoder(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = TASK.packed_collator(tokenizer, 7)(rows_of(4, 2, 5))
    assert batch["input_ids"].tolist() == [[19, 20, 21, 22, 23, 0], [5, 6, 7, 8, 12, 13]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 1]]
    assert batch["labels"].tolist() == [
        [NO_LABEL, 20, 21, 22, 23, NO_LABEL],
        [NO_LABEL, 6, 7, 8, NO_LABEL, 13],
    ]
    assert TASK.examples_in_batch(batch) == 8
    assert "attention_mask" not in batch


# models


@pytest.mark.parametrize("kind", PACKING)
def test_changing_an_example_leaves_the_logits_of_the_others(kind: str, tmp_path: Path) -> None:
    base = transformers.AutoModelForCausalLM.from_config(DECODERS[kind]()).eval()
    make_decoder(tmp_path, kind)
    collate = TASK.packed_collator(transformers.AutoTokenizer.from_pretrained(tmp_path), 12)
    rows = rows_of(6, 5)
    changed = [{**rows[0], "input_ids": rows[0]["input_ids"][::-1].copy()}, rows[1]]

    def logits(some: list[dict[str, Any]]) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = base(**model_inputs(collate(some)), use_cache=False).logits[0]
        return found

    one, other = logits(rows), logits(changed)
    assert not torch.allclose(one[:6], other[:6], atol=1e-4)
    assert torch.equal(one[6:], other[6:])
    assert torch.allclose(one[6:], logits(rows[1:]), atol=1e-6)
    check_packing(base)
    assert not base.training


@pytest.mark.parametrize("kind", ["opt", *MIXING])
def test_models_that_mix_examples_up_are_refused_with_the_reason(kind: str) -> None:
    make = MIXING[kind] if kind in MIXING else DECODERS[kind]
    model = transformers.AutoModelForCausalLM.from_config(make())
    with pytest.raises(ModelError, match=r"sees the examples before it.*'dynamic'\.$") as caught:
        check_packing(model)
    assert type(model).__name__ in str(caught.value)
    assert caught.value.setting == "budget.padding"
    assert model.training


def test_positions_that_a_model_does_not_read_are_found() -> None:
    """A planted fault: positions are counted from the first token of the row."""

    class Deaf(transformers.GPT2LMHeadModel):
        def forward(self, *arguments: Any, position_ids: Any = None, **options: Any) -> Any:
            wrong = torch.arange(position_ids.shape[1]).expand_as(position_ids)
            segments = (position_ids == 0).cumsum(-1)
            apart = (segments[:, :, None] == segments[:, None]).tril()[:, None]
            return super().forward(*arguments, position_ids=wrong, attention_mask=apart, **options)

    problem = packing_problem(Deaf(DECODERS["gpt2"]()))
    assert problem is not None
    assert "ignores that positions begin again" in problem


def test_a_model_that_takes_no_positions_is_refused() -> None:
    class Strict(transformers.LlamaForCausalLM):
        def forward(self, input_ids: Any, use_cache: bool = False) -> Any:  # type: ignore[override]
            return super().forward(input_ids, use_cache=use_cache)

    problem = packing_problem(Strict(DECODERS["llama"]()))
    assert problem is not None
    assert "Strict cannot be given the positions of tokens" in problem


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_a_method_that_drops_the_positions_is_found() -> None:
    """PEFT's prompts come before a row, so it ignores positions that are given."""
    model = transformers.LlamaForCausalLM(DECODERS["llama"]())
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ModelError, match=r"apart: with Prompts, .*LlamaForCausalLM"):
        check_packing(peft.get_peft_model(model, config), "Prompts")


# training


def assert_equal_trainings(
    model: Path, data: Path, folder: Path, name: str, **changes: Any
) -> None:
    """Check that packed and padded batches have the same loss and gradient at every step."""
    packed, padded = (
        trained_without_dropout(
            loop.RunTrainer, model, data, folder / padding, name, padding=padding, **changes
        )
        for padding in ("packed", "fixed")
    )
    assert_same_steps(packed, padded)
    assert packed[1].padding < padded[1].padding


# EVA's directions of nearly equal strength turn with the rounding of another padding, and the cache
# of a prefix has one for each row.
NAMES = mostly_slow(
    (
        name
        for name in METHODS
        if not (
            name in UNLIKE
            or METHODS[name].info.reads_rows
            or METHODS[name].info.family == "prompts"
        )
    ),
    *CORE,
)


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_padded_batches_with_every_method(
    name: str, tmp_path: Path, pairs: Path
) -> None:
    kind = "gpt_neox" if name == "bitfit" else "llama"  # Llama has no biases
    model = make_decoder(tmp_path / kind, kind)
    assert_equal_trainings(model, pairs, tmp_path, name, max_length=40)


@pytest.mark.parametrize("kind", mostly_slow(PACKING, "qwen2", "gemma", "mistral"))
def test_steps_are_those_of_padded_batches_with_every_model(
    kind: str, tmp_path: Path, pairs: Path
) -> None:
    model = make_decoder(tmp_path / kind, kind)
    assert_equal_trainings(model, pairs, tmp_path, "lora", max_length=40)


def test_accumulation_checkpointing_and_loss_on_all_tokens_agree_too(
    tmp_path: Path, pairs: Path
) -> None:
    model = make_decoder(tmp_path / "llama")
    settings = {
        "gradient_accumulation": 2,
        "batch_size": 4,
        "loss_on": "all",
        "gradient_checkpointing": True,
    }
    assert_equal_trainings(model, pairs, tmp_path, "full", max_length=40, **settings)


def test_a_step_has_the_loss_of_a_plain_trainer_on_flattened_rows(
    tmp_path: Path, pairs: Path
) -> None:
    """transformers' own collator packs a batch into one row; its Trainer has the model's loss."""
    recipe = recipe_of(
        make_decoder(tmp_path / "llama"), pairs, padding="packed", max_length=64, epochs=1
    )
    log, made = StepLog(loop.RunTrainer), ready(recipe)
    without_dropout(made[3])
    (tmp_path / "ours").mkdir()
    loop.train(training_job(made, tmp_path / "ours"), Recorder(), trainer_class=log.kind)
    theirs = ready(recipe)
    without_dropout(theirs[3])
    job = training_job(theirs, tmp_path)
    order = list(loop.RunTrainer(job, loop.trainer_arguments(job), Recorder())._get_train_sampler())

    rows = [
        {name: theirs[4].train[row][name].tolist() for name in ("input_ids", "labels")}
        for row in order
    ]
    collate = transformers.DataCollatorWithFlattening()
    plain = PlainTrainer(theirs[3], loop.trainer_arguments(job), collate, rows)
    plain.train()
    assert log.losses == pytest.approx(plain.losses, rel=1e-5)
    assert plain.losses[-1] < plain.losses[0]


def test_evaluations_pad_and_training_packs(tmp_path: Path, pairs: Path) -> None:
    recipe = recipe_of(make_decoder(tmp_path / "llama"), pairs, padding="packed")
    _, _, base, _, tokens = ready(recipe)
    rows = [tokens.train[row] for row in range(4)]
    assert "position_ids" in training_collator(recipe, base.tokenizer)(rows)
    assert len(make_collator(recipe, base.tokenizer)(rows)["input_ids"]) == 4


# runs


@pytest.mark.parametrize("padding", ["fixed", "packed"])
def test_a_run_records_its_tokens_and_its_padding(
    tmp_path: Path, pairs: Path, padding: str
) -> None:
    recipe = recipe_of(
        make_decoder(tmp_path / "llama"), pairs, padding=padding, max_length=40, max_new_tokens=2
    )
    record, _ = run_here(RunSpec(recipe, method_of("lora"), 0, "cpu"), tmp_path / "work")
    assert record.status == "ok", record.message
    tokens, filling = record.metrics["trained_tokens"], record.metrics["padding_tokens"]
    rows = ready(recipe)[4].train
    assert tokens == 2 * sum(rows.lengths)
    assert record.metrics["padding_share"] == filling / (tokens + filling)
    assert (filling < 0.04 * tokens) == (padding == "packed")
    speed = record.metrics["tokens_per_second"] * record.metrics["train_seconds"]
    assert speed == pytest.approx(tokens)


@pytest.mark.parametrize(
    ("padding", "engines", "line", "sentence"),
    [
        ("packed", "trainer", "fp32, packed batches", "are packed: one after the other"),
        ("dynamic", "trainer", "fp32, padded batches", "padded to the longest, and not packed"),
        ("fixed", "trainer", "fp32, fixed padding", "padded to the maximum length"),
        ("dynamic", "cuda_graphs", "packed batches of similar lengths", "without padding between"),
        ("dynamic", "cuda_graphs trainer", "padded or packed", "in others packed"),
        ("fixed", "cuda_graphs", "fp32, fixed padding", "padded to the maximum length"),
    ],
)
def test_the_setup_says_whether_batches_are_packed(
    pairs: Path, padding: str, engines: str, line: str, sentence: str
) -> None:
    recipe, names = recipe_of(Path("model"), pairs, padding=padding), engines.split()
    assert line in budget_text(recipe, names)
    assert sentence in budget_paragraph(recipe, names)
    other = replace(recipe, task="text_classification", budget=Budget(1, 8))
    assert "batches" not in budget_text(other, names)
    assert "packed" not in budget_paragraph(other, names)


def test_padding_is_part_of_a_runs_identity(tmp_path: Path, pairs: Path) -> None:
    model = make_decoder(tmp_path / "llama")
    keys = {
        RunSpec(recipe_of(model, pairs, padding=one), method_of("lora"), 0, "cpu").key
        for one in ("dynamic", "fixed", "packed")
    }
    assert len(keys) == 3


def test_other_tasks_cannot_be_packed(tmp_path: Path) -> None:
    recipe = replace(recipe_of(tmp_path, tmp_path, padding="packed"), task="text_classification")
    with pytest.raises(OptionError, match=r"is for the task causal_lm.*'dynamic' or 'fixed'"):
        with_task(recipe)
