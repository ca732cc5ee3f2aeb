"""Padding tokens of decoders, and tokenizers with words that the model has no embeddings for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from builders import (
    DECODERS,
    TASK,
    VOCABULARY,
    make_decoder,
    make_model,
    make_seq2seq,
    words_tokenizer,
)
from peft_methods.models import loading
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils.errors import ModelError

NAMES = ("no", "yes")
WITHOUT_PADDING = ("[X]", *VOCABULARY[1:])


def load(folder: Path) -> loading.LoadedModel:
    return loading.load(ModelSpec(str(folder)), TASK.head, NAMES)


def decoder(folder: Path, kind: str = "llama", *, pad: int | None = None, **options: Any) -> Path:
    """Write a decoder whose tokenizer has no padding token; `pad` is that of its config."""
    make_decoder(folder, kind)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"pad_token_id": pad}
    path.write_text(json.dumps(config), encoding="utf-8")
    words_tokenizer(None, **options).save_pretrained(folder)
    return folder


def test_a_token_made_for_padding_comes_before_unknown_and_end(tmp_path: Path) -> None:
    base = load(decoder(tmp_path))
    assert base.tokenizer.pad_token == "[PAD]"
    assert base.model.config.pad_token_id == base.tokenizer.pad_token_id == 0
    (note,) = base.notes
    assert "its token '[PAD]' (id 0) is used" in note


def test_config_decides_before_any_guess(tmp_path: Path) -> None:
    base = load(decoder(tmp_path, pad=7))
    assert base.tokenizer.pad_token_id == base.model.config.pad_token_id == 7


@pytest.mark.parametrize(("unknown", "expected"), [("[UNK]", "[UNK]"), (None, "[SEP]")])
def test_unknown_token_comes_before_the_end(
    unknown: str | None, expected: str, tmp_path: Path
) -> None:
    base = load(decoder(tmp_path, unknown=unknown, vocabulary=WITHOUT_PADDING))
    assert base.tokenizer.pad_token == expected
    assert base.model.config.pad_token_id == base.tokenizer.pad_token_id


def test_without_any_token_for_padding_the_error_says_so(tmp_path: Path) -> None:
    folder = decoder(tmp_path, unknown=None, end=None, vocabulary=WITHOUT_PADDING)
    with pytest.raises(ModelError, match=r"has no padding token, nor an unknown") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(DECODERS))
def test_padding_is_stored_in_the_saved_model(kind: str, tmp_path: Path) -> None:
    base = load(decoder(tmp_path / "base", kind))
    base.model.save_pretrained(tmp_path / "saved")
    base.tokenizer.save_pretrained(tmp_path / "saved")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert config.pad_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.padding_side == "right"


def test_encoders_keep_their_padding_without_remarks(tmp_path: Path) -> None:
    base = load(make_model(tmp_path))
    assert base.notes == ()
    assert base.tokenizer.pad_token == "[PAD]"


def with_words(folder: Path, *, special: bool) -> Path:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<fits>", "<image_soft_token>"], special_tokens=special)
    tokenizer.save_pretrained(folder)
    return folder


def test_words_without_embeddings_are_refused(tmp_path: Path) -> None:
    rows = len(VOCABULARY)
    with pytest.raises(ModelError) as caught:
        load(with_words(make_decoder(tmp_path), special=False))
    assert re.search(
        rf"has 1 token that the model has no embeddings for: the model has {rows} and the first "
        rf"of them is '<image_soft_token>' \(id {rows}\)\. Set model\.source",
        str(caught.value),
    )


def test_special_tokens_without_embeddings_are_no_words_unless_a_text_has_one(
    tmp_path: Path,
) -> None:
    base = load(with_words(make_decoder(tmp_path), special=True))
    ids = base.tokenizer(["a good film", "a <image_soft_token> film"])["input_ids"]
    base.check_ids([np.asarray(ids[0])])
    with pytest.raises(ModelError, match="a text has the token '<image_soft_token>'"):
        base.check_ids([np.asarray(one) for one in ids])


def test_a_text_cannot_add_an_end_of_sequence_to_an_encoder_decoder(tmp_path: Path) -> None:
    """Their classifiers refuse batches with unlike numbers of them."""
    base = load(make_seq2seq(tmp_path))
    ids = base.tokenizer(["a good film", "a good [SEP] film"])["input_ids"]
    assert [row.count(3) for row in ids] == [1, 1]
