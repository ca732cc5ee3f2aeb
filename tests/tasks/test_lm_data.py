"""Data for language models: layouts of columns, duplicates, leakage, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import transformers

from builders import make_decoder
from peft_methods.data import splits, tokenize
from peft_methods.data.facts import TextData
from peft_methods.data.raw import RawData, RawTable
from peft_methods.recipes.language_data import LanguageData, template_fields
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.registry import TASKS, with_task
from peft_methods.utils.errors import DataError, OptionError

TASK = TASKS["causal_lm"]
SPEC = DataSpec("source", 10, 2, 2)


def parsed(columns: dict[str, list[Any]], spec: DataSpec = SPEC, **test: list[Any]) -> Any:
    tables = {"train": RawTable(columns)} | ({"test": RawTable(test)} if test else {})
    return TASK.parse(RawData(tables), spec)


def refused(columns: dict[str, list[Any]], spec: DataSpec = SPEC, **test: list[Any]) -> DataError:
    with pytest.raises(DataError) as caught:
        parsed(columns, spec, **test)
    assert "\n" not in str(caught.value)
    return caught.value


# layouts


def test_prompt_and_completion_are_joined_by_a_line_unless_they_have_white_space() -> None:
    found = parsed({"question": ["q1", "q2 ", "q3"], "answer": ["a1", "a2", " a3"]})
    assert found.tables["train"].texts == ["q1\n", "q2", "q3"]
    assert found.tables["train"].labels == ["a1", " a2", " a3"]
    assert found.label_names == ()
    assert "completion only" in found.notes[0]


def test_named_columns_win_over_known_ones() -> None:
    columns = {"prompt": ["p"], "completion": ["c"], "mine": ["m"], "yours": ["y"]}
    found = parsed(columns, replace(SPEC, prompt="mine", completion="yours"))
    assert (found.tables["train"].texts, found.tables["train"].labels) == (["m\n"], ["y"])


def test_a_template_splits_at_its_last_field() -> None:
    spec = replace(SPEC, template="Q: {q} {{x}} ({n}) -> {a} .")
    found = parsed({"q": ["why"], "n": [3], "a": ["so"]}, spec)
    assert found.tables["train"].texts == ["Q: why {x} (3) ->"]
    assert found.tables["train"].labels == [" so ."]


def test_numbers_can_be_answers() -> None:
    found = parsed({"question": ["1+1"], "answer": [2]})
    assert found.tables["train"].labels == ["2"]


def test_texts_are_learnt_whole() -> None:
    found = parsed({"text": ["a b", "c d"]})
    assert found.tables["train"].texts == ["a b", "c d"]
    assert found.tables["train"].labels == ["", ""]
    assert "all tokens" in found.notes[0]


def test_conversations_end_with_the_last_answer() -> None:
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
    ]
    table = parsed({"messages": [turns]}).tables["train"]
    assert table.labels == ["hello"]
    assert table.turns == [(("system", "be short"), ("user", "hi"))]
    assert table.texts == ["system: be short\nuser: hi"]


def test_test_rows_with_the_same_prompt_become_one_with_all_references() -> None:
    found = parsed({"mr": ["a", "a"], "ref": ["x", "y"]}, mr=["b", "c", "b"], ref=["1", "2", "3"])
    assert found.tables["train"].labels == ["x", "y"]
    assert found.tables["test"].texts == ["b\n", "c\n"]
    assert found.tables["test"].labels == [("1", "3"), "2"]
    assert "In the source 1 test prompt has several references" in found.notes[1]


def test_lists_of_references_in_a_column_of_the_test_rows() -> None:
    found = parsed({"mr": ["a"], "ref": ["x"]}, mr=["b"], refs=[["1", "2"]])
    assert found.tables["test"].labels == [("1", "2")]


# what is refused


@pytest.mark.parametrize(
    ("columns", "message", "setting"),
    [
        ({"a": ["x"], "b": ["y"]}, "no prompt column among a, b", "data.prompt"),
        ({"prompt": ["x"], "b": ["y"]}, "no completion column", "data.completion"),
        ({"prompt": ["x", "y"], "completion": ["c", " "]}, "empty or non-text 'completion'", ""),
        ({"prompt": ["", "y"], "completion": ["c", "d"]}, "empty or non-text 'prompt'", ""),
        ({"prompt": ["x"], "completion": [None]}, "row 0: ''", ""),
        ({"prompt": ["x"], "completion": [float("nan")]}, "row 0: ''", ""),  # null, in pandas
        ({"messages": [None]}, "it is missing", "data.messages"),
        ({"messages": [3.5]}, "it is a float", "data.messages"),
        (
            {"messages": [[{"role": "user", "content": "hi"}]]},
            "'messages' of row 0 of train has no turn of the role 'assistant'",
            "data.messages",
        ),
        (
            {"messages": [[{"from": "human", "value": "hi"}]]},
            "no list of turns with role and content.* with the keys from, value",
            "data.messages",
        ),
        (
            {"messages": [[{"role": "bot", "content": "hi"}]]},
            "role 'bot'. Allowed: system, user, assistant, tool",
            "data.messages",
        ),
        (
            {"messages": [[{"role": "assistant", "content": "hi"}]]},
            "no turn before its answer",
            "data.messages",
        ),
        ({"messages": ["hi"]}, "it is a str", "data.messages"),
        ({"messages": [[]]}, "it is empty", "data.messages"),
        (
            {"instruction": ["i"], "input": ["x"], "output": ["o"]},
            "'input' may belong to the prompt.*data.template",
            "data.template",
        ),
    ],
)
def test_bad_rows_give_one_line(columns: dict[str, list[Any]], message: str, setting: str) -> None:
    error = refused(columns)
    assert error.setting == setting
    assert pytest.importorskip("re").search(message, str(error)), str(error)


def test_plain_texts_are_not_ranked_by_what_is_generated() -> None:
    error = refused({"text": ["a", "b"]}, replace(SPEC, rank_by="rouge_l"))
    assert "nothing is generated from the plain text in 'text'" in str(error)
    assert error.setting == "data.rank_by"


def test_unknown_columns_of_a_template_are_named_with_the_nearest() -> None:
    error = refused(
        {"question": ["q"], "answer": ["a"]}, replace(SPEC, template="{questoin} {answer}")
    )
    assert "no column 'questoin'. Did you mean 'question'?" in str(error)
    assert error.setting == "data.template"


def test_references_that_are_no_texts_are_refused() -> None:
    error = refused({"mr": ["a"], "ref": ["x"]}, mr=["b"], refs=[[]])
    assert "'refs' of row 0 of test is no list of texts: []" in str(error)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no field", "has 0 usable fields"),
        ("{one}", "has 1 usable fields"),
        ("{a} {b!r}", "usable fields"),
        ("{a} {", "malformed"),
        ("{} {}", "usable fields"),
    ],
)
def test_templates_need_two_fields(template: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        LanguageData(template=template).check_language()
    assert caught.value.setting == "data.template"
    assert template_fields("{a} is {b}") == ("a", "b")


def test_answer_patterns_have_one_group() -> None:
    for pattern, message in (("(", "no regular expression"), ("#### .*", "has 0 groups")):
        with pytest.raises(OptionError, match=message) as caught:
            replace(SPEC, answer_pattern=pattern)
        assert caught.value.setting == "data.answer_pattern"


# splits


def write_rows(folder: Path, **tables: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def pair(prompt: str, completion: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def test_rows_are_duplicates_only_with_the_same_completion(tmp_path: Path) -> None:
    rows = [pair(f"p{i // 3}", f"c{i % 3}") for i in range(60)]
    folder = write_rows(
        tmp_path / "data",
        train=[*rows, rows[0]],
        validation=[pair("v", "c")],
        test=[pair("t", "c")],
    )
    data = splits.load(DataSpec(str(folder), "all", "all", "all"), TASK)
    assert len(data.splits["train"]) == 60
    assert data.facts.removed["repeated"] == 1
    assert data.facts.contradictory == 0


def test_train_rows_with_a_prompt_of_another_split_are_removed(tmp_path: Path) -> None:
    rows = [pair(f"p{i}", "c") for i in range(300)]
    folder = write_rows(
        tmp_path / "data",
        train=[*rows, pair("t1", "another")],
        test=[pair(f"t{i}", "c") for i in range(200)],
    )
    data = splits.load(DataSpec(str(folder), "all", 10, "all"), TASK)
    assert data.facts.removed["train_also_in_test"] == 1
    assert "t1\n" not in data.splits["train"].texts


def test_splits_cut_from_the_same_rows_share_no_prompt(tmp_path: Path) -> None:
    rows = [pair(f"p{i // 4}", f"c{i % 4}") for i in range(400)]
    folder = write_rows(tmp_path / "data", train=rows)
    spec = DataSpec(str(folder), 300, 41, 41, sizes="at_most")
    data = splits.load(spec, TASK)
    train = set(data.splits["train"].texts)
    for other in ("validation", "test"):
        assert not train & set(data.splits[other].texts)
    assert len(data.splits["train"]) >= 290


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_decoder(tmp_path_factory.mktemp("decoder") / "llama")
    return transformers.AutoTokenizer.from_pretrained(folder)


def loaded(tmp_path: Path, long: int) -> tuple[TextData, DataSpec]:
    """Load 160 train rows, of which so many are too long, and 20 for each other split."""
    rows = [
        pair("good " * (30 if i < long else 3) + chr(97 + i % 26) * (1 + i // 26), "end")
        for i in range(200)
    ]
    folder = write_rows(
        tmp_path / "data", train=rows[:160], validation=rows[160:180], test=rows[180:]
    )
    spec = DataSpec(str(folder), 160, 20, 20, max_length=16)
    return splits.load(spec, TASK), spec


def test_a_few_prompts_that_are_too_long_are_counted_and_said(
    tmp_path: Path, tokenizer: Any
) -> None:
    data, spec = loaded(tmp_path, 1)
    found = tokenize.tokenize(data, tokenizer, spec, TASK)
    assert found.facts.truncated["train"] == 1 / 160
    said = "1 of 160 prompts of train fill data.max_length = 16 tokens"
    assert any(note.startswith(said) for note in found.facts.notes)


def test_many_prompts_that_are_too_long_are_an_error(tmp_path: Path, tokenizer: Any) -> None:
    data, spec = loaded(tmp_path, 40)
    with pytest.raises(DataError, match=r"prompts of \w+ have 16 tokens or more.*Set data\.max"):
        tokenize.tokenize(data, tokenizer, spec, TASK)


def test_a_changed_chat_template_is_not_read_from_the_cache(tokenizer: Any) -> None:
    from peft_methods.models.tokenizer import tokenizer_digest

    before = tokenizer_digest(tokenizer)
    tokenizer.chat_template = "{{ messages }}"
    try:
        assert tokenizer_digest(tokenizer) != before
    finally:
        tokenizer.chat_template = None


# recipes, with a few rows in the hub's columns


def hub_copy(name: str, folder: Path) -> dict[str, str]:
    """Write rows as the hub has them. Return settings that read them."""
    answer = "It is {0}+{0}=<<{0}+{0}={1}>>{1}.\n#### {1}"
    math = [
        {"question": f"What is {i} plus {i}?", "answer": answer.format(i, 2 * i)} for i in range(80)
    ]
    if name == "gsm8k_sft":
        return {"data.source": _parquet(folder / "gsm8k", train=math[:60], test=math[60:])}
    if name == "metamath_gsm8k":
        rows = [
            {
                "type": "GSM_Rephrased",
                "query": f"Add {i} to {i}",
                "original_question": f"What is {i} plus {i}?",
                "response": f"{answer.format(i, 2 * i)}\nThe answer is: {2 * i}",
            }
            for i in range(60)
        ]
        return {
            "data.source": _parquet(folder / "metamath", train=rows),
            "data.test_source": _parquet(folder / "gsm8k", train=math[:60], test=math[60:]),
        }
    rows = [
        {
            "meaning_representation": f"name[Place {i // 2}], food[{'Thai' if i % 4 else 'Fish'}]",
            "human_reference": f"Place {i // 2} serves food, the {i % 2}.",
        }
        for i in range(80)
    ]
    return {
        "data.source": _parquet(
            folder / "e2e", train=rows[:44], validation=rows[44:60], test=rows[60:]
        )
    }


def _parquet(folder: Path, **tables: list[dict[str, Any]]) -> str:
    """Write Parquet files with the hub's names of shards."""
    folder.mkdir(parents=True)
    for split, rows in tables.items():
        pd.DataFrame(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.mark.parametrize("name", ["gsm8k_sft", "metamath_gsm8k", "e2e_nlg"])
def test_recipes_read_the_hubs_columns(tmp_path: Path, name: str, tokenizer: Any) -> None:
    settings = {**hub_copy(name, tmp_path), "data.sizes": "at_most"}
    recipe = with_task(
        load_recipe(name, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    )
    assert recipe.task == "causal_lm"
    data = splits.load(recipe.data, TASK)
    assert all(len(table) for table in data.splits.values())
    test = data.splits["test"]
    if name == "e2e_nlg":
        assert {len(label) for label in test.labels if isinstance(label, tuple)} == {2}
        assert test.texts[0].endswith(" ||")
    else:
        assert all("####" in label for label in test.labels)
        assert test.texts[0].startswith("Question: What is ")
    tokens = tokenize.tokenize(data, tokenizer, recipe.data, TASK)
    assert TASK.examples_in_rows(tokens.train) > 0
    assert recipe.ranking_metric != recipe.selection_metric
