"""Tiny models and data sets, built on the fly; everything heavy is imported once, before pytester runs pytest in here."""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401
import datasets  # noqa: F401
import pandas as pd
import peft  # noqa: F401
import pytest
import torch
import transformers
import typst  # noqa: F401
from hypothesis import settings

import peft_methods.api
import peft_methods.plugin
import peft_methods.report.paper
import peft_methods.report.plan
import peft_methods.report.table
import peft_methods.runner  # noqa: F401

settings.register_profile(
    "steady", deadline=None, derandomize=True
)  # the same cases every run, however slow the machine
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile("steady")
torch.set_num_threads(1)  # tiny models: threads only wait for each other
os.environ.pop(
    "PYTEST_XDIST_WORKER", None
)  # or pytest-benchmark would turn itself off in the pytest runs that tests start
gc.collect()
gc.freeze()  # as cells' processes do: each collection in a training would walk through all that was imported, for half a second

GOOD = ("good", "great", "fine", "superb")
BAD = ("bad", "awful", "poor", "dull")
FILLER = (
    "the",
    "film",
    "was",
    "a",
    "and",
    "its",
    "story",
    "actor",
    "scene",
    "music",
    "plot",
    "very",
    "so",
    "end",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (
    *SPECIAL,
    *GOOD,
    *BAD,
    *FILLER,
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
)

TINY = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64, "pad_token_id": 0}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**TINY, **SIZES),
    "roberta": lambda: transformers.RobertaConfig(**TINY, **SIZES, type_vocab_size=1),
    "mpnet": lambda: transformers.MPNetConfig(**TINY, **SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(
        **TINY, dim=32, n_layers=2, n_heads=2, hidden_dim=64
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A hanging test names itself; benchmarks may take as long as they take."""
    for item in items:
        if (
            item.path.is_relative_to(Path(__file__).parent)
            and item.get_closest_marker("timeout") is None
        ):
            item.add_marker(pytest.mark.timeout(300))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many cases the readers were given, and what became of them."""
    if (fuzzed := sys.modules.get("test_bad_input")) is not None and fuzzed.CASES:
        counts = fuzzed.CASES
        terminalreporter.write_line(
            f"{counts.total():,} cases of bad input: {counts['refused']:,} refused, {counts['accepted']:,} accepted"
        )


def make_model(folder: Path, kind: str = "bert", *, trained_pooler: bool = True) -> Path:
    """A pretrained-looking folder in hub layout: config, safetensors, WordPiece tokenizer."""
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(CONFIGS[kind]())
    if hasattr(model, "pooler") and trained_pooler:
        torch.nn.init.constant_(model.pooler.dense.bias, 1e-3)  # all zero would say "never trained"
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def make_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Distinct sentences whose label one word decides; balanced."""
    rng = random.Random(seed)
    seen: set[str] = set()
    rows: list[dict[str, object]] = []
    while len(rows) < count:
        label = len(rows) % 2
        words = rng.choices(FILLER, k=rng.randint(3, 9)) + rng.choices((BAD, GOOD)[label], k=3)
        rng.shuffle(words)
        text = " ".join(words)
        if text not in seen:
            seen.add(text)
            rows.append({"text": text, "label": label})
    return rows


def make_data(folder: Path, train: int = 240, test: int = 60, seed: int = 0) -> Path:
    """A data folder with train.jsonl and test.jsonl that share no text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(train + test, seed)
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (folder / f"{name}.jsonl").write_text(
            "\n".join(json.dumps(row) for row in part), encoding="utf-8"
        )
    return folder


def write_csv(folder: Path, **splits: list[dict[str, object]]) -> Path:
    """A data folder with one CSV file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pretrained folder of each family."""
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(root / kind, kind) for kind in CONFIGS}


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data folder."""
    return make_data(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="session")
def tiny_recipe(
    tiny_models: dict[str, Path], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A recipe with every method on the tiny model and data: seconds on any machine."""
    root = tmp_path_factory.mktemp("recipe")
    others = [make_data(root / f"source{i}", seed=i + 1) for i in range(2)]
    path = root / "tiny.toml"
    path.write_text(
        f"""
name = "tiny"
title = "Word lists"

[model]
source = "{tiny_models["bert"]}"

[data]
source = "{tiny_data}"
train = 160
validation = 30
test = 50
max_length = 16

[budget]
epochs = 2
batch_size = 8
seeds = 2
weight_decay = 0.01
warmup_ratio = 0.1

[methods.full]
learning_rate = 4e-3

[methods.head_only]
learning_rate = 5e-2

[methods.bitfit]
learning_rate = 5e-2

[methods.lora]
learning_rate = 5e-2
rank = 4
targets = ["query", "value"]

[methods.qlora]
learning_rate = 5e-2
rank = 4

[methods.ia3]
learning_rate = 1e-1

[methods.adapter]
learning_rate = 2e-2
reduction_factor = 4

[methods.adapter_fusion]
learning_rate = 1e-2
sources = ["{others[0]}", "{others[1]}"]
source_learning_rate = 2e-2
source_train = 40
source_validation = 20
reduction_factor = 4
""",
        encoding="utf-8",
    )
    return path
