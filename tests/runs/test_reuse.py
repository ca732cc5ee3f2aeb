"""Reuse of finished runs: they are found by their fingerprint; all other runs are trained."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import BENCHMARK, error_line, runs
from peft_methods.api import PrintableComparison, compare
from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.environment import describe, fingerprint_part
from peft_methods.recipes.loading import load_recipe
from peft_methods.runs import kept_checks
from peft_methods.runs import spec as run_spec
from peft_methods.runs.record import Record
from peft_methods.runs.spec import PIPELINE
from peft_methods.runs.store import Store
from peft_methods.tasks.registry import TASKS
from peft_methods.training.registry import engine_of

METHODS = ("lora", "qlora", "adapter_fusion")


@pytest.fixture(scope="module")
def tiny_recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual recipe with an eighth of the training steps: which runs are trained counts here."""
    text = tiny_recipe.read_text(encoding="utf-8")
    for usual, small in (("train = 160", "train = 40"), ("epochs = 2", "epochs = 1")):
        assert f"\n{usual}\n" in text
        text = text.replace(usual, small)
    path = tmp_path_factory.mktemp("small") / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def first_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a whole session and return its store's folder."""
    folder = tmp_path_factory.mktemp("first") / "results"
    compare(str(tiny_recipe), methods=METHODS, seeds=1, results=folder, progress=False)
    return folder


@pytest.fixture
def store(first_run: Path, tmp_path: Path) -> Store:
    """Copy the first session's store."""
    shutil.copytree(first_run, tmp_path / "results")
    return Store(tmp_path / "results")


def again(recipe: Path, store: Store, **options: Any) -> PrintableComparison:
    return compare(
        str(recipe),
        **{"methods": METHODS, "seeds": 1, "results": store.folder, "progress": False, **options},
    )


def by_row(comparison: PrintableComparison) -> dict[str, Record]:
    """Return records by method, prerequisite runs by the end of their recipe's name."""
    return {
        r.recipe_name.rpartition("-")[2] if r.role != "main" else r.method_name: r
        for r in comparison.records
    }


def test_second_session_trains_nothing(tiny_recipe: Path, store: Store) -> None:
    """The parent process computes the same fingerprints before training as the runs' processes."""
    before = {path: path.read_bytes() for path in store.folder.glob("*.*")}
    # This setting changes only the check of the results.
    done = again(tiny_recipe, store, settings=["expect.margin_over_majority=0.01"])
    rows = by_row(done)
    assert set(rows) == {*METHODS, "source0", "source1"}
    assert all(record.reused for record in rows.values())
    assert {record.fingerprint: record.metrics for record in store.records()[0]} == {
        r.fingerprint: r.metrics for r in rows.values()
    }
    assert rows["lora"].spec.recipe.expect.margin_over_majority == 0.01
    assert {path: path.read_bytes() for path in store.folder.glob("*.*")} == before
    assert re.search(
        r"reused from an earlier session: LoRA \(seed 0\), QLoRA \(seed 0\), "
        r"AdapterFusion \(seed 0\), prerequisite runs of tiny \(2\); the oldest finished "
        r"\d{4}-\d\d-\d\d \d\d:\d\d\. Their times and memory were measured then\. Set fresh",
        done.table(),
    )


def test_only_damaged_runs_are_reported_and_trained_again(tiny_recipe: Path, store: Store) -> None:
    names = {name: record.fingerprint for name, record in by_row(again(tiny_recipe, store)).items()}
    changed = store.folder / f"{names['lora']}.npz"
    deleted = store.folder / f"{names['source1']}.safetensors"
    truncated = store.folder / f"{names['qlora']}.json"
    changed.write_bytes(changed.read_bytes() + b"x")
    deleted.unlink()
    truncated.write_text("{", encoding="utf-8")
    (store.folder / f"{names['adapter_fusion']}.json").unlink()
    done = again(tiny_recipe, store)
    assert {name for name, record in by_row(done).items() if record.reused} == {"source0"}
    table = done.table()
    assert f"{changed} has changed since it was written, so tiny-lora-seed0 is not reused." in table
    assert (
        f"{deleted} cannot be read (No such file or directory), "
        "so tiny.source2-source1-adapter-seed0 is not reused." in table
    )
    assert re.search(rf"{truncated} is .*record", table)
    assert {name: record.fingerprint for name, record in by_row(done).items()} == names
    assert all(record.reused for record in by_row(again(tiny_recipe, store)).values())


def test_fresh_trains_everything_and_added_seeds_train_only_those(
    tiny_recipe: Path, store: Store
) -> None:
    fresh = again(tiny_recipe, store, methods=["lora"], fresh=True)
    assert not fresh.records[0].reused
    assert "reused" not in fresh.table()
    more = again(tiny_recipe, store, methods=["lora"], seeds=2)
    assert [(record.seed, record.reused) for record in more.records] == [(0, True), (1, False)]
    assert more.records[0].finished == fresh.records[0].finished


def test_run_without_its_saved_model_is_trained_again(
    tiny_recipe: Path, store: Store, tmp_path: Path
) -> None:
    def kept() -> Record:
        return again(tiny_recipe, store, methods=["lora"], save_models=tmp_path / "models").records[
            0
        ]

    assert [kept().reused, kept().reused] == [False, True]
    assert (tmp_path / "models" / "tiny-lora-seed0" / "adapter_config.json").is_file()


@pytest.mark.slow
def test_interrupted_tuning_continues(tiny_recipe: Path, tmp_path: Path) -> None:
    def tuned() -> PrintableComparison:
        return again(tiny_recipe, Store(tmp_path), methods=["head_only"], tune=2)

    whole = tuned().records[0]
    assert whole.tuning is not None
    own = [record for record in Store(tmp_path).records()[0] if record.role != "trial"]
    lost = next(record for record in Store(tmp_path).records()[0] if record.role == "trial")
    for record in (*own, lost):
        (tmp_path / f"{record.fingerprint}.json").unlink()
    done = tuned()
    assert "reused from an earlier session: trials of Head only (1)" in done.table()
    assert done.records[0].tuning is not None
    assert done.records[0].tuning["chosen"] == whole.tuning["chosen"]


def test_command_line_reports_reused_runs(
    pytester: pytest.Pytester, tiny_recipe: Path, store: Store
) -> None:
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    chosen = (
        f"--peft-recipe={tiny_recipe}",
        f"--peft-results={store.folder}",
        "--peft-method=lora",
        "--peft-seeds=2",
    )

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(
            "-p", "peft_methods.plugin", "-p", "no:cacheprovider", *chosen, *arguments
        )

    assert (
        "--peft-fresh trains everything again and --peft-resume only missing runs. "
        "Give only one of them." in error_line(run("--peft-fresh", "--peft-resume"))
    )
    plan = run("--peft-dry-run").stdout.str()
    assert re.search(r"tiny-lora +0 .* already finished", plan)
    finished = r"1 run, .*\n\nAn earlier session finished 1 more run, to be reused"
    assert re.search(rf"{finished}, if the weights of the model are still the same\.", plan)
    assert "already finished" not in run("--peft-dry-run", "--peft-fresh").stdout.str()
    out = run("--peft-resume").stdout.str()
    assert re.search(r"tiny-lora-seed0: reused: accuracy \d", out)
    assert re.search(r"\[1/1\] tiny-lora-seed1: accuracy \d", out)
    plan = run("--peft-dry-run").stdout.str()
    assert "An earlier session finished 2 more runs, to be reused.\n" in plan  # weights compared


REUSED = """
import sys
import psutil
def pytest_unconfigure():
    children = psutil.Process().children()
    print("\\ntorch:", "torch" in sys.modules, "processes:", len(children))
"""


def reused_session(
    pytester: pytest.Pytester, recipe: Path, store: Store, methods: str = "lora"
) -> str:
    """Run a session of recorded runs in a process of its own; return what it printed."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    pytester.makeconftest(REUSED)
    plain = ("-p", "peft_methods.plugin", "-p", "no:cacheprovider", "--peft-seeds=1")
    silenced = "--peft-silence=V301"  # a tiny model may learn nothing
    chosen = (
        f"--peft-recipe={recipe}",
        f"--peft-results={store.folder}",
        f"--peft-method={methods}",
    )
    result = pytester.runpytest_subprocess(*plain, silenced, *chosen)
    assert result.ret == 0, result.stdout.str()
    return result.stdout.str()


def test_session_that_trains_nothing_starts_no_process_and_imports_no_torch(
    pytester: pytest.Pytester, tiny_recipe: Path, store: Store
) -> None:
    again(tiny_recipe, store, methods=["lora"])
    assert "torch: False processes: 0" in reused_session(pytester, tiny_recipe, store)


def test_check_is_kept_for_these_files_only(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe, model = load_recipe(str(tiny_recipe)), tmp_path / "model"
    shutil.copytree(recipe.model.source, model)

    def keys(source: str, methods: list[str]) -> kept_checks.Keys | None:
        own = replace(recipe, model=replace(recipe.model, source=source))
        return kept_checks.keys_of(own, chosen_methods(own, methods), "cpu", ("cpu", 1))

    first = keys(str(model), ["lora"])
    assert first is not None
    assert keys(str(model), ["lora"]) == first
    (model / "model.safetensors").touch()
    assert keys(str(model), ["lora"]) == first
    (model / "notes.txt").write_text("perhaps other weights", encoding="utf-8")
    assert keys(str(model), ["lora"]) != first
    assert keys("someone/on-the-hub", ["lora"]) is None
    assert keys("bundled:minilm", ["lora"]) is not None


@pytest.mark.slow
def test_kept_check_serves_sessions_with_fewer_methods_and_other_seeds(
    pytester: pytest.Pytester, tiny_recipe: Path, store: Store
) -> None:
    again(tiny_recipe, store, methods=["head_only", "lora"])
    assert "torch: False processes: 0" in reused_session(pytester, tiny_recipe, store)


@pytest.mark.slow
def test_kept_checks_of_single_methods_serve_a_session_with_both(
    pytester: pytest.Pytester, tiny_recipe: Path, store: Store
) -> None:
    again(tiny_recipe, store, methods=["lora"])
    again(tiny_recipe, store, methods=["qlora"])
    assert "torch: False processes: 0" in reused_session(pytester, tiny_recipe, store, "lora,qlora")


def test_kept_check_is_not_used_if_a_record_is_missing_or_with_fresh(
    tiny_recipe: Path, store: Store
) -> None:
    again(tiny_recipe, store, methods=["lora"])
    (record,) = (one for one in store.records()[0] if one.method_name == "lora")
    assert not again(tiny_recipe, store, methods=["lora"], fresh=True).records[0].reused
    assert again(tiny_recipe, store, methods=["lora"]).records[0].reused
    (store.folder / f"{record.fingerprint}.json").unlink()
    assert not again(tiny_recipe, store, methods=["lora"]).records[0].reused


@pytest.fixture
def other_run(tiny_recipe: Path, tmp_path: Path) -> Any:
    """Start a long session in another process; wait until two of its runs are stored."""
    store = Store(tmp_path / "shared")
    options = f"methods=['head_only'], seeds=90, results={str(store.folder)!r}"
    code = f"from peft_methods import compare; compare({str(tiny_recipe)!r}, {options})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 90
    try:
        while len(list(store.folder.glob("*.json"))) < 2:
            assert time.monotonic() < end, "no run finished"
            time.sleep(0.02)
        yield store, process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_concurrent_sessions_lose_nothing_and_a_killed_one_is_continued(
    tiny_recipe: Path, other_run: Any
) -> None:
    """While a first session runs, a second trains some of the same runs again.

    Then the first is killed, and a third session reuses the results of both.
    """
    store, process = other_run
    concurrent = again(tiny_recipe, store, methods=["head_only"], seeds=3, fresh=True)
    assert process.poll() is None
    assert [(record.status, record.reused) for record in concurrent.records] == [("ok", False)] * 3
    process.kill()
    process.wait()
    found, unfit = store.records()
    assert (unfit, [store.damage(record) for record in found]) == ([], [""] * len(found))
    assert len({record.seed for record in found}) == len(found) >= 3
    done = again(tiny_recipe, store, methods=["head_only"], seeds=len(found) + 3)
    assert [record.status for record in done.records] == ["ok"] * (len(found) + 3)
    assert len(found) <= sum(record.reused for record in done.records) < len(found) + 3
    assert not list(store.folder.glob("run-*"))


def test_run_key_ignores_only_expectations_and_descriptions(tiny_recipe: Path) -> None:
    def key(*settings: str) -> str:
        return runs(tiny_recipe, "adapter_fusion", *settings)[0].key

    same = [key("expect.margin_over_majority=0.2"), key("budget.seeds=7"), key('title="x"')]
    other = [
        key("budget.epochs=3"),
        key("data.seed=3"),
        key("methods.adapter_fusion.reduction_factor=8"),
        key("budget.batch_size=4"),
    ]
    assert set(same) == {key()}
    assert len({key(), *other}) == 5


def test_run_that_fell_back_keeps_its_key_but_not_its_fingerprint(
    tiny_recipe: Path,
) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    asked = replace(run, engine="cuda_graphs")
    facts: dict[str, Any] = {
        "weights": "w",
        "config": "c",
        "tokenizer": "t",
        "data": "d",
        "environment": {},
    }
    assert asked.with_fallback_engine().key == asked.key != run.key
    assert (
        len({one.fingerprint(**facts) for one in (run, asked, asked.with_fallback_engine())}) == 3
    )


def test_fingerprint_includes_prerequisite_runs(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "adapter_fusion")
    facts: dict[str, Any] = {
        "weights": "w",
        "config": "c",
        "tokenizer": "t",
        "data": "d",
        "environment": {},
    }
    one, other = (run.fingerprint(**facts, prerequisites=["a", end]) for end in ("b", "c"))
    assert one != other


def test_fingerprint_includes_device_and_versions(tiny_recipe: Path) -> None:
    run, *_ = runs(tiny_recipe, "lora")
    this_machine = describe("cpu")

    def fingerprint(**changes: Any) -> str:
        environment = fingerprint_part(
            {
                **this_machine,
                **changes,
                "packages": {**this_machine["packages"], **changes.get("packages", {})},
            }
        )
        return run.fingerprint(
            weights="w", config="c", tokenizer="t", data="d", environment=environment
        )

    versions = [
        fingerprint(packages={name: "0.0.1"})
        for name in ("torch", "transformers", "peft", "bitsandbytes")
    ]
    others = (fingerprint(device_name="another"), fingerprint(threads=99))
    assert len({fingerprint(), *others, *versions}) == 7
    assert fingerprint() == fingerprint(
        source={"commit": "another"}, packages={"scikit-learn": "0.0.1"}
    )


def test_other_code_makes_another_fingerprint(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which code a run depends on: see `test_code_fingerprint`."""
    run, *_ = runs(tiny_recipe, "lora")
    facts: dict[str, Any] = {
        "weights": "w",
        "config": "c",
        "tokenizer": "t",
        "data": "d",
        "environment": {},
    }
    before, roots = run.fingerprint(**facts), []
    monkeypatch.setattr(run_spec, "code_fingerprint", lambda *given: roots.append(given) or "new")
    assert run.fingerprint(**facts) != before
    replaced = replace(run, engine="cuda_graphs").with_fallback_engine()
    assert replaced.fingerprint(**facts)
    task = TASKS[run.recipe.task]
    assert roots[0] == (run.method, task, engine_of("trainer"), PIPELINE)
    assert engine_of("cuda_graphs") in roots[1]  # the engine that failed counts too
