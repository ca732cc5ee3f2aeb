"""Tiny models of every family, with a tokenizer of words, and tiny data that can be learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import nn

from peft_methods.capabilities.tiny_configs import (
    CONFIGS,
    DECODERS,
    MORE_CONFIGS,
    SEQ2SEQ,
    VOCABULARY,
)
from peft_methods.tasks.base import Task
from peft_methods.tasks.registry import TASKS


def make_any(folder: Path, kind: str, *, vivid: bool = False) -> Path:
    """Write the model folder of any tiny model: encoder, decoder or encoder-decoder.

    A vivid model tells its inputs apart: see `make_vivid`.
    """
    if kind in DECODERS:
        return make_decoder(folder, kind, vivid=vivid)
    make = make_seq2seq if kind in SEQ2SEQ else make_model
    return make(folder, kind, vivid=vivid)


def make_model(
    folder: Path, kind: str = "bert", *, trained_pooler: bool = True, vivid: bool = False
) -> Path:
    """Write a model folder in hub layout: config, safetensors and a WordPiece tokenizer."""
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config({**CONFIGS, **MORE_CONFIGS}[kind]())
    if hasattr(model, "pooler") and trained_pooler:
        pooler = getattr(model.pooler, "dense", model.pooler)
        nn.init.constant_(pooler.bias, 1e-3)  # an all-zero bias means "never trained"
    _save(model, folder, vivid)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def make_decoder(
    folder: Path, kind: str = "llama", *, padding: bool = True, vivid: bool = False
) -> Path:
    """Write the folder of a causal language model, whose tokenizer may lack a padding token."""
    torch.manual_seed(7)
    _save(TASKS["causal_lm"].head.auto_class().from_config(DECODERS[kind]()), folder, vivid)
    words_tokenizer("[PAD]" if padding else None).save_pretrained(folder)
    return folder


def make_seq2seq(folder: Path, kind: str = "t5", *, vivid: bool = False) -> Path:
    """Write the folder of an encoder-decoder, whose tokenizer ends every row with its [SEP]."""
    torch.manual_seed(7)
    _save(transformers.AutoModel.from_config(SEQ2SEQ[kind]()), folder, vivid)
    words_tokenizer(adds_end=True).save_pretrained(folder)
    return folder


def _save(model: Any, folder: Path, vivid: bool) -> None:
    if vivid:
        make_vivid(model)
    model.save_pretrained(folder)


def make_vivid(model: Any) -> None:
    """Draw the matrices so that signals keep their size, and let the model drop nothing.

    With the usual small weights, the outputs of so small a model hardly depend on its inputs, and
    the gradients of queries and keys are nearly zero.
    """
    for name, value in vars(model.config).items():
        if "drop" in name and isinstance(value, float):
            setattr(model.config, name, 0.0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)


def words_tokenizer(
    padding: str | None = "[PAD]",
    *,
    unknown: str | None = "[UNK]",
    end: str | None = "[SEP]",
    vocabulary: Sequence[str] = VOCABULARY,
    adds_end: bool = False,
) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of words as decoders have it, without token types.

    Rows begin with [CLS] and may end with [SEP].
    """
    words = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"
        )
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if adds_end else "[CLS] $A",
        pair="[CLS] $A [SEP] $B",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="[CLS]",
        eos_token=end,
        unk_token=unknown,
        pad_token=padding,
        model_input_names=["input_ids", "attention_mask"],
    )


def write_example(task: Task, folder: Path) -> Path:
    """Write the task's example data as train.jsonl and test.jsonl."""
    folder.mkdir(parents=True)
    columns = task.example_columns(64)
    rows = [
        json.dumps(dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    for name, part in (("train", rows[:44]), ("test", rows[44:])):
        (folder / f"{name}.jsonl").write_text("\n".join(part), encoding="utf-8")
    return folder
