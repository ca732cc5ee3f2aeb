"""Packed steps of the cuda_graphs engine, compared one by one with padded steps of the Trainer.

Without a GPU a step is called directly, and attention is computed with a mask.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from builders import (
    DECODER,
    DECODERS,
    UNLIKE,
    Recorder,
    RejectHostAccess,
    StepLog,
    make_decoder,
    make_model,
    make_number_data,
    make_trainer,
    mostly_slow,
    run_here,
    train_with_both_engines,
    training_job,
    words_tokenizer,
)
from language_builders import assert_equal_trainings, method_of, ready, recipe_of, write_pairs
from peft_methods.data.token_rows import TokenRows
from peft_methods.methods.registry import METHODS
from peft_methods.models.packed_virtual_tokens import prefix_of
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.collate import NO_LABEL
from peft_methods.tasks.registry import TASKS
from peft_methods.training.cuda_graphs import token_buckets
from peft_methods.training.cuda_graphs.frozen_cast import half_frozen
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.cuda_graphs.packed_attention import PackedAttention
from peft_methods.training.cuda_graphs.token_batches import TokenCollator
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import EngineUnfit, ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*AccumulateGrad.*")
TASK = TASKS["causal_lm"]
NAMES = [
    name
    for name in METHODS
    if name not in UNLIKE
    and not METHODS[name].acts_after_steps()
    and METHODS[name].info.optimizer == "adamw"
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "data")


def made_decoder(folder: Path, kind: str) -> Path:
    """Write a decoder, of which OPT's dropout is no module and is switched off here."""
    model = make_decoder(folder, kind)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if "dropout" in config:
        config["dropout"] = 0.0
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


@pytest.mark.parametrize(
    "name", mostly_slow(NAMES, "full", "lora", "qlora", "prefix_tuning", "p_tuning")
)
def test_steps_are_those_of_padded_batches_with_every_method(
    name: str, tmp_path: Path, pairs: Path
) -> None:
    kind = "gpt_neox" if name == "bitfit" else "llama"  # Llama has no biases
    model = make_decoder(tmp_path / kind, kind)
    assert_equal_trainings(model, pairs, tmp_path, name, max_length=40)


@pytest.mark.parametrize("kind", mostly_slow(DECODERS, "gemma2", "opt"))
def test_steps_are_those_of_padded_batches_with_every_model(
    kind: str, tmp_path: Path, pairs: Path
) -> None:
    model = made_decoder(tmp_path / kind, kind)
    assert_equal_trainings(model, pairs, tmp_path, "lora", max_length=40)


@pytest.mark.parametrize("padding", mostly_slow(["dynamic", "fixed", "packed"], "dynamic", "fixed"))
def test_accumulation_checkpointing_and_loss_on_all_tokens_agree_too(
    padding: str, tmp_path: Path, pairs: Path
) -> None:
    model = make_decoder(tmp_path / "llama")
    settings = {
        "gradient_accumulation": 2,
        "batch_size": 3,
        "loss_on": "all",
        "gradient_checkpointing": True,
        "padding": padding,
    }
    assert_equal_trainings(model, pairs, tmp_path, "full", max_length=40, **settings)


@pytest.mark.parametrize("size", [1, 2])
def test_batches_may_be_smaller_than_the_rows_that_are_tried(
    size: int, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_buckets, "MULTIPLE", 8)
    model = make_decoder(tmp_path / "m")
    assert_equal_trainings(model, pairs, tmp_path, "lora", max_length=40, batch_size=size, epochs=1)


@pytest.mark.parametrize("kind", mostly_slow(DECODERS, "llama"))
def test_steps_of_classifiers_are_those_of_padded_batches(
    kind: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    source = made_decoder(tmp_path / kind, kind)
    settings = (f"model.source={source}", "methods.lora.learning_rate=1e-4")  # or rounding grows
    train_with_both_engines(tiny_recipe, tmp_path, "lora", *settings)


@pytest.fixture
def packed_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaGraphsTrainer, "packs_encoders", True)


@pytest.mark.usefixtures("packed_encoders")
@pytest.mark.parametrize("name", ["p_tuning_v2", "prompt_tuning"])
def test_steps_of_encoders_with_virtual_tokens_are_those_of_padded_batches(
    name: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    """A prompt behind the first token of an encoder is trained in padded rows."""
    train_with_both_engines(tiny_recipe, tmp_path, name)


ENCODERS = ("bert", "roberta", "distilbert", "electra", "albert", "xlm-roberta", "modernbert")


@pytest.mark.usefixtures("packed_encoders")
@pytest.mark.parametrize("kind", mostly_slow(ENCODERS, "bert", "roberta"))
def test_steps_of_encoders_are_those_of_padded_batches(
    kind: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = (f"model.source={make_model(tmp_path / kind, kind)}",)
    train_with_both_engines(tiny_recipe, tmp_path, "full", *settings)


@pytest.mark.usefixtures("packed_encoders")
def test_steps_of_taggers_are_those_of_padded_batches(tagged_recipe: Path, tmp_path: Path) -> None:
    train_with_both_engines(tagged_recipe, tmp_path, "lora", "budget.gradient_accumulation=2")


@pytest.mark.usefixtures("packed_encoders")
@pytest.mark.parametrize(
    ("task", "metric"), [("regression", "spearman"), ("multilabel", "micro_f1")]
)
def test_steps_with_numbers_as_labels_are_those_of_padded_batches(
    task: str, metric: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    source = make_number_data(tmp_path / "data", task)
    own = (f"task={task}", f"data.source={source}", f"data.select_by={metric}")
    small = ("data.train=36", "data.validation=8", "data.test=8", "budget.batch_size=5")
    train_with_both_engines(tiny_recipe, tmp_path, "full", *own, *small)


def token_rows(lengths: Sequence[int]) -> TokenRows:
    """Return rows of a causal language model, every token of which is learnt."""
    columns = ("input_ids", "attention_mask", "labels")
    ids = [[5 + (7 * row + at) % 60 for at in range(n)] for row, n in enumerate(lengths)]
    masks = [[1] * len(row) for row in ids]
    return TokenRows.of(dict(zip(columns, (ids, masks, ids), strict=True)), None)


def packed_batch(kind: str, folder: Path, *, rows: int = 3) -> tuple[Any, Any]:
    """Return a causal language model's collator of packed batches, and a batch of it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(make_decoder(folder, kind))
    table = token_rows((7, 4, 9, 2))
    collate = TokenCollator(TASK.collator(tokenizer), table, [[0, 1, 2]], size=3, pooled=-1)
    return collate, collate([table[row] for row in range(rows)])


def test_a_batch_may_hold_a_row_several_times_where_there_are_few() -> None:
    """As the check of a model does, which takes three rows of however many."""
    table = token_rows((70, 40))
    collate = TokenCollator(TASK.collator(words_tokenizer()), table, [[0, 0, 1]], size=3, pooled=-1)
    assert collate([table[row] for row in (0, 0, 1)])["rows"] == 3
    assert [bucket.tokens for bucket in collate.buckets] == [192]


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_decoder_never_accesses_the_host_while_it_is_captured(kind: str, tmp_path: Path) -> None:
    _, batch = packed_batch(kind, tmp_path)
    model = transformers.AutoModelForCausalLM.from_config(DECODERS[kind]()).eval()
    packing = PackedAttention(9)
    tensors = {name: one for name, one in batch.items() if isinstance(one, torch.Tensor)}
    with packing.applied(model, "fp32"), RejectHostAccess():
        found = packing.loss(TASK.loss)(model, tensors)
        torch.autograd.backward(found.total)
    assert int(found.count) == 17


@pytest.mark.parametrize("name", ["p_tuning_v2", "prompt_tuning"])
def test_virtual_tokens_never_access_the_host_and_leave_nothing_behind(
    name: str, tmp_path: Path, pairs: Path
) -> None:
    model = ready(recipe_of(make_decoder(tmp_path / "m"), pairs), name)[3].train()
    _, batch = packed_batch("llama", tmp_path / "t")
    packing, attention = PackedAttention(9), model.model.layers[0].self_attn
    tensors = {name: one for name, one in batch.items() if isinstance(one, torch.Tensor)}
    with packing.applied(model, "fp32"), RejectHostAccess():
        torch.autograd.backward(packing.loss(TASK.loss)(model, tensors).total)
        assert (prefix_of(attention) is not None) == (name == "p_tuning_v2")
    assert prefix_of(attention) is None
    assert model.model.virtual_tokens.borders is None
    assert all(bool(p.grad.any()) for p in model.parameters() if p.requires_grad)
    copy.deepcopy(model)  # which tensors within a graph would forbid


def test_attention_that_takes_no_prefix_is_refused_by_name(tmp_path: Path, pairs: Path) -> None:
    made = ready(recipe_of(make_decoder(tmp_path / "m"), pairs, max_length=40), "p_tuning_v2")
    made[3].config._attn_implementation = "eager"
    with pytest.raises(EngineUnfit, match=r"its attention 'eager' takes no keys of a prefix"):
        make_trainer(made, tmp_path, kind=CudaGraphsTrainer)


def test_batches_are_made_on_the_host_within_the_context_of_another_device(tmp_path: Path) -> None:
    collate, _ = packed_batch("llama", tmp_path)
    rows = [{"input_ids": [5, 6], "attention_mask": [1, 1], "labels": [5, 6]}]
    with torch.device("meta"):  # as in the steps of models that make tensors without a device
        batch = collate(rows)
    kinds = {one.device.type for one in batch.values() if isinstance(one, torch.Tensor)}
    assert kinds == {"cpu"}


def test_batches_of_a_bucket_have_one_shape_and_all_tokens_are_in_a_sequence(
    tmp_path: Path,
) -> None:
    collate, batch = packed_batch("llama", tmp_path)
    assert [tuple(bucket.__dict__.values()) for bucket in collate.buckets] == [(64, 64)]
    empty = collate.empty(collate.buckets[-1])
    small = packed_batch("llama", tmp_path, rows=1)[1]
    for one in (batch, small):
        assert {name: empty[name].shape for name in empty} == {
            name: one[name].shape for name in empty
        }
        assert int(one["borders"][-1]) == 64
        assert int(one["borders"].diff().max()) <= collate.longest == 9
        assert bool((one["borders"].diff() >= 0).all())
    assert batch["borders"].tolist()[:6] == [0, 7, 11, 20, 29, 38]
    assert batch["position_ids"][0, :12].tolist() == [*range(7), *range(4), 0]
    assert batch["places"][:17].tolist() == [*range(6), *range(7, 10), *range(11, 19)]
    assert (batch["examples"], batch["rows"]) == (17, 3)
    ids = batch["input_ids"][0]
    assert torch.equal(batch["labels"][:17], ids[batch["places"][:17] + 1])
    assert (batch["labels"][17:] == NO_LABEL).all()
    assert (ids[20:] == 0).all()


def test_models_that_mix_packed_examples_up_are_refused(tmp_path: Path, pairs: Path) -> None:
    made = ready(recipe_of(make_decoder(tmp_path / "m"), pairs, max_length=40))
    layer = made[3].model.layers[-1]
    forward = layer.forward
    layer.forward = lambda states, **options: forward(states, **options) + states.mean(1)
    with pytest.raises(EngineUnfit, match=r"LlamaForCausalLM with .* sees the examples beside it"):
        make_trainer(made, tmp_path, kind=CudaGraphsTrainer)


def test_models_that_ignore_positions_are_refused(tmp_path: Path, pairs: Path) -> None:
    made = ready(recipe_of(make_decoder(tmp_path / "m", "gpt2"), pairs, max_length=40))
    body = made[3].transformer
    body.wpe.weight.data.mul_(20)
    forward = body.wpe.forward
    body.wpe.forward = lambda ids: forward(torch.arange(ids.shape[1])[None])
    with pytest.raises(EngineUnfit, match=r"has other states than alone"):
        make_trainer(made, tmp_path, kind=CudaGraphsTrainer)


def frozen_decoder(tied: bool) -> Any:
    config = transformers.LlamaConfig(**DECODER, tie_word_embeddings=tied)
    return transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False)


def test_frozen_weights_are_back_after_training_and_a_change_of_a_copy_is_found(
    tmp_path: Path,
) -> None:
    model = frozen_decoder(tied=True)
    before = {name: (p, p.clone()) for name, p in model.named_parameters()}
    down, changed = model.model.layers[0].mlp.down_proj, "model.layers.0.mlp.down_proj.weight"
    with half_frozen(model, "bf16"):
        assert down.weight.dtype == model.lm_head.weight.dtype == torch.bfloat16
        assert model.model.embed_tokens.weight.dtype == torch.float32
        down.weight.data[0, 0] += 1
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0]
        assert torch.equal(parameter, before[name][1]) == (name != changed)
    assert down.weight[0, 0] - before[changed][1][0, 0] > 0.5


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_that_16_bits_represent_are_held_in_them_and_give_the_same_values(
    tied: bool,
) -> None:
    model = frozen_decoder(tied)
    embeddings = model.model.embed_tokens
    embeddings.weight.data.copy_(embeddings.weight.bfloat16())
    before, ids = embeddings.weight.clone(), torch.arange(6)[None]

    def values() -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return [embeddings(ids), model(ids).logits]

    expected = values()
    with half_frozen(model, "bf16"):
        assert embeddings.weight.dtype == model.lm_head.weight.dtype == torch.bfloat16
        assert (embeddings.weight is model.lm_head.weight) == tied
        assert all(map(torch.equal, values(), expected))
    assert (embeddings.weight is model.lm_head.weight) == tied
    assert torch.equal(embeddings.weight, before)
    assert embeddings.weight.dtype == torch.float32
    assert all(map(torch.equal, values(), expected))
    assert not embeddings._forward_hooks


@pytest.mark.parametrize("name", ["p_tuning_v2", "prompt_tuning", "lora"])
def test_gradients_are_the_same_while_frozen_weights_are_held_in_16_bits(
    name: str, tmp_path: Path, pairs: Path
) -> None:
    model = ready(recipe_of(make_decoder(tmp_path / "m"), pairs), name)[3].train()
    for parameter in model.parameters():
        parameter.data.copy_(parameter.bfloat16())
    _, batch = packed_batch("llama", tmp_path / "t")
    packing = PackedAttention(9)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        with (
            packing.applied(model, "bf16"),
            torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
        ):
            total = packing.loss(TASK.loss)(model, batch).total
        total.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    torch.manual_seed(0)
    expected = gradients()
    torch.manual_seed(0)
    with half_frozen(model, "bf16"):
        found = gradients()
    assert len(found) == len(expected) > 0
    assert all(map(torch.equal, found, expected))


def test_trained_embeddings_stay_in_fp32() -> None:
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**DECODER))
    embeddings = model.model.embed_tokens
    embeddings.weight.data.copy_(embeddings.weight.bfloat16())
    with half_frozen(model, "bf16"):
        assert embeddings.weight.dtype == torch.float32


def test_a_run_records_packed_training(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaGraphsTrainer, "compile_layers", False)
    settings = {"precision": "bf16", "max_new_tokens": 2, "batch_size": 6, "padding": "packed"}
    recipe = recipe_of(make_decoder(tmp_path / "m"), pairs, max_length=40, **settings)
    run = RunSpec(recipe, method_of("lora"), 0, "cpu", "cuda_graphs")
    record, predictions = run_here(run, tmp_path / "work")
    assert (record.status, record.environment["engine_note"]) == ("ok", ""), record.message
    assert record.spec.engine == "cuda_graphs"
    assert (record.evidence.unmoved, record.evidence.frozen_changed) == ((), ())
    tokens, filling = record.metrics["trained_tokens"], record.metrics["padding_tokens"]
    assert tokens == 2 * sum(ready(recipe)[4].train.lengths)
    assert (tokens + filling) % 64 == 0
    assert predictions is not None
    assert record.epochs[0]["train_loss"] > 0


def test_packed_padding_trains_virtual_tokens_where_the_engine_packs(
    tmp_path: Path, pairs: Path
) -> None:
    """The plain trainer cannot place them before each example of a row, and says so."""
    model = make_decoder(tmp_path / "m", "llama")
    recipe = recipe_of(model, pairs, "prompt_tuning", max_length=40, padding="packed")
    for number, kind in enumerate((CudaGraphsTrainer, loop.RunTrainer)):
        (folder := tmp_path / str(number)).mkdir()
        job = training_job(ready(recipe, "prompt_tuning"), folder)
        if kind is CudaGraphsTrainer:
            assert loop.train(job, Recorder(), trainer_class=StepLog(kind).kind).steps > 0
            continue
        with pytest.raises(ModelError, match=r"Set budget.padding = 'dynamic'"):
            loop.train(job, Recorder(), trainer_class=kind)


@pytest.mark.parametrize(("kind", "place"), [("llama", "meta"), ("opt", "cpu")])
def test_models_that_draw_on_the_host_make_tensors_there(kind: str, place: str) -> None:
    """OPT draws whether it leaves a layer out, which a captured step cannot read from the GPU."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(DECODERS[kind]())
    with PackedAttention(9).applied(model, "fp32"):
        assert torch.rand([]).device.type == place
