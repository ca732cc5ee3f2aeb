"""Decoders and encoder-decoders as classifiers: the logits are those of the last real token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import processors

from builders import (
    DECODERS,
    SEQ2SEQ,
    SMALL,
    TASK,
    data_spec,
    make_any,
    make_decoder,
    prepared,
    run_here,
    training_job,
    words_tokenizer,
)
from peft_methods.api import PrintableComparison
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.methods.selection import chosen_methods
from peft_methods.models import loading
from peft_methods.models.families import DECODER_TYPES, family_of
from peft_methods.profiling.flops import count_training_flops
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import ModelSpec
from peft_methods.report.text.notes import notes
from peft_methods.runs.spec import run_specs
from peft_methods.training.registry import ENGINES

TEXTS = ["a good film", "bad", "the story was so very dull and its end was awful", "a great plot"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, loading.LoadedModel]:
    root = tmp_path_factory.mktemp("decoders")
    return {kind: load(make_any(root / kind, kind)) for kind in (*DECODERS, *SEQ2SEQ)}


def load(folder: Path) -> loading.LoadedModel:
    base = loading.load(ModelSpec(str(folder)), TASK.head, ("no", "yes"))
    base.model.eval()
    return base


def rows_of(base: loading.LoadedModel, texts: list[str]) -> list[dict[str, Any]]:
    table = LabelledTexts(texts, [0] * len(texts))
    return list(TASK.encode(table, base.tokenizer, data_spec("x", max_length=32), 32))


def logits(base: loading.LoadedModel, rows: list[dict[str, Any]], length: int | None = None) -> Any:
    with torch.no_grad():
        return TASK.predict(base.model, TASK.collator(base.tokenizer, length)(rows))


def padded_left(base: loading.LoadedModel, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    batch = TASK.collator(base.tokenizer)(rows)
    shifts = batch["input_ids"].shape[1] - batch["attention_mask"].sum(1)
    for name in ("input_ids", "attention_mask"):
        rolled = [row.roll(int(by)) for row, by in zip(batch[name], shifts, strict=True)]
        batch[name] = torch.stack(rolled)
    return batch


@pytest.mark.parametrize("kind", [*DECODERS, *SEQ2SEQ])
def test_padded_rows_have_the_logits_of_the_row_alone(
    kind: str, models: dict[str, loading.LoadedModel]
) -> None:
    base = models[kind]
    rows = rows_of(base, TEXTS)
    alone = torch.cat([logits(base, [row]) for row in rows])
    assert alone.std(0).min() > 1e-4, "the rows must differ"
    assert torch.allclose(logits(base, rows), alone, atol=1e-5)
    assert torch.allclose(logits(base, rows, 34), alone, atol=1e-5)


@pytest.mark.parametrize("kind", list(DECODERS))
def test_batches_padded_left_have_the_same_logits(
    kind: str, models: dict[str, loading.LoadedModel]
) -> None:
    """GPT-2 counts positions from the first token of the batch, unless it is given them."""
    base = models[kind]
    rows = rows_of(base, TEXTS)
    batch = padded_left(base, rows)
    if kind == "gpt2":
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        assert torch.allclose(TASK.predict(base.model, batch), logits(base, rows), atol=1e-5)


@pytest.mark.parametrize("kind", list(DECODERS))
def test_logits_are_the_head_on_the_last_real_token(
    kind: str, models: dict[str, loading.LoadedModel]
) -> None:
    base = models[kind]
    rows = rows_of(base, TEXTS)
    with torch.no_grad():
        for row, found in zip(rows, logits(base, rows), strict=True):
            ids = torch.tensor([row["input_ids"].tolist()])
            body: Any = getattr(base.model, str(base.model.base_model_prefix))
            states = body(input_ids=ids).last_hidden_state
            assert torch.allclose(base.model.score(states[0, -1]), found, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_rows_that_end_in_the_padding_token_are_read_to_their_last_other_token(
    kind: str, tmp_path: Path
) -> None:
    """The tokenizer ends rows with [SEP], which is the padding token too."""
    folder = make_decoder(tmp_path, kind)
    words_tokenizer("[SEP]", adds_end=True).save_pretrained(folder)
    base = load(folder)
    assert base.tokenizer("a good film")["input_ids"][-1] == base.model.config.pad_token_id == 3
    rows = rows_of(base, [*TEXTS, "a good [SEP] film", "a good film [SEP] [SEP]", "", "[SEP]"])
    assert all(3 not in row["input_ids"][-1:] for row in rows)
    assert list(rows[5]["input_ids"]) == list(rows[0]["input_ids"])
    assert 3 in rows[4]["input_ids"]
    alone = torch.cat([logits(base, [row]) for row in rows])
    assert torch.allclose(logits(base, rows), alone, atol=1e-5)


def test_a_row_without_tokens_gets_one(tmp_path: Path) -> None:
    base = load(make_decoder(tmp_path))
    no_ends = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    base.tokenizer.backend_tokenizer.post_processor = no_ends
    assert base.tokenizer("")["input_ids"] == []
    rows = rows_of(base, ["", "good"])
    assert list(rows[0]["input_ids"]) == [base.tokenizer.bos_token_id]
    assert list(rows[0]["attention_mask"]) == [1]
    assert logits(base, rows).isfinite().all()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_flops_of_training_are_counted(kind: str, tiny_recipe: Path, tmp_path: Path) -> None:
    source = make_any(tmp_path / "m", kind)
    ready = prepared(tiny_recipe, "lora", f"model.source={source}", "data.train=40")
    flops = count_training_flops(training_job(ready, tmp_path))
    weights = sum(p.numel() for n, p in ready[2].model.named_parameters() if ".layers." in n)
    assert flops.per_token > 2 * weights
    assert flops.per_square > 0


def test_families_of_models() -> None:
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert set(causal) >= DECODER_TYPES
    assert not DECODER_TYPES & set(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    assert all(family_of(make()) == "decoder" for make in DECODERS.values())
    assert all(family_of(make()) == "encoder_decoder" for make in SEQ2SEQ.values())
    assert family_of(transformers.BertConfig()) == "encoder"
    assert family_of(transformers.FNetConfig()) == "encoder"


@pytest.mark.parametrize("kind", list(DECODERS))
def test_cuda_graphs_takes_decoders(kind: str) -> None:
    assert ENGINES["cuda_graphs"].unsupported(DECODERS[kind]()) is None


ROTATED = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
UNFIT: dict[str, tuple[Any, str]] = {
    **{kind: (make, "is an encoder-decoder") for kind, make in SEQ2SEQ.items()},
    "rotations": (
        lambda: transformers.LlamaConfig(rope_parameters=ROTATED),
        "'llama' computes 'dynamic' rotations",
    ),
    "experts": (transformers.MixtralConfig, "'mixtral' chooses among experts"),
    "bloom": (transformers.BloomConfig, "'bloom' has its attention built in"),
}


@pytest.mark.parametrize("kind", list(UNFIT))
def test_cuda_graphs_names_what_it_cannot_capture_and_the_engine_that_trains_it(kind: str) -> None:
    make, cause = UNFIT[kind]
    reason = ENGINES["cuda_graphs"].unsupported(make())
    assert reason is not None
    assert cause in reason
    assert reason.endswith("the trainer engine trains it")
    assert ENGINES["trainer"].unsupported(make()) is None
    assert ENGINES["cuda_graphs"].unsupported(transformers.BertConfig()) is None


def test_a_run_falls_back_to_the_trainer_and_says_which_token_pads(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """The engine is replaced before anything is captured, in the same process."""
    source = make_decoder(tmp_path / "m", padding=False)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] = ROTATED
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    recipe = load_recipe(str(tiny_recipe), [*SMALL, f"model.source={source}"])
    (run,) = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu", "cuda_graphs")
    record, predictions = run_here(run, tmp_path / "work")
    assert record.status == "ok", record.message
    assert (record.spec.engine, record.spec.fallback_from) == ("trainer", "cuda_graphs")
    assert record.spec.key == run.key
    assert "the trainer engine trains it" in record.environment["engine_note"]
    assert (record.evidence.unmoved, record.evidence.frozen_changed) == ((), ())
    assert record.evidence.expected_trainable == record.metrics["method_parameters"]
    (note,) = record.environment["model_notes"]
    assert note in " ".join(one.text for one in notes(PrintableComparison((record,))))
    assert predictions is not None
