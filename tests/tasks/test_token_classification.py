"""Token classification: what is read, which tokens carry labels, and scores as seqeval's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from builders import make_tagged_rows
from peft_methods.data import splits, tokenize
from peft_methods.data.facts import TextData
from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.token_rows import TokenRows
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.registry import TASKS
from peft_methods.tasks.tag_predictions import TagPredictions
from peft_methods.tasks.tag_rows import encode_words
from peft_methods.tasks.views import MatrixView, TableView
from peft_methods.utils.errors import DataError, ModelError

TASK = TASKS["token_classification"]
NAMES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
ROWS = make_tagged_rows(60)
Rows = Sequence[dict[str, Any]]


def spec_of(source: Path, **more: Any) -> DataSpec:
    return DataSpec(str(source), 20, 10, 10, **more)


def write(folder: Path, train: Rows, test: Rows) -> Path:
    for name, rows in (("train", train), ("test", test)):
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def with_ids(rows: Rows) -> datasets.Dataset:
    """Rows in the hub's layout of WNUT-17: ids, with the names of the tags in the features."""
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=list(NAMES))),
        }
    )
    columns = {
        "id": [str(i) for i in range(len(rows))],
        "tokens": [row["tokens"] for row in rows],
        "ner_tags": [[NAMES.index(tag) for tag in row["ner_tags"]] for row in rows],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def conll(rows: Rows) -> str:
    return "\n\n".join(
        "\n".join(f"{w} X {t}" for w, t in zip(row["tokens"], row["ner_tags"], strict=True))
        for row in rows
    )


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    parts = {"train": ROWS[:40], "test": ROWS[40:]}
    folders = [tmp_path / name for name in ("jsonl", "parquet", "conll", "txt")]
    for folder in folders:
        folder.mkdir()
    write(folders[0], ROWS[:40], ROWS[40:])
    for name, rows in parts.items():
        with_ids(rows).to_parquet(folders[1] / f"{name}-00000-of-00001.parquet")
        (folders[2] / f"{name}.conll").write_text(conll(rows), encoding="utf-8")
        (folders[3] / f"{name}.txt").write_text(conll(rows), encoding="utf-8")
    saved = datasets.DatasetDict({name: with_ids(rows) for name, rows in parts.items()})
    saved.save_to_disk(tmp_path / "saved")
    found = [splits.load(spec_of(one), TASK) for one in (*folders, tmp_path / "saved")]
    assert found[0].facts.label_names == NAMES
    assert found[0].facts.notes == ()
    first = found[0].splits["test"]
    assert first.words is not None
    tags = {" ".join(row["tokens"]): row["ner_tags"] for row in ROWS}
    for text, words, labels in zip(first.texts, first.words, first.labels, strict=True):
        assert text == " ".join(words)
        assert [NAMES[label] for label in labels] == tags[text]
    for one in found[1:]:
        assert one.splits == found[0].splits
        assert one.facts.label_names == NAMES


GOOD = {"tokens": ["the", "plot"], "ner_tags": ["O", "B-LOC"]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"tokens": ["a", "b"], "ner_tags": ["O"]},
            r"1 of 41 rows in train of .* have unlike numbers of words and tags \(the first is row "
            r"40: 2 'tokens' and 1 'ner_tags'\)\. Give every word one tag\.",
        ),
        ({"tokens": [], "ner_tags": []}, r"1 of 41 rows in train .* have no words .* row 40"),
        ({"tokens": [" "], "ner_tags": ["O"]}, r"1 of 41 rows in train .* have no words"),
        (
            {"tokens": ["a", 3], "ner_tags": ["O", "O"]},
            r"word 1 of 'tokens' in row 40 .* is 3, not",
        ),
        ({"tokens": ["\ud800"], "ner_tags": ["O"]}, r"word 0 of .* is '\\ud800', not a text"),
        ({"tokens": "a b", "ner_tags": ["O", "O"]}, r"'tokens' in row 40 .* is 'a b', not a list"),
        ({"tokens": ["a"], "ner_tags": "O"}, r"'ner_tags' in row 40 .* not a list .* CoNLL"),
        (
            {"tokens": ["a"], "ner_tags": [None]},
            r"tag 0 of 'ner_tags' in row 40 .* is None\. A tag",
        ),
        ({"tokens": ["a"], "ner_tags": [""]}, r"tag 0 of .* is ''\. A tag should be a text such"),
        ({"tokens": ["a"], "ner_tags": [-100]}, r"is -100, which marks tokens without a label"),
        (
            {"tokens": ["a"], "ner_tags": [3]},
            r"is the number 3, and the data set declares no names",
        ),
        ({"tokens": ["a"], "ner_tags": [True]}, r"is True\. A tag should be a text"),
        ({"tokens": ["a"], "ner_tags": ["B-"]}, r"the tag 'B-' has no type after its prefix"),
    ],
)
def test_bad_rows_are_refused_in_one_line(
    tmp_path: Path, bad: dict[str, Any], message: str
) -> None:
    write(tmp_path, [*ROWS[:40], bad], ROWS[40:])
    with pytest.raises(DataError, match=message) as refused:
        splits.load(spec_of(tmp_path), TASK)
    assert "\n" not in str(refused.value)


def test_types_that_train_lacks_and_splits_without_entities_are_refused(tmp_path: Path) -> None:
    odd = {"tokens": ["so", "plot"], "ner_tags": ["O", "B-ORG"]}
    write(tmp_path, ROWS[:40], [*ROWS[40:], odd])
    with pytest.raises(DataError, match=r"entities of type 'ORG' in test \(1\) do not occur in tr"):
        splits.load(spec_of(tmp_path), TASK)
    empty = [{"tokens": ["so", str(i)], "ner_tags": ["O", "O"]} for i in range(20)]
    write(tmp_path, ROWS[:40], empty)
    with pytest.raises(DataError, match=r"the 10 rows of test have no entity") as refused:
        splits.load(spec_of(tmp_path), TASK)
    assert refused.value.setting == "data.test"


def test_columns_can_be_named_and_missing_ones_are_reported(tmp_path: Path) -> None:
    rows = [{"w": row["tokens"], "t": row["ner_tags"], "tokens": "x"} for row in ROWS]
    write(tmp_path, rows[:40], rows[40:])
    found = splits.load(spec_of(tmp_path, text="w", label="t"), TASK)
    assert found.facts.label_names == NAMES
    with pytest.raises(DataError, match=r"no label column among w, t, tokens\. Set data\.label"):
        splits.load(spec_of(tmp_path), TASK)


def encoded(
    tokenizer: Any, words: list[str], tags: list[int], cut: int | None = None
) -> tuple[TokenRows, list[int]]:
    table = LabelledTexts([" ".join(words)], [tuple(tags)], words=[tuple(words)])
    rows = encode_words(table, tokenizer, cut)
    batch = TASK.collator(tokenizer)([rows[0]])
    return rows, batch["labels"][0].tolist()


def test_the_first_token_of_each_word_carries_its_label(tiny_models: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_models["bert"])
    rows, labels = encoded(tokenizer, ["the", "abc", "plot"], [0, 3, 1])
    tokens = tokenizer.convert_ids_to_tokens(rows.tokens["input_ids"][0])
    assert tokens == ["[CLS]", "the", "a", "##b", "##c", "plot", "[SEP]"]
    assert labels == [-100, 0, 3, -100, -100, 1, -100]
    assert TASK.examples_in_rows(rows) == 3


def test_words_without_a_token_have_no_label(tiny_models: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_models["bert"])
    rows, labels = encoded(tokenizer, ["the", "\u200b", "plot"], [0, 3, 1])
    assert labels == [-100, 0, 1, -100]
    assert rows.tokens["tags"][0].tolist() == [0, 3, 1]


def byte_level() -> Any:
    """A tokenizer as RoBERTa's: without a blank before a word it is another token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>", "<pad>", "</s>", "<unk>"]
    )
    backend.train_from_iterator([" the plot was the plot"] * 9, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


def test_byte_level_tokenizers_read_words_as_within_a_text() -> None:
    tokenizer = byte_level()
    rows, labels = encoded(tokenizer, ["the", "plot"], [0, 1])
    assert rows.tokens["input_ids"][0].tolist() == tokenizer(" the plot")["input_ids"]
    assert labels == [0, 1]


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    from transformers.tokenization_python import PythonBackend

    class Slow(PythonBackend):
        def get_vocab(self) -> dict[str, int]:
            return {}

    tokenizer = Slow()
    table = LabelledTexts(["a"], [(0,)], words=[("a",)])
    with pytest.raises(ModelError, match=r"Slow is a slow tokenizer, .*tokenizer\.json") as refused:
        encode_words(table, tokenizer, None)
    assert refused.value.setting == "model.source"


def test_words_that_are_cut_off_are_counted_and_missed(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    long = [
        {
            "tokens": ["the", *["so"] * i, "plot", "end"],
            "ner_tags": ["O", *["O"] * i, "B-LOC", "I-LOC"],
        }
        for i in range(60)
    ]
    write(tmp_path, long[:30], long[30:40])
    spec = replace(spec_of(tmp_path), max_length=36)
    texts = splits.load(spec, TASK)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_models["bert"])
    data = tokenize.tokenize(texts, tokenizer, spec, TASK)
    # 36 tokens are 34 words: of the test rows' 33 to 42 words all but the first two rows are cut
    assert data.facts.notes == (
        "Not read, because they are cut off by data.max_length = 36 or have no token: 36 words and "
        "8 entities in test. In validation and test they count as errors.",
    )
    right = [torch.full((1, 36, 5), -9.0) for _ in range(10)]
    for row, one in enumerate(right):
        labels = TASK.collator(tokenizer, 36)([data.test[row]])["labels"][0]
        for place, label in enumerate(labels.tolist()):
            one[0, place, max(label, 0)] = 9.0
    found = TASK.gather(right, np.arange(10), data.test)
    scores = TASK.evaluate(found, texts.facts.label_names).scores
    assert scores["entity_recall"] == pytest.approx(0.2)
    assert scores["token_accuracy"] == pytest.approx(1 - 36 / sum(range(33, 43)))
    assert found.loss < 1e-6


def predictions(true: list[list[int]], predicted: list[list[int]]) -> TagPredictions:
    flat = [np.array([tag for one in rows for tag in one], np.int64) for rows in (predicted, true)]
    return TagPredictions(*flat, np.array([len(one) for one in true]), 0.5)


TAG_PAIRS = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=8),
    min_size=1,
    max_size=8,
)


@given(TAG_PAIRS)
def test_scores_are_those_of_seqeval_and_average_to_them(
    rows: list[list[tuple[int, int]]],
) -> None:
    made = predictions([[t for t, _ in row] for row in rows], [[p for _, p in row] for row in rows])
    true = [[NAMES[t] for t, _ in row] for row in rows]
    guessed = [[NAMES[max(p, 0)] for _, p in row] for row in rows]
    expected = {
        "entity_f1": f1_score(true, guessed, zero_division=0),
        "entity_precision": precision_score(true, guessed, zero_division=0),
        "entity_recall": recall_score(true, guessed, zero_division=0),
        "token_accuracy": float(np.mean([t == p for row in rows for t, p in row])),
    }
    assert TASK.scores(made) == pytest.approx(expected)
    for name, value in expected.items():
        scores = TASK.example_scores(made, name)
        assert scores.shape == (len(rows),)
        assert scores.mean() == pytest.approx(value)
    found = TASK.evaluate(made, NAMES)
    assert found.scores == pytest.approx(expected)
    words = np.array(found.details["type_confusion"])
    assert words.sum() == sum(map(len, rows))
    assert words[:, -1].sum() == sum(p <= 0 for row in rows for _, p in row)


def test_influences_of_sentences_predict_the_effect_of_leaving_one_out() -> None:
    """The score minus the mean is the jackknife's pseudo-value, to first order in 1 / n."""
    rng = np.random.default_rng(0)
    true = [rng.integers(0, 5, 9).tolist() for _ in range(400)]
    guessed = [[t if rng.random() < 0.8 else int(rng.integers(0, 5)) for t in row] for row in true]
    whole = predictions(true, guessed)
    scores = TASK.example_scores(whole, "entity_f1")
    for left in (0, 7, 399):
        less = predictions(true[:left] + true[left + 1 :], guessed[:left] + guessed[left + 1 :])
        change = TASK.scores(whole)["entity_f1"] - TASK.scores(less)["entity_f1"]
        assert change == pytest.approx((scores[left] - scores.mean()) / 400, rel=0.05, abs=1e-6)


def test_the_trivial_baseline_is_that_of_no_entity(tmp_path: Path) -> None:
    write(tmp_path, ROWS[:40], ROWS[40:])
    texts: TextData = splits.load(spec_of(tmp_path), TASK)
    labels = [list(one) for one in texts.splits["test"].labels]
    nothing = predictions(labels, [[0] * len(one) for one in labels])
    assert texts.facts.trivial_baseline == pytest.approx(TASK.scores(nothing))
    assert texts.facts.trivial_baseline["entity_f1"] == 0


def test_views_have_the_scores_of_each_type_and_the_confused_words() -> None:
    made = predictions([[0, 1, 2, 3]], [[0, 1, 2, 1]])
    table, matrix = TASK.views([TASK.evaluate(made, NAMES).plain()] * 2)
    assert isinstance(table, TableView)
    assert isinstance(matrix, MatrixView)
    assert table.rows == ("LOC", "PER")
    assert table.values == ((0.5, 1.0, pytest.approx(2 / 3), 1.0), (0.0, 0.0, 0.0, 1.0))
    assert matrix.labels == ("LOC", "PER", "no entity")
    assert matrix.counts == ((4, 0, 0), (2, 0, 0), (0, 0, 2))
    assert "PER predicted as LOC, 2 of 2 words" in matrix.description


@pytest.mark.parametrize(
    "changed",
    [
        {"lengths": np.array([2])},
        {"predicted": np.array([0, 1, -2])},
        {"labels": np.array([0, 1, -1])},
        {"predicted": np.zeros(3)},
        {"loss": np.zeros(2)},
    ],
)
def test_damaged_predictions_are_refused(changed: dict[str, Any]) -> None:
    sound = dict(predictions([[0, 1], [2]], [[0, 1], [-1]]).arrays())
    again = TASK.restore(sound.__getitem__)
    assert again.labels.tolist() == [[0, 1], [2, -100]]
    with pytest.raises(ValueError, match="it must hold predicted and labels of shape"):
        TASK.restore({**sound, **changed}.__getitem__)


def test_logits_that_are_not_finite_are_noticed() -> None:
    rows = TokenRows.of({"input_ids": [[1, 2]], "words": [[0, 1]], "tags": [[0, 1]]}, None)
    outputs = torch.zeros(1, 2, 5)
    assert TASK.gather([outputs], np.arange(1), rows).is_finite
    outputs[0, 1, 3] = torch.nan
    assert not TASK.gather([outputs], np.arange(1), rows).is_finite
