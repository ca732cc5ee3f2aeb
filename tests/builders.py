"""Builders that tests share: tiny models, data folders, records, comparisons and trained models."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from peft_methods.__main__ import main
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.constraints import parse_constraints
from peft_methods.analysis.margin import MARGIN
from peft_methods.api import PrintableComparison
from peft_methods.capabilities.tiny import (  # noqa: F401  # tests import all of them from here
    make_any,
    make_decoder,
    make_model,
    make_seq2seq,
    words_tokenizer,
    write_example,
)
from peft_methods.capabilities.tiny_configs import (  # noqa: F401
    BAD,
    CONFIGS,
    DECODER,
    DECODER_ENDS,
    DECODERS,
    ENDS,
    FILLER,
    GOOD,
    MORE_CONFIGS,
    RELATIVE,
    SEQ2SEQ,
    SIZES,
    TINY,
    VOCABULARY,
)
from peft_methods.data import splits, tokenize
from peft_methods.methods.registry import METHODS
from peft_methods.methods.selection import chosen_methods
from peft_methods.models import loading
from peft_methods.plugin import EXPERIMENT
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import load_recipe
from peft_methods.recipes.schema import DataSpec
from peft_methods.runs import pipeline, run_paths
from peft_methods.runs.apply_context import context_of
from peft_methods.runs.record import Record, record_without_result
from peft_methods.runs.results import Results
from peft_methods.runs.spec import RunSpec, run_specs
from peft_methods.runs.store import Store
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.tasks.registry import TASKS, task_of, with_task
from peft_methods.training.cuda_graphs.loop import CudaGraphsTrainer
from peft_methods.training.engine import EpochResult, NoTrace, TrainingJob
from peft_methods.training.evidence import Evidence
from peft_methods.training.trainer import loop

with warnings.catch_warnings():  # of a deprecated function of torch
    warnings.simplefilter("ignore", DeprecationWarning)
    for kind in ("deberta", "deberta_v2"):
        importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "test_finetune.py"
TASK = TASKS["text_classification"]
TABLES = Path(__file__).parent / "tables"  # result tables made elsewhere, for the audit
SCRIPT = "<script>alert(1)</script>"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROCESS_MARK = "PEFT_METHODS_TEST"  # environment variable that marks the processes of one test

# Parameters as published: (encoder with its pooler, classifier with two labels). In some families
# the classifier has layers of its own in place of the pooler.
PUBLISHED_SIZES = {
    "roberta-base": (124_645_632, 124_647_170),
    "roberta-large": (355_359_744, 355_361_794),
    "bert-base-uncased": (109_482_240, 109_483_778),
    "bert-large-uncased": (335_141_888, 335_143_938),
    "distilbert-base-uncased": (66_362_880, 66_955_010),
    "mpnet-base": (109_486_464, 109_488_002),
    "ModernBERT-base": (149_014_272, 149_606_402),
    "ModernBERT-large": (394_781_696, 395_833_346),
    "deberta-v3-base": (183_831_552, 184_423_682),
    "deberta-v3-large": (434_012_160, 435_063_810),
}
# Parameters of language models as published, with their head.
PUBLISHED_LANGUAGE_MODELS = {
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-3.1-8B": 8_030_261_248,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-8B": 8_190_735_360,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b-pt": 999_885_952,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "ModernBERT-base": 149_655_232,
    "ModernBERT-large": 395_881_664,
}

# models and data


def mostly_slow(names: Iterable[str], *quick: str) -> list[Any]:
    """Return parameters of a test, of which all but the quick ones are marked slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


# What every test tries by default. The other methods keep the contract in tests/methods on BERT;
# elsewhere they are marked slow.
CORE = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter", "adapter_fusion")
METHOD_NAMES = mostly_slow(METHODS, *CORE)
# Methods that need a package which is not installed. Tests whose parameters name one are skipped.
LACKING = frozenset(name for name in METHODS if getattr(METHODS[name], "lacks_package", bool)())


# Methods whose trainings of a decoder are not compared step by step: they train only the head, need
# other data, or draw random numbers for each token.
UNLIKE = (
    "head_only",
    "linear_probe",
    "adapter_fusion",
    "pvera",
)


def sizes_for_tiny_models(name: str) -> list[str]:
    """Return a method's example settings as options; those of the core ones are in the recipe."""
    example = {} if name in CORE else METHODS[name].example_settings()
    return [f"methods.{name}.{key}={value}" for key, value in example.items()]


def make_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Return distinct sentences, balanced over two labels. Good or bad words decide the label."""
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
    """Write a data folder with train.jsonl and test.jsonl that share no text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(train + test, seed)
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (folder / f"{name}.jsonl").write_text(
            "\n".join(json.dumps(row) for row in part), encoding="utf-8"
        )
    return folder


PLACES, NAMES = ("plot", "end", "scene"), ("actor", "film", "story")


def make_tagged_rows(count: int, seed: int = 0) -> list[dict[str, list[str]]]:
    """Return distinct sentences whose entities are one or two words of PLACES or of NAMES."""
    rng = random.Random(seed)
    seen: set[str] = set()
    rows: list[dict[str, list[str]]] = []
    while len(rows) < count:
        tokens: list[str] = []
        tags: list[str] = []
        for _ in range(rng.randint(1, 3)):
            others = rng.choices(("the", "was", "a", "and", "very", "so"), k=rng.randint(1, 3))
            kind, words = rng.choice((("LOC", PLACES), ("PER", NAMES)))
            entity = rng.choices(words, k=rng.randint(1, 2))
            tokens += [*others, *entity]
            tags += ["O"] * len(others) + [
                f"{'I' if i else 'B'}-{kind}" for i in range(len(entity))
            ]
        if " ".join(tokens) not in seen:
            seen.add(" ".join(tokens))
            rows.append({"tokens": tokens, "ner_tags": tags})
    return rows


def make_tagged_data(folder: Path, train: int = 120, test: int = 40) -> Path:
    """Write a data folder with train.jsonl and test.jsonl of words and tags."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_tagged_rows(train + test)
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (folder / f"{name}.jsonl").write_text(
            "\n".join(json.dumps(row) for row in part), encoding="utf-8"
        )
    return folder


def make_number_data(folder: Path, task: str, train: int = 48, test: int = 24) -> Path:
    """Write a data folder for `regression` (`score`) or `multilabel` (`labels`).

    The good and the bad words of a text decide its score, and which labels it has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows, seen = random.Random(5), [], set()
    while len(rows) < train + test:
        words = [*rng.choices(FILLER, k=4), *rng.choices(GOOD + BAD, k=rng.randint(0, 4))]
        good, bad = (sum(word in group for word in words) for group in (GOOD, BAD))
        label: dict[str, Any] = {"score": 2.5 + 0.5 * (good - bad)}
        if task == "multilabel":
            label = {
                "labels": ["good"] * (good > 0) + ["bad"] * (bad > 0) + ["long"] * ("a" in words)
            }
        if (text := " ".join(words)) not in seen:
            seen.add(text)
            rows.append({"text": text, **label})
    for name, part in (("train", rows[:train]), ("test", rows[train:])):
        (folder / f"{name}.jsonl").write_text(
            "\n".join(json.dumps(row) for row in part), encoding="utf-8"
        )
    return folder


def write_csv(folder: Path, **splits: list[dict[str, object]]) -> Path:
    """Write a data folder with one CSV file per split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder


def data_spec(
    source: Path | str, train: Any = 20, validation: int = 10, test: Any = 10, **more: Any
) -> DataSpec:
    """Return the spec of a small data set."""
    return DataSpec(str(source), train, validation, test, **more)


# records

CLASS_COUNTS = {"train": [200, 200], "validation": [75, 75], "test": [250, 250]}
CPU = {
    "device_name": "a cpu",
    "device": "cpu",
    "threads": 2,
    "memory_kind": "resident",
    "packages": {"torch": "2.11.0"},
}
CPU_AND_WEIGHTS = {
    "device_name": "a cpu",
    "device": "cpu",
    "threads": 2,
    "memory_kind": "resident",
    "weights_sha256": "w",
}
GPU_STATE: dict[str, Any] = {
    "other_processes": [],
    "throttle_reasons": ["power cap"],
    "memory_total_bytes": 80 * 2**30,
}


def make_record(method: str = "lora", seed: int = 0, **changes: Any) -> Record:
    """Return a sound record of a run of the recipe `embedded`."""
    recipe = load_recipe("embedded")
    run = run_specs(recipe, chosen_methods(recipe, [method])[0], "cpu")[0]
    sound: dict[str, Any] = {
        "spec": replace(run, seed=seed),
        "status": "ok",
        "fingerprint": f"{method}{seed}",
        "metrics": {
            "accuracy": 0.8,
            "macro_f1": 0.79,
            "train_seconds": 10.0,
            "samples_per_second": 80.0,
            "peak_memory_bytes": 2.0**28,
            "method_parameters": 73_728,
            "head_parameters": 770,
            "trainable_share": 0.0033,
        },
        "epochs": ({"epoch": 1.0, "train_loss": 0.6, "validation_loss": 0.5},),
        "evidence": Evidence(expected_trainable=73_728, moved_checked=24),
        "data": {
            "majority": 0.5,
            "removed": {"repeated": 3},
            "fingerprint": "f",
            "class_counts": CLASS_COUNTS,
        },
        "environment": {
            "device_name": "a cpu",
            "device": "cpu",
            "threads": 2,
            "memory_kind": "resident",
        },
    }
    return Record(**{**sound, **changes})


def missing(method: str, status: Any, message: str, seed: int = 0) -> Record:
    """Return the record of a run that ended without a result."""
    return make_record(method, seed, status=status, message=message, metrics={}, epochs=())


def on_a_gpu(*, metrics: dict[str, float] | None = None, **state: Any) -> dict[str, Any]:
    """Return changes for `make_record`: a run on a GPU in this state, with additional metrics."""
    sound = {
        "accuracy": 0.8,
        "train_seconds": 10.0,
        "peak_memory_bytes": 100.0,
        "unattributed_bytes": 4.0,
        "thermal_slowdown_seconds": 0.0,
    }
    return {
        "environment": {"gpu": {"before": GPU_STATE, "after": {**GPU_STATE, **state}}},
        "metrics": {**sound, **(metrics or {})},
    }


def random_record(
    method: str = "lora", seed: int = 0, *settings: str, random_texts: bool = True
) -> Record:
    """Return a sound record of a run with random weights."""
    recipe = load_recipe("embedded", settings, weights="random")
    run = run_specs(recipe, chosen_methods(recipe, [method])[0], "cpu")[0]
    sound = make_record(method, seed)
    return make_record(
        method,
        seed,
        spec=replace(run, seed=seed),
        metrics=sound.metrics | dict.fromkeys(("accuracy", "macro_f1", "validation_accuracy")),
        epochs=(
            {
                "epoch": 1.0,
                "train_loss": 0.7,
                "validation_loss": None,
                "validation_accuracy": None,
                "selection": None,
            },
        ),
        data=sound.data | {"random": random_texts},
    )


def with_accuracy(method: str, *values: float, **more: Any) -> list[Record]:
    """Return one record per accuracy, with seeds 0, 1, 2, …"""
    base = make_record().metrics
    return [
        make_record(method, seed, metrics={**base, "accuracy": value, **more})
        for seed, value in enumerate(values)
    ]


def records_of(
    method: str, accuracy: Sequence[float] = (0.90, 0.91, 0.89), **changes: Any
) -> list[Record]:
    """Return one record per accuracy for the recipe `embedded`.

    `seconds` and `memory` hold one value per seed. `environment` is added to that of a plain CPU.
    """
    seconds, memory = (
        changes.get("seconds", [10.0] * len(accuracy)),
        changes.get("memory", [2.0**28] * len(accuracy)),
    )
    return [
        make_record(
            method,
            seed,
            metrics={
                **make_record().metrics,
                "accuracy": right,
                "train_seconds": seconds[seed],
                "peak_memory_bytes": memory[seed],
            },
            environment={**CPU, **changes.get("environment", {})},
            evidence=make_record().evidence.__class__(),
        )
        for seed, right in enumerate(accuracy)
    ]


def changed_record(
    method: str = "lora",
    seed: int = 0,
    *,
    torch: str = "2.11.0",
    changed: Any = (),
    finished: float = 1.0,
    **changes: Any,
) -> Record:
    """Return a record of the recipe `embedded`, with (path, value) pairs changed in its spec."""
    environment = {**CPU_AND_WEIGHTS, "packages": {"torch": torch}}
    record = make_record(method, seed, finished=finished, environment=environment)
    spec = with_settings(
        record.spec, *((f"{part}.{name}", value) for (part, name), value in changed)
    )
    own = {"spec": spec, "fingerprint": f"{method}{seed}{torch}{changed}{finished}"}
    return replace(record, **{**own, **changes})


def with_settings(spec: RunSpec, *settings: tuple[str, Any]) -> RunSpec:
    """Return the spec with changed settings, each given as ("budget.epochs", 2).

    "method.rank" is a hyperparameter; everything else is a setting of the recipe. Values are not
    validated.
    """
    for name, value in settings:
        section, _, key = name.rpartition(".")
        if section == "method":
            spec = replace(spec, method=replace(spec.method, **{key: value}))
            continue
        changed = {key: value}
        if section:
            changed = {section: replace(getattr(spec.recipe, section), **changed)}
        spec = replace(spec, recipe=replace(spec.recipe, **changed))
    return spec


def with_changed_specs(comparison: Comparison, *settings: tuple[str, Any]) -> Any:
    """Return the comparison with these settings (see `with_settings`) in every record."""
    records = (replace(r, spec=with_settings(r.spec, *settings)) for r in comparison.records)
    return replace(comparison, records=tuple(records))


def unregistered(name: str, spec: RunSpec, **settings: Any) -> RunSpec:
    """Return the spec with its method under an unregistered name, with further settings."""
    kind = type(spec.method)
    more = [(key, Any, field(default=value)) for key, value in settings.items()]
    own = make_dataclass(
        "Unregistered",
        more,
        bases=(kind,),
        namespace={"info": replace(kind.info, name=name)},
        frozen=True,
        kw_only=True,
    )
    return replace(spec, method=own(**asdict(spec.method)))


def evaluated_record(
    method: str, seed: int, right: float, **changes: Any
) -> tuple[Record, ClassPredictions]:
    """Return a record and its predictions; a share of about `right` of them is correct."""
    rng, labels = np.random.default_rng([len(method), seed]), np.repeat([0, 1], 30)
    correct = rng.random(60) < right
    logits = np.eye(2, dtype=np.float32)[np.where(correct, labels, 1 - labels)]
    predictions = ClassPredictions(logits, labels)
    found = TASK.evaluate(predictions, ("bad", changes.pop("label", "good"))).plain()
    record = changed_record(method, seed, **changes)
    figures = {name: found[name] for name in ("accuracy", "macro_f1")}
    return replace(record, quality=found, metrics={**record.metrics, **figures}), predictions


def write_results(
    folder: Path, methods: Sequence[str] = ("full", "lora", "ia3"), seeds: int = 2, **changes: Any
) -> Path:
    """Write a results folder with records and predictions of these methods."""
    store = Store(folder)
    store.prepare()
    for place, method in enumerate(methods):
        for seed in range(seeds):
            record, predictions = evaluated_record(method, seed, 0.6 + 0.15 * place, **changes)
            number = f"{place}{seed}{changes.get('torch', '')}".replace(".", "")
            store.write(replace(record, fingerprint=f"cell{number}"), predictions)
    return folder


def report_html(
    folder: Path, *results: Path, charts: str = "none", more: Sequence[str] = ()
) -> str:
    """Write the HTML report, check the exit code and return the report's text."""
    assert main(["report", *map(str, results), "-o", str(folder), f"--charts={charts}", *more]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


# comparisons

TEST_LABELS = np.tile([0, 1], 250)
COST = {"trainable_parameters": 74_498.0, "checkpoint_bytes": 2.0**20}
CLEARLY_DIFFERENT: dict[str, tuple[list[float], dict[str, float]]] = {
    "full": ([0.90, 0.91, 0.90], {"train_seconds": 30.0, "peak_memory_bytes": 9e9}),
    "lora": ([0.904, 0.906, 0.91], {"train_seconds": 20.0, "peak_memory_bytes": 7e9}),
    "head_only": (
        [0.62, 0.61, 0.60],
        {"train_seconds": 5.0, "peak_memory_bytes": 2e9, "checkpoint_bytes": 1000.0},
    ),
}


def make_predictions(right: float, seed: int, labels: Any = TEST_LABELS) -> ClassPredictions:
    """Return predictions of which a share of `right` is correct.

    About the same examples are difficult for every model.
    """
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(99).random(len(labels)) + 0.1 * rng.random(len(labels))
    answers = np.where(
        difficulty.argsort().argsort() < round(right * len(labels)), labels, 1 - labels
    )
    return ClassPredictions(np.eye(2, dtype=np.float32)[answers], labels)


def make_comparison(
    methods: dict[str, tuple[list[float], dict[str, float]]],
    limits: str | None = None,
    margin: float = MARGIN,
    **changes: Any,
) -> PrintableComparison:
    """Return a comparison of methods, each given as (accuracy per seed, further metrics)."""
    records, kept = [], {}
    for number, (method, (accuracies, more)) in enumerate(methods.items()):
        for seed, accuracy in enumerate(accuracies):
            made = make_predictions(accuracy, 10 * number + seed)
            found = TASK.evaluate(made, ("no", "yes"))
            base = {
                **make_record().metrics,
                **COST,
                "accuracy": found.scores["accuracy"],
                "macro_f1": found.scores["macro_f1"],
                **more,
            }
            records.append(make_record(method, seed, metrics=base, **changes))
            kept[records[-1].fingerprint] = made
    return PrintableComparison(
        tuple(records),
        predictions=kept,
        margin=margin,
        limits=parse_constraints(limits) if limits else {},
    )


# sessions and processes


class FinishedExperiment:
    """An experiment whose runs have all ended, with these records."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)
        self.errors: dict[str, Any] = {}

    def start(self) -> None:
        """Do nothing."""

    def verify(self) -> bool:
        """Repeat nothing."""
        return True

    def predict(self) -> None:
        """Estimate nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def wait(self, task: Any) -> list[Record]:
        """Return the records of the task's method."""
        return [record for record in self.records if record.method_name == task.method.name]

    def prerequisite_records(self, task: Any) -> list[Record]:
        """Return no records: the runs have no prerequisites."""
        return []

    def untrained(self) -> list[str]:
        """Return no methods: every run was trained."""
        return []

    def results(self) -> Results:
        """Return all records."""
        return Results(tuple(self.records), (), {})


class ReplayRecords:
    """A pytest plugin that replaces the session's experiment by one that has these records."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.experiment = FinishedExperiment(records)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Replace the job after the real plugin has made it."""
        if (real := session.config.stash.get(EXPERIMENT, None)) is not None:
            real.close()
            session.config.stash[EXPERIMENT] = self.experiment  # type: ignore[assignment]


def error_line(result: pytest.RunResult) -> str:
    """Return the message of a usage error: one line, without a traceback."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return the running processes started with this mark in their environment.

    The parent does not matter: a process may have been re-parented since.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get(PROCESS_MARK) == mark
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
            pass
    return found


def restore_sigint() -> None:
    """Restore the default SIGINT handler.

    Background jobs of a shell ignore the signal, and so do the processes they start.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def another_user() -> Iterator[Path]:
    """Context manager: act as a user without rights. Yields a folder that every user can write to.

    Whoever is not root has to do with files whose mode forbids everything.
    """
    root, nobody = 0, 65534
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        as_root = os.geteuid() == root
        if as_root:
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            if as_root:
                os.seteuid(root)


# training

SMALL = ("data.train=40", "data.validation=10", "data.test=20", "budget.epochs=1", "budget.seeds=1")


def runs(recipe_path: Path, method: str, *settings: str) -> list[RunSpec]:
    """Return the CPU runs of one method, a run per seed."""
    recipe = with_task(load_recipe(str(recipe_path), [*sizes_for_tiny_models(method), *settings]))
    return run_specs(recipe, chosen_methods(recipe, [method])[0], "cpu")


def trial_record(run: RunSpec, selection: float | None, loss: float = 0.5) -> Record:
    """Build a trial's record with this validation score; None for a failed trial."""
    if selection is None:
        return record_without_result(run, "failed", "an error")
    epochs = (
        {
            "epoch": 1,
            "train_loss": 1.0,
            "validation_loss": loss,
            "validation_accuracy": selection,
            "selection": selection,
        },
    )
    return Record(run, "ok", run.key, metrics={"train_seconds": 2.0}, epochs=epochs, best_epoch=1)


def classes_of(scores: NDArray[Any]) -> ClassPredictions:
    """Return predictions of two classes that are right where a score is 1, else wrong."""
    logits = np.stack([scores, 1 - scores], axis=1).astype(np.float32)
    return ClassPredictions(logits, np.zeros(len(scores), np.int64))


def small_runs(
    recipe_path: Path, name: str, *settings: str, deterministic: bool = False
) -> list[RunSpec]:
    """Return the only CPU run of one method: one seed, one epoch, 40 train rows."""
    recipe = load_recipe(str(recipe_path), [*SMALL, *sizes_for_tiny_models(name), *settings])
    return run_specs(recipe, chosen_methods(recipe, [name])[0], "cpu", deterministic=deterministic)


def run_here(run: RunSpec, work: Path) -> tuple[Record, ClassPredictions | None]:
    """Execute a run in this process, its prerequisites first."""
    for one in run.prerequisites:
        run_here(one, work)
    folder = work / run.key
    folder.mkdir(parents=True, exist_ok=True)
    paths = run_paths.RunPaths(folder, tuple(work / one.key for one in run.prerequisites))
    return pipeline.execute(run, paths, lambda news: None, threads=1)


def reproducible_results(record: Record, predictions: ClassPredictions | None) -> dict[str, Any]:
    """Return all results of a run except times and memory, which vary between executions."""
    assert record.status == "ok", record.message
    assert predictions is not None
    exact = {
        name: value
        for name, value in record.metrics.items()
        if not METRICS[name].device_dependent and name != "busy_share"
    }
    curve = [
        {
            name: value
            for name, value in epoch.items()
            if name not in METRICS or name == "validation_accuracy"
        }
        for epoch in record.epochs
    ]
    return {
        "metrics": exact,
        "curve": curve,
        "best": record.best_epoch,
        "quality": record.quality,
        "evidence": asdict(record.evidence),
        "data": {
            **record.data,
            "class_counts": {
                split: list(counts) for split, counts in record.data["class_counts"].items()
            },
        },
        "logits": predictions.logits.tolist(),
    }


class Recorder:
    """An observer that stores all events of a training run."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.epochs: list[EpochResult] = []
        self.steps: list[tuple[int, int, int]] = []
        self.kept = 0

    def enter(self, phase: str) -> None:
        self.phases.append(phase)

    def step(self, epoch: int, step: int, steps: int) -> None:
        self.steps.append((epoch, step, steps))

    def epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)

    def record_engine_tensors(self, tensors: Any) -> None:
        self.kept = sum(tensor.nbytes for tensor in tensors)

    def peak_step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        return nullcontext(NoTrace())


def training_job(prepared: Any, folder: Path, *, seed: int = 0, device: str = "cpu") -> TrainingJob:
    """Return a job for the output of `prepared`."""
    recipe, method, base, model, tokens = prepared
    return TrainingJob(
        model, method, tokens, recipe, base.tokenizer, base.head, seed, device, folder
    )


def prepared(
    recipe_path: Path, method_name: str, *settings: str, seed: int = 0, device: str = "cpu"
) -> Any:
    """Return (recipe, method, base, model with the method applied, token data)."""
    given = [*sizes_for_tiny_models(method_name), *settings]
    recipe = with_task(load_recipe(str(recipe_path), given))
    task = task_of(recipe)
    method = chosen_methods(recipe, [method_name])[0]
    texts = splits.load(recipe.data, task)
    transformers.set_seed(seed)
    base = loading.load(
        recipe.model,
        task.head,
        texts.facts.label_names,
        quantization=method.info.quantization,
        device=device,
    )
    reason = method.unsupported(base.architecture, device)
    if reason is not None and method_name not in CORE:
        pytest.skip(reason)
    run = RunSpec(recipe, method, seed, device)
    tokens = tokenize.tokenize(texts, base.tokenizer, recipe.data, task)
    context = context_of(run, base, texts.facts.label_names, (), lambda: tokens)
    return (
        recipe,
        method,
        base,
        method.apply(base.model, context),
        tokens,
    )


def make_trainer(
    prepared: Any,
    folder: Path,
    *,
    seed: int = 0,
    kind: type[loop.RunTrainer] = loop.RunTrainer,
) -> Any:
    """Return a trainer for the output of `prepared`, with an observer whose events nobody reads."""
    job = training_job(prepared, folder, seed=seed)
    return kind(job, loop.trainer_arguments(job, autocast=kind.autocasts), Recorder())


def without_dropout(model: nn.Module) -> None:
    """Switch off the dropout of a model."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


class StepLog:
    """Losses, gradient norms and learning rates of every step of a trainer class."""

    def __init__(self, kind: type[loop.RunTrainer], *, compile_layers: bool = False) -> None:
        losses: list[float] = []
        rates: list[float] = []
        norms: list[float] = []

        class Watched(kind):  # type: ignore[misc, valid-type]
            def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
                loss: torch.Tensor = super().training_step(*arguments, **options)
                losses.append(float(loss))
                rates.append(max(map(float, self.lr_scheduler.get_last_lr())))
                return loss

            def _get_grad_norm(self, *arguments: Any, **options: Any) -> Any:
                norm = super()._get_grad_norm(*arguments, **options)
                norms.append(float(norm))
                return norm

        Watched.compile_layers = compile_layers
        self.kind, self.losses, self.rates, self.norms = Watched, losses, rates, norms


class RejectHostAccess(TorchFunctionMode):
    """Fails on operations that a captured step cannot do: copies from the host or to the host."""

    REJECTED = (
        torch.tensor,
        torch.as_tensor,
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.__bool__,
        torch.Tensor.cpu,
    )

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        assert function not in self.REJECTED, f"{function} within a captured step"
        return function(*arguments, **(options or {}))


def train_logged(
    recipe_path: Path, folder: Path, name: str, log: StepLog, *settings: str
) -> tuple[Any, torch.Tensor, Recorder]:
    """Train without dropout. Return the training result, the trained weights and all events."""
    ready = prepared(recipe_path, name, *settings, device=DEVICE)
    model = ready[3]
    without_dropout(model)
    recorder = Recorder()
    job = training_job(ready, folder, device=DEVICE)
    training = loop.train(job, recorder, trainer_class=log.kind)
    return (
        training,
        torch.cat([p.detach().flatten().cpu() for p in model.parameters() if p.requires_grad]),
        recorder,
    )


def train_with_both_engines(
    recipe: Path, folder: Path, name: str, *settings: str, **options: Any
) -> tuple[StepLog, StepLog]:
    """Train the same run with both engines and check that they agree in all but time."""
    plain, replayed = StepLog(loop.RunTrainer), StepLog(CudaGraphsTrainer, **options)
    one, expected, _ = train_logged(recipe, folder, name, plain, *settings)
    other, got, recorder = train_logged(recipe, folder, name, replayed, *settings)
    assert replayed.losses == pytest.approx(plain.losses, abs=2e-5)
    assert replayed.norms == pytest.approx(plain.norms, rel=1e-3, abs=1e-6)
    assert replayed.rates == plain.rates
    assert torch.allclose(got, expected, atol=2e-4)
    assert [e.train_loss for e in other.epochs] == pytest.approx(
        [e.train_loss for e in one.epochs], abs=2e-5
    )
    assert [e.train_accuracy for e in other.epochs] == pytest.approx(
        [e.train_accuracy for e in one.epochs], abs=0.02
    )
    assert (other.steps, other.samples, other.tokens, other.decay) == (
        one.steps,
        one.samples,
        one.tokens,
        one.decay,
    )
    assert recorder.phases[:3] == ["warm_up", "capture", "train"]
    return plain, replayed
