"""Causal language modelling: rows, losses, generated texts and their scores against references."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu
from sacrebleu.metrics.chrf import CHRF

from builders import (
    Recorder,
    StepLog,
    make_decoder,
    make_model,
    run_here,
    training_job,
    without_dropout,
)
from language_builders import (
    WORDS,
    PlainTrainer,
    method_of,
    ready,
    recipe_of,
    run_and_save,
    write_pairs,
)
from peft_methods.data import splits
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.models import loading
from peft_methods.recipes.schema import DataSpec, ModelSpec
from peft_methods.runs import export
from peft_methods.runs.prepare import prepare
from peft_methods.runs.spec import RunSpec
from peft_methods.tasks.collate import EXAMPLES
from peft_methods.tasks.generation import generate_texts
from peft_methods.tasks.linear_cross_entropy import CHUNK_LOSSES
from peft_methods.tasks.lm_encoding import encode_rows
from peft_methods.tasks.lm_loss import token_losses
from peft_methods.tasks.registry import TASKS
from peft_methods.training.trainer import loop
from peft_methods.utils.errors import DataError, ModelError, OptionError

TASK = TASKS["causal_lm"]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("decoder") / "llama")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "data")


# rows


def test_only_the_completion_and_the_end_token_are_learnt(decoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    table = LabelledTexts(["good plot\n"], ["very bad"])
    rows = encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1), None)
    ids, labels = rows.tokens["input_ids"][0].tolist(), rows.tokens["labels"][0].tolist()
    words = tokenizer.convert_ids_to_tokens(ids)
    assert words == ["[CLS]", "good", "plot", "very", "bad", "[SEP]"]
    assert labels == [-100, -100, -100, *ids[3:]]
    assert TASK.examples_in_rows(rows) == 3


def test_loss_on_all_learns_the_prompt_too_but_not_the_first_token(decoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    table = LabelledTexts(["good plot\n"], ["very bad"])
    rows = encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1, loss_on="all"), None)
    labels = rows.tokens["labels"][0].tolist()
    assert labels == [-100, *rows.tokens["input_ids"][0].tolist()[1:]]


def test_padding_that_is_the_end_token_hides_no_label(decoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    tokenizer.pad_token = tokenizer.eos_token
    table = LabelledTexts(["good\n", "good plot story\n"], ["bad", "bad end"])
    rows = encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1), None)
    batch = TASK.collator(tokenizer)(list(rows))
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == 2
    assert (batch["labels"][0] != -100).sum() == 2
    assert TASK.examples_in_batch(batch) == TASK.examples_in_rows(rows) == 5


def test_a_cut_completion_is_not_taught_to_end(decoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    table = LabelledTexts(["good plot\n"], ["very bad end story"])
    rows = encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1), 5)
    assert len(rows.tokens["input_ids"][0]) == 5
    assert tokenizer.eos_token_id not in rows.tokens["labels"][0]


CHAT = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} "
    "{% if m['role'] == 'assistant' %}[SEP]\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def test_conversations_learn_the_last_answer_with_the_templates_own_end(decoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    tokenizer.chat_template = CHAT
    turns = (("user", "good"), ("assistant", "bad"), ("user", "fine"))
    table = LabelledTexts(["…"], ["poor end"], turns=[turns])
    rows = encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1), None)
    labels = rows.tokens["labels"][0]
    learnt = tokenizer.convert_ids_to_tokens(labels[labels != -100].tolist())
    assert learnt == ["poor", "end", "[SEP]"]
    assert (rows.tokens["input_ids"][0] == tokenizer.eos_token_id).sum() == 2


def test_conversations_need_a_chat_template(decoder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    table = LabelledTexts(["…"], ["poor"], turns=[(("user", "good"),)])
    with pytest.raises(ModelError, match=r"no chat template\. Set model\.source"):
        encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1), None)


# the loss


def test_only_learnt_positions_reach_the_projection(decoder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(decoder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    table = LabelledTexts(["good plot\n", "good plot story music\n"], ["bad", "bad end"])
    rows = encode_rows(table, tokenizer, DataSpec("x", 1, 1, 1), None)
    batch, shapes = TASK.collator(tokenizer)(list(rows)), []
    hook = CHUNK_LOSSES.register_forward_hook(lambda _, given, made: shapes.append(given[0].shape))
    losses, places = token_losses(model, batch)
    hook.remove()
    assert shapes == [(5, model.config.vocab_size)]
    assert places.tolist() == [0, 0, 1, 1, 1]
    inputs = {name: one for name, one in batch.items() if name != EXAMPLES}
    assert float(losses.detach().mean()) == pytest.approx(
        float(model(**inputs).loss.detach()), rel=1e-6
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["full", "lora"])
def test_every_step_has_the_loss_of_a_plain_trainer(
    tmp_path: Path, pairs: Path, kind: str, name: str
) -> None:
    """The plain Trainer uses the model's own loss. Dropout is off in both."""
    recipe = recipe_of(make_decoder(tmp_path / kind, kind), pairs, padding="fixed")
    log = StepLog(loop.RunTrainer)
    ours = ready(recipe, name)
    without_dropout(ours[3])
    (tmp_path / "ours").mkdir()
    loop.train(training_job(ours, tmp_path / "ours"), Recorder(), trainer_class=log.kind)

    theirs = ready(recipe, name)
    without_dropout(theirs[3])
    job = training_job(theirs, tmp_path)
    collate = TASK.collator(theirs[2].tokenizer, recipe.data.max_length)

    def plain_batch(rows: list[Any]) -> dict[str, torch.Tensor]:
        return {name: one for name, one in collate(rows).items() if name != EXAMPLES}

    order = torch.Generator().manual_seed(job.seed_of("data_order"))
    plain = PlainTrainer(
        theirs[3],
        loop.trainer_arguments(job),
        plain_batch,
        theirs[4].train,
        generator=order,
    )
    plain.train()
    assert len(plain.losses) == 10
    assert log.losses == pytest.approx(plain.losses, rel=1e-5)
    assert plain.losses[-1] < plain.losses[0] - 0.1


def test_a_batch_without_any_learnt_token_has_no_loss(decoder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(decoder)
    batch = {
        "input_ids": torch.tensor([[5, 6, 7]]),
        "attention_mask": torch.ones(1, 3, dtype=torch.long),
        "labels": torch.full((1, 3), -100),
    }
    with torch.no_grad():
        found = TASK.loss(model, batch)
    assert (float(found.total), int(found.count), float(found.mean)) == (0.0, 0, 0.0)


# generation


def test_batches_of_any_size_and_order_generate_the_same(decoder: Path, pairs: Path) -> None:
    recipe = recipe_of(decoder, pairs, max_new_tokens=9)
    base = loading.load(recipe.model, TASK.head, ())
    table = splits.load(recipe.data, TASK).splits["test"]
    found = []
    for size in (1, 5, 12):
        one = replace(recipe, budget=replace(recipe.budget, evaluation_batch_size=size))
        found.append(generate_texts(base.model.eval(), base.tokenizer, table, one))
    assert found[0].texts == found[1].texts == found[2].texts
    assert all(np.array_equal(found[0].lengths, one.lengths) for one in found)
    assert found[0].references[0][1].startswith("the ")
    assert max(found[0].lengths) <= 9


def test_the_models_own_sampling_settings_are_not_used_and_are_kept(
    decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, max_new_tokens=6)
    base = loading.load(recipe.model, TASK.head, ())
    table = splits.load(recipe.data, TASK).splits["test"]
    greedy = generate_texts(base.model.eval(), base.tokenizer, table, recipe)
    own = transformers.GenerationConfig(do_sample=True, temperature=9.0, eos_token_id=3)
    base.model.generation_config = own
    assert generate_texts(base.model, base.tokenizer, table, recipe).texts == greedy.texts
    assert base.model.generation_config is own


def test_a_text_ends_before_the_end_token_and_never_beyond_the_positions(
    decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, max_new_tokens=500)
    base = loading.load(recipe.model, TASK.head, ())
    table = splits.load(recipe.data, TASK).splits["test"]
    with torch.no_grad():  # this model writes the end token whatever it has read
        base.model.lm_head.weight.zero_()
    base.model.lm_head.weight.requires_grad_(False)
    made = generate_texts(base.model.eval(), base.tokenizer, table, recipe)
    assert not made.stopped.any()  # token 0 has the highest logit of equal ones
    assert made.lengths.max() < base.model.config.max_position_embeddings
    base.model.generation_config.eos_token_id = 0
    ended = generate_texts(base.model, base.tokenizer, table, recipe)
    assert ended.stopped.all()
    assert set(ended.texts) == {""}


# a whole run against an independent script


def script_scores(model: Any, folder: Path, data: Path, new_tokens: int) -> dict[str, float]:
    """Score a model with transformers, sacrebleu and rouge-score alone, one row at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    texts, total, count = [], 0.0, 0
    for row in rows:
        head = tokenizer(row["prompt"] + "\n", add_special_tokens=False)["input_ids"]
        given = torch.tensor([[tokenizer.bos_token_id, *head]])
        target = tokenizer(row["refs"][0], add_special_tokens=False)["input_ids"]
        target = torch.tensor([[*target, tokenizer.eos_token_id]])
        whole = torch.cat([given, target], 1)
        labels = torch.cat([torch.full_like(given, -100), target], 1)
        with torch.no_grad():
            total += float(model(input_ids=whole, labels=labels).loss) * target.shape[1]
        count += target.shape[1]
        made = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts.append(tokenizer.decode(made[0, given.shape[1] :], skip_special_tokens=True))
    refs = [row["refs"] for row in rows]
    scorer, chrf = RougeScorer(["rougeL"]), CHRF()
    return {
        "token_loss": total / count,
        "perplexity": math.exp(total / count),
        "exact_match": float(np.mean([t in r for t, r in zip(texts, refs, strict=True)])),
        "rouge_l": float(
            np.mean(
                [
                    max(scorer.score(one, text)["rougeL"].fmeasure for one in right)
                    for text, right in zip(texts, refs, strict=True)
                ]
            )
        ),
        "chrf": float(
            np.mean(
                [chrf.sentence_score(t, r).score / 100 for t, r in zip(texts, refs, strict=True)]
            )
        ),
        "bleu": corpus_bleu(texts, list(map(list, zip(*refs, strict=True)))).score / 100,
    }


@pytest.mark.parametrize(
    "name", ["lora", *(pytest.param(one, marks=pytest.mark.slow) for one in ("full", "adapter"))]
)
def test_a_runs_scores_are_those_of_a_plain_script_on_the_saved_model(
    tmp_path: Path, decoder: Path, pairs: Path, name: str
) -> None:
    recipe = recipe_of(decoder, pairs, name, epochs=6, max_new_tokens=8)
    record, predictions, saved = run_and_save(recipe, name, tmp_path)
    if name == "full":
        model = transformers.AutoModelForCausalLM.from_pretrained(saved)
    elif name == "lora":
        base = transformers.AutoModelForCausalLM.from_pretrained(decoder)
        model = PeftModel.from_pretrained(base, saved)
    else:
        model = export.load_trained(saved)
    expected = script_scores(model.eval(), saved, pairs, 8)
    found = {metric: record.metrics[metric] for metric in expected}
    exact = ("exact_match", "rouge_l", "chrf")
    assert {one: found[one] for one in exact} == {one: expected[one] for one in exact}
    assert found == pytest.approx(expected, rel=1e-6)
    assert predictions.generated.stopped.any()
    before = record.data["trivial_baseline"]
    assert found["token_loss"] < before["token_loss"]
    assert set(before) >= {metric.name for metric in TASK.metrics}
    assert record.metrics["generate_seconds"] > 0


@pytest.mark.slow
def test_a_merged_model_has_the_same_loss_and_loads_as_a_plain_one(
    tmp_path: Path, decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, "lora", max_new_tokens=8)
    record, _, saved = run_and_save(recipe, "lora", tmp_path)
    export.load_trained(saved, merge=True).save_pretrained(tmp_path / "merged")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    loss = script_scores(model.eval(), saved, pairs, 8)["token_loss"]
    assert loss == pytest.approx(record.metrics["token_loss"], rel=1e-5)
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForCausalLM" in card
    assert "labels: none" in card
    assert "new, random head" not in card
    assert "max_new_tokens=8" in card


@pytest.mark.slow
def test_transformers_itself_loads_a_lora_folder_with_the_trained_weights(
    tmp_path: Path, decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, "lora", max_new_tokens=4)
    record, _, saved = run_and_save(recipe, "lora", tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(saved)
    loss = script_scores(model.eval(), saved, pairs, 4)["token_loss"]
    assert loss == pytest.approx(record.metrics["token_loss"], rel=1e-5)


def test_lora_leaves_embeddings_and_projection_alone_and_full_trains_them(
    decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs)
    for name, expected in (("full", True), ("lora", False)):
        model = ready(recipe, name)[3]
        trained = [n for n, p in model.named_parameters() if p.requires_grad]
        for part in ("lm_head", "embed_tokens"):
            assert any(part in one for one in trained) == expected


@pytest.mark.slow
def test_quantized_runs_measure_their_own_untrained_model(
    tmp_path: Path, decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, "qlora", max_new_tokens=4)
    record, _ = run_here(RunSpec(recipe, method_of("qlora"), 0, "cpu"), tmp_path)
    assert record.status == "ok", record.message
    plain, _ = run_here(RunSpec(recipe, method_of("lora"), 0, "cpu"), tmp_path)
    ours, theirs = (one.data["trivial_baseline"]["token_loss"] for one in (record, plain))
    assert ours != theirs
    assert ours == pytest.approx(theirs, abs=0.3)


@pytest.mark.slow
def test_a_general_text_that_cannot_be_read_is_found_before_training(
    decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, general_text="/nowhere/texts")
    with pytest.raises(
        DataError, match=r"there is no folder /nowhere/texts\. Set data\.general_text to"
    ) as caught:
        prepare(recipe, (), "cpu", threads=1)
    assert caught.value.setting == "data.general_text"


def test_forgetting_is_the_rise_of_the_loss_on_general_text(
    tmp_path: Path, decoder: Path, pairs: Path
) -> None:
    general = tmp_path / "general"
    general.mkdir()
    rows = [{"text": f"the film was {word} and its music so {word}"} for word in WORDS]
    (general / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = recipe_of(decoder, pairs, max_new_tokens=4, general_text=str(general), epochs=4)
    record, _, saved = run_and_save(recipe, "full", tmp_path)
    before, after = (
        plain_perplexity(transformers.AutoModelForCausalLM.from_pretrained(one), saved, rows)
        for one in (decoder, saved)
    )
    assert record.metrics["general_perplexity_before"] == pytest.approx(before, rel=1e-5)
    assert record.metrics["general_perplexity"] == pytest.approx(after, rel=1e-5)
    assert record.metrics["forgetting"] == pytest.approx(math.log(after / before), abs=1e-5)


def plain_perplexity(model: Any, folder: Path, rows: list[dict[str, str]]) -> float:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for row in rows:
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]])
        with torch.no_grad():
            total += float(model.eval()(input_ids=whole, labels=whole).loss) * (len(ids) + 1)
        count += len(ids) + 1
    return math.exp(total / count)


# wrong models and settings


def test_encoders_and_encoder_decoders_are_refused(tmp_path: Path, pairs: Path) -> None:
    make_model(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"'bert' model, which is not a decoder.*such as Llama"):
        loading.load(ModelSpec(str(tmp_path / "bert")), TASK.head, ())
    transformers.T5Config(
        vocab_size=60, d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8
    ).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match="which is not a decoder that writes text"):
        loading.load(ModelSpec(str(tmp_path / "t5"), weights="random"), TASK.head, ())


def test_epochs_are_selected_by_loss_and_methods_ranked_by_any_metric(
    decoder: Path, pairs: Path
) -> None:
    recipe = recipe_of(decoder, pairs, rank_by="bleu")
    assert (recipe.selection_metric, recipe.ranking_metric) == ("token_loss", "bleu")
    assert recipe_of(decoder, pairs).ranking_metric == "token_loss"
    with pytest.raises(OptionError, match=r"data\.select_by: .* Allowed: token_loss, perplexity"):
        recipe_of(decoder, pairs, select_by="bleu")
    with pytest.raises(OptionError, match=r"data\.rank_by: .* Did you mean 'bleu'"):
        recipe_of(decoder, pairs, rank_by="blue")


def test_head_only_is_skipped_with_the_reason(decoder: Path) -> None:
    base = loading.load(ModelSpec(str(decoder)), TASK.head, ())
    reason = method_of("head_only").unsupported(base.architecture, "cpu")
    assert reason is not None
    assert "part of the pretrained model" in reason
