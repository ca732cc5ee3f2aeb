"""Thousands of bad inputs. Every parser refuses them in one line, or parses them correctly.

`pytest tests/test_bad_input.py` prints how many cases were refused and accepted.
`--hypothesis-profile=long` generates forty times as many, different ones each time.
"""

from __future__ import annotations

import copy
import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from _pytest.config.argparsing import Parser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builders import TASK, make_rows, records_of
from peft_methods.analysis.baseline import read_baseline
from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.rule import parse_silenced
from peft_methods.analysis.constraints import parse_constraints
from peft_methods.analysis.external.audit import check_table
from peft_methods.analysis.external.tables import read_tables
from peft_methods.analysis.regression import RegressionCheck
from peft_methods.analysis.tolerances import parse_tolerances
from peft_methods.cli.arguments import add_options
from peft_methods.cli.benchmark_json import extra_info
from peft_methods.cli.options import read_options
from peft_methods.cli.parsing import names_of, parse_seeds
from peft_methods.data.sources import read_source
from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import apply_setting, find_recipe, load_recipe
from peft_methods.recipes.schema import DataSpec, Recipe
from peft_methods.runs.store import Store
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.utils import units
from peft_methods.utils.errors import PeftMethodsError
from peft_methods.utils.validation import build

T = TypeVar("T")
CASES: Counter[str] = Counter()  # number of cases by outcome; conftest.py prints it


def many(count: int) -> settings:
    """Return Hypothesis settings with this many cases.

    It is that for a profile with 100 cases a test; other profiles scale it.
    """
    return settings(
        max_examples=count * settings().max_examples // 100, suppress_health_check=list(HealthCheck)
    )


def outcome(call: Callable[[], T], *named: object) -> T | None:
    """Return the result of the call, or None if it was refused.

    A refusal must be one line that contains every one of `named`. No other exception may be raised.
    """
    try:
        value = call()
    except PeftMethodsError as error:
        text = str(error)
        assert text
        assert text.splitlines() == [text]
        assert not [name for name in named if str(name) not in text], text
        CASES["refused"] += 1
        return None
    CASES["accepted"] += 1
    return value


NASTY = st.sampled_from(
    [
        "", " ", "\x00", "\ud800", "\x1b[2J", "nan", "-1", "0", "1e999", "9" * 5000,
        "[" * 5000, "{" * 5000, "=", ",", ":", "3,", "٣", "²",
        "1_000", "0x10", "true", "null",
        "../..", "/" * 300, "a" * 300, "\u202e", "🤖", "'", '"', "# x",
        "1979-05-27", "inf", "-inf", "%", "é",
    ]
)  # fmt: skip
texts = st.text(max_size=12) | NASTY
numbers = st.integers() | st.integers(-(10**400), 10**400) | st.floats()
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def damaged_json(draw: st.DrawFn, whole: Any) -> Any:
    """A JSON value in which one to three places are replaced, removed or extended."""
    changed = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        place, inner = changed, changed
        while (
            isinstance(inner, (dict, list))
            and inner
            and (inner is changed or draw(st.integers(0, 3)))
        ):
            place = inner
            key: Any = (
                draw(st.sampled_from(sorted(place, key=str)))
                if isinstance(place, dict)
                else draw(st.integers(0, len(place) - 1))
            )
            inner = place[key]
        if not isinstance(place, (dict, list)) or not place:
            return draw(values)
        how = draw(st.sampled_from(["other", "other", "less", "more"]))
        if how == "other":
            place[key] = draw(values)
        elif how == "less":
            del place[key]
        elif isinstance(place, dict):
            place[draw(texts)] = draw(values)
        else:
            place.append(draw(values))
    return changed


@st.composite
def damaged_text(draw: st.DrawFn, whole: str) -> bytes:
    """A text in which a part is replaced by other bytes, or that is truncated."""
    content = whole.encode()
    start = draw(st.integers(0, len(content)))
    if draw(st.integers(0, 3)) == 0:
        return content[:start]
    new = draw(st.binary(max_size=6) | texts.map(lambda text: text.encode(errors="surrogatepass")))
    return content[:start] + new + content[start + draw(st.integers(0, 12)) :]


def same(one: Any, other: Any) -> bool:
    """Whether the values are equal; nan equals nan."""
    return repr(one) == repr(other)


# numbers and options


numberlike = st.lists(
    st.sampled_from(
        [
            "1",
            "0.5",
            "124,647",
            "1 000",
            "e",
            "-",
            "±",
            "%",
            " ",
            "m",
            "min",
            "GB",
            "k",
            "~",
            ".",
            "+",
            "9" * 320,
            "e300",
            "–",
        ]
    ),
    max_size=5,
).map("".join)


@many(2200)
@given(numberlike | texts, st.sampled_from(list(units.UNITS)))
@example("9" * 308 + " h", "seconds")
@example("0.0" + "9" * 400, "plain")
def test_parse_quantity_with_random_text(text: str, kind: str) -> None:
    """Oracle: missing, or finite, not negative and within the precision of its digits."""
    found = outcome(lambda: units.parse(text, kind))
    if found is not None:
        assert kind in units.SIGNED or found.value >= 0
        assert found.low <= found.value <= found.high < math.inf
        assert found.spread is None or 0 <= found.spread < math.inf


@many(500)
@given(st.lists(numberlike | texts, max_size=4).map(";".join), st.sampled_from(list(units.UNITS)))
def test_parse_series_with_random_text(text: str, kind: str) -> None:
    """Oracle: a tuple of quantities. Only a loss may be nan or infinite."""
    for one in outcome(lambda: units.parse_series(text, kind)) or ():
        assert kind == "loss" or math.isfinite(one.value)


@many(500)
@given(st.lists(st.integers(-2, 99).map(str) | texts, max_size=4).map(",".join) | texts)
@example("9" * 5000)
@example("1001")
def test_parse_seeds_with_random_text(text: str) -> None:
    """Oracle: a count >= 1 or a list of numbers >= 0, which survives a round trip.

    A refusal names the option.
    """
    found = outcome(lambda: parse_seeds(text), "seeds")
    if isinstance(found, list):
        assert found
        assert min(found) >= 0
        assert parse_seeds(",".join(map(str, found)) + ",") == found
    elif found is not None:
        assert found >= 1
        assert parse_seeds(str(found)) == found


@many(800)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*METRICS, ""]) | texts,
            numberlike | texts,
            st.sampled_from(["pp", "%", ""]),
        ).map(lambda parts: f"{parts[0]}:{parts[1]}{parts[2]}")
        | texts,
        min_size=1,
        max_size=3,
    )
)
@example([f"train_seconds:{'9' * 400}%"])
def test_parse_tolerances_with_random_text(given_texts: list[str]) -> None:
    """Oracle: known metrics, each once, with finite amounts. A refusal names the option."""
    for one in outcome(lambda: parse_tolerances(given_texts), "tolerance") or ():
        assert one.metric in METRICS
        assert 0 <= one.amount < math.inf


@many(500)
@given(
    st.lists(
        st.tuples(st.sampled_from(["memory", "time"]) | texts, numberlike | texts).map("=".join)
        | texts,
        max_size=3,
    ).map(",".join)
)
@example(f"memory={'9' * 400}GB")
def test_parse_limits_with_random_text(text: str) -> None:
    """Oracle: finite limits above zero. A refusal names the option."""
    for name, limit in (outcome(lambda: parse_constraints(text), "budget") or {}).items():
        assert name in {"memory", "time"}
        assert 0 < limit.most < math.inf


@many(200)
@given(
    st.lists(st.sampled_from(["lora", "full", " ia3 ", "a,b", ","]) | texts, min_size=1, max_size=3)
)
def test_names_of_with_random_text(given_texts: list[str]) -> None:
    """Oracle: distinct names without surrounding spaces, which survive a round trip."""
    found = outcome(lambda: names_of(given_texts, "method"), "method")
    assert found is None or names_of([",".join(found)], "") == found


@many(200)
@given(st.lists(st.sampled_from([*RULES, "v101"]) | texts, max_size=3).map(",".join))
def test_silenced_with_random_text(text: str) -> None:
    """Oracle: ids of rules. A refusal names the option."""
    assert set(outcome(lambda: parse_silenced(text), "silence") or ()) <= set(RULES)


OPTIONS = ("recipe", "method", "seeds", "vary", "set", "model", "weights", "data",
           "results", "workers", "devices", "engine", "tune", "silence", "baseline",
           "fail", "save-baseline", "budget", "markdown", "csv", "save-models")  # fmt: skip


@many(300)
@given(
    st.dictionaries(
        st.sampled_from(OPTIONS), texts | numberlike | st.just("lora"), min_size=1, max_size=2
    )
)
@example({"save-models": "\x00"})
@example({"recipe": "a" * 300 + ".toml"})
@example({"recipe": "\x00.toml"})
@example({"baseline": "a" * 300})
@example({"markdown": "\x00"})
@example({"tune": "9" * 5000})
@example({"workers": "9" * 5000})
@example({"set": "name=\ud800"})
def test_read_options_with_random_values(
    tmp_path_factory: pytest.TempPathFactory, arguments: dict[str, str]
) -> None:
    """Oracle: parsed options or a refusal; no other exception, whatever the text."""
    parser = Parser(_ispytest=True)
    add_options(parser)
    parser.addoption("--markexpr", dest="markexpr", default="")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.getbasetemp())
        config: Any = type(
            "Config",
            (),
            {
                "option": parser.parse(
                    [f"--peft-{name}={value}" for name, value in arguments.items()]
                )
            },
        )
        outcome(lambda: read_options(config))


# recipes

RECIPE = find_recipe("embedded").read_text(encoding="utf-8")
PLAIN_RECIPE = tomllib.loads(RECIPE)


@many(800)
@given(st.binary(max_size=40) | damaged_text(RECIPE))
@example(b"a = " + b"[" * 3000)
@example(b"a = " + b"9" * 5000)
@example(b"\xff\xfe")
def test_load_recipe_with_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Oracle: a refusal with the file's name, or a recipe with existing methods."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    recipe = outcome(lambda: load_recipe(str(path)), "fuzzed.toml")
    assert recipe is None or recipe.methods


@many(800)
@given(damaged_json(PLAIN_RECIPE))
@example({**PLAIN_RECIPE, "name": "\ud800"})
@example({**PLAIN_RECIPE, "budget": {**PLAIN_RECIPE["budget"], "seeds": 10**9}})
def test_build_recipe_with_damaged_values(plain: Any) -> None:
    """Oracle: a refusal with the place, or a recipe that survives a round trip.

    Its methods are built or refused too.
    """
    if isinstance(plain, dict):
        recipe = outcome(lambda: build(Recipe, plain, "fuzzed.toml"), "fuzzed.toml")
        if recipe is not None:
            assert same(build(Recipe, asdict(recipe), "again"), recipe)
            assert len(recipe.budget.seed_list()) <= 1000
            outcome(lambda: chosen_methods(recipe, None))


@many(700)
@given(
    st.lists(
        st.sampled_from(["budget", "epochs", "methods", "lora", "name", ""]) | texts, max_size=4
    ).map(".".join)
    | texts,
    texts | numberlike,
)
@example("budget.epochs", "[" * 5000)
@example("budget.epochs", "9" * 5000)
def test_apply_setting_with_random_text(key: str, value: str) -> None:
    """Oracle: a refusal with the setting, or the value at the place of its key.

    A quoted text is parsed unchanged.
    """
    plain = copy.deepcopy(PLAIN_RECIPE)
    if outcome(lambda: apply_setting(plain, f"{key}={value}") or plain, "setting") is not None:
        inner: Any = plain
        for part in f"{key}={value}".partition("=")[0].split("."):
            inner = inner[part.strip()]
    if value.isprintable():
        apply_setting(plain, f"title={json.dumps(value, ensure_ascii=False)}")
        assert plain["title"] == value


# records, baselines and predictions

RECORD = json.loads(json.dumps(records_of("lora")[0].to_json()))
FIRST, *_ = RECORDS = records_of("lora")
BASELINE = {
    "datetime": "2026-01-01", "commit_info": {"id": "abc"}, "version": "5",
    "benchmarks": [{"name": "lora", "extra_info": json.loads(json.dumps(extra_info(RECORDS)))}],
}  # fmt: skip


@many(900)
@given(damaged_json(RECORD).map(json.dumps).map(str.encode) | damaged_text(json.dumps(RECORD)))
@example(b"[" * 100_000)
@example(json.dumps(RECORD | {"schema_version": "x"}).encode())
@example(json.dumps(RECORD | {"schema_version": "2"}).encode())
@example(json.dumps(RECORD | {"spec": {}}).encode())
@example(json.dumps(RECORD | {"message": "\ud800"}).encode())
def test_store_reads_or_refuses_damaged_records(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Oracle: a refusal with the file's name, or a record that survives a round trip."""
    path = tmp_path_factory.getbasetemp() / f"{RECORD['fingerprint']}.json"
    path.write_bytes(content)
    store = Store(path.parent)
    record = outcome(lambda: store.read(path), path.name)
    if record is not None:
        assert record.recipe_name
        path.write_text(json.dumps(record.to_json()), encoding="utf-8")
        assert same(store.read(path), record)


@many(700)
@given(damaged_json(BASELINE).map(json.dumps).map(str.encode) | damaged_text(json.dumps(BASELINE)))
@example(b"[" * 100_000)
@example(b'{"benchmarks": [' + b"9" * 5000 + b"]}")
def test_read_baseline_with_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Oracle: a refusal with the option and the file, or entries with seeds.

    A session can be checked against such a baseline.
    """
    path = tmp_path_factory.getbasetemp() / "fuzzed-baseline.json"
    path.write_bytes(content)
    baseline = outcome(lambda: read_baseline(path), "baseline", "fuzzed-baseline.json")
    if baseline is not None:
        assert all(entry.seeds for entry in baseline.entries.values())
        RegressionCheck({"embedded": baseline}, None, True, True).check_method(RECORDS)


@many(150)
@given(st.data())
def test_store_reads_or_refuses_damaged_predictions(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Oracle: a refusal with the file's name, or a numbered class for every row."""
    store = Store(tmp_path_factory.getbasetemp())
    store.write(FIRST, ClassPredictions(np.ones((3, 2), np.float32), np.asarray([0, 1, 1])))
    path = store.folder / f"{FIRST.fingerprint}.npz"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        bytes(
            content[: data.draw(st.integers(0, len(content)))]
            if data.draw(st.booleans())
            else content
        )
    )
    found = outcome(lambda: store.read_predictions(FIRST), path.name)
    if found is not None:
        assert len(found.labels) == len(found.predicted)


# tables made elsewhere

HEADERS = ("method", "Method", "accuracy", "acc %", "trainable params", "train time (min)",
           "memory_mb", "memory", "epochs", "lr",
           "val_losses", "test_class_counts", "model", "learning_rates", "?", "")  # fmt: skip
CELLS = st.sampled_from(
    [
        "LoRA",
        "full",
        "0.93",
        "93.3",
        "1.48M",
        "0.3;0.2",
        "2e-5",
        "roberta-base",
        "nan",
        "inf",
        "–",
        "67 min",
        "=1+1",
        "0,93",
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """A CSV table. Usually all lines have the same number of fields."""
    width = draw(st.integers(1, 4))
    header = draw(st.lists(st.sampled_from(HEADERS) | texts, min_size=width, max_size=width))
    rows = draw(
        st.lists(st.lists(CELLS | numberlike | texts, min_size=width, max_size=width), max_size=3)
    )
    separator = draw(st.sampled_from([",", ",", ";", "\t"]))
    return "\n".join(
        separator.join(line)
        for line in (["method", *header] if draw(st.booleans()) else header, *rows)
    )


JSON_TABLE = [
    {"method": "LoRA", "accuracy": 0.9, "val_losses": [0.3, 0.2], "trainable": "1.48M"},
    {"method": "full", "accuracy": "93%"},
]


@many(750)
@given(
    tables().map(lambda text: text.encode(errors="surrogatepass"))
    | damaged_json(JSON_TABLE).map(json.dumps).map(str.encode)
    | st.binary(max_size=30)
)
@example(b"[" * 100_000)
@example(b"method,accuracy\n\x00,1")
@example(b'"\n')
@example(b",\n")
@example(b"# ")
def test_read_table_with_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Oracle: a refusal with the file's name, or named rows that the rules can check."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.table"
    path.write_bytes(content)
    table = outcome(lambda: read_tables(path)[0], "fuzzed.table")
    if table is not None:
        assert all(row.name for row in table.rows)
        assert all(len(str(finding).splitlines()) == 1 for finding in check_table(table.rows, ()))


# data

ROWS = make_rows(6)


def check_readable(folder: Path, *named: object) -> None:
    """Oracle: a refusal that contains `named`, or valid splits.

    They have as many labels as texts, no empty texts, and a name for every label.
    """
    spec = DataSpec(str(folder), 2, 1, 1)
    found = outcome(lambda: TASK.parse(read_source(spec), spec), *named)
    if found is not None:
        names = found.label_names
        for table in found.tables.values():
            assert len(table.texts) == len(table.labels)
            assert all(text.strip() and text.encode() for text in table.texts)
            assert all(0 <= label < len(names) for label in table.labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a sound test split."""
    return tmp_path_factory.mktemp("fuzzed-data")


def write_only(folder: Path, name: str, content: bytes) -> None:
    for old in folder.iterdir():
        old.unlink()
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (folder / name).write_bytes(content)


LINES = pd.DataFrame(ROWS).to_csv(index=False)


@many(250)
@given(
    damaged_text(LINES)
    | tables().map(lambda text: text.encode(errors="surrogatepass"))
    | st.binary(max_size=60),
    st.sampled_from(["csv", "tsv"]),
)
@example(b"text,text,label\na,b,1\n", "csv")
@example(b"text,label\n" + b"a" * 200_000 + b",1\n", "csv")
@example("text,label\nna\u00efve,1\n".encode("latin-1"), "csv")
@example("text,label\na,1\n".encode("utf-16"), "csv")
@example(b"", "csv")
def test_read_source_with_damaged_delimited_file(folder: Path, content: bytes, kind: str) -> None:
    write_only(folder, f"train.{kind}", content)
    check_readable(folder, folder.name)


@many(450)
@given(
    damaged_json(ROWS).map(
        lambda rows: "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows])).encode()
    )
    | damaged_text("\n".join(map(json.dumps, ROWS)))
)
@example(b'{"text": "a", "label": Infinity}')
@example(b'{"text": "a", "label": 1e400}')
@example(b'{"text": "a", "label": {"a": 1}}')
@example(b'{"text": "a", "label": 1}\n' + b"[" * 100_000)
@example(b'{"text": "\\ud800", "label": 1}')
@example(b'{"text": "a", "label": "\xc2\xb2"}')
@example(b'{"text": "a", "label": "--1"}')
@example(b'{"text": "a", "label": "' + b"9" * 5000 + b'"}')
def test_read_source_with_damaged_json_lines(folder: Path, content: bytes) -> None:
    write_only(folder, "train.jsonl", content)
    check_readable(folder, folder.name)


COLUMN = st.lists(
    leaves.filter(lambda leaf: not isinstance(leaf, int)) | st.integers(-3, 3),
    min_size=4,
    max_size=4,
)


@many(40)
@given(COLUMN, COLUMN, st.binary(max_size=8), st.integers(0, 400))
def test_read_source_with_damaged_parquet_file(
    folder: Path, texts_given: list[Any], labels: list[Any], new: bytes, place: int
) -> None:
    path = folder / "train.parquet"
    write_only(folder, path.name, b"")
    try:
        pd.DataFrame({"text": texts_given, "label": labels}).to_parquet(path)
    except Exception:  # Parquet has no columns of mixed types or unpaired surrogates
        pd.DataFrame(ROWS).to_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[:place] + new + content[place + len(new) :] if new else content)
    check_readable(folder, folder.name)
