"""Regression check from the command line, with given records. One test trains real runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import BENCHMARK, CORE, error_line, make_record, records_of, with_settings
from peft_methods.analysis.baseline import Baseline, Entry, auto_path, read_baseline, slug
from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.regression import RegressionCheck
from peft_methods.analysis.spec_changes import spec_changes
from peft_methods.analysis.tolerances import parse_tolerance, parse_tolerances
from peft_methods.cli import regression_check
from peft_methods.cli.command_text import pytest_command
from peft_methods.methods.selection import chosen_methods
from peft_methods.profiling.metrics import METRICS
from peft_methods.recipes.loading import find_recipe, load_recipe
from peft_methods.report.html.page import build_report, write_report
from peft_methods.runs.record import SCHEMA_VERSION, Record
from peft_methods.runs.spec import run_specs
from peft_methods.tasks.registry import with_task
from peft_methods.training.registry import ENGINES
from peft_methods.utils.errors import OptionError

PASSED = "No metric is worse by more than its tolerance and chance."
Figures = dict[str, list[float]]


def problems(result: pytest.RunResult) -> list[str]:
    """Return the failing lines in the regression check's section at the end.

    Leaves out pytest's summary, which comes after it and in CI repeats whole messages.
    """
    out = result.stdout.str()
    assert "Traceback" not in out + result.stderr.str()
    section = out.partition("= regression check =")[2].partition("= short test summary info =")[0]
    return [line for line in section.splitlines() if line.startswith("regression check: ")]


def test_regression_check_passes_with_equal_metrics(base: Any) -> None:
    before = [*records_of("full"), *records_of("lora")]
    result = base(before, before)
    assert result.ret == 0
    out = result.stdout.str()
    date = json.loads(Path("base.json").read_text(encoding="utf-8"))["datetime"][:10]
    reference = (
        rf"embedded: compared with base\.json of {date}, commit \w+; "
        "tolerances accuracy:1pp, peak_memory_bytes:5%, train_seconds:10%"
    )
    assert re.search(reference, out)
    assert PASSED in out


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (
            {"accuracy": (0.1, 0.1, 0.1)},
            r"accuracy fell from 90\.0 % to 10\.0 %, worse by 80pp "
            r"\(tolerance 1pp; seeds explain 1\.\d+pp\)",
        ),
        (
            {"seconds": [100.0] * 3},
            r"train_seconds rose from 10\.0 s to 100\.0 s, worse by 900% "
            r"\(tolerance 10%; seeds and drift explain [\d.]+%\)",
        ),
        (
            {"memory": [1.06 * 2**28] * 3},
            r"peak_memory_bytes rose from 256\.0 MiB to 271\.4 MiB, worse by 6% \(tolerance 5%; ",
        ),
    ],
)
def test_regression_fails_only_the_test_of_its_method(
    base: Any, now: dict[str, Any], expected: str
) -> None:
    result = base(
        [*records_of("full"), *records_of("lora")],
        [*records_of("full"), *records_of("lora", **now)],
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    (problem,) = problems(result)
    assert re.match(
        rf"regression check: embedded-lora: {expected}.*"
        r"Baseline: base\.json of \d{4}-\d\d-\d\d, commit \w+\.",
        problem,
    )
    assert result.stdout.str().count(problem) > 1  # in the test's message and at the end


def test_regression_in_time_mentions_a_busy_machine(base: Any) -> None:
    busy = [
        replace(record, metrics={**record.metrics, "busy_share": 0.4})
        for record in records_of("lora", seconds=[100.0] * 3)
    ]
    (problem,) = problems(base(records_of("lora"), busy))
    assert (
        "The machine was busy: the training thread had a core for 40% of the time (V411). "
        "Measure again on an idle machine." in problem
    )
    worse = [
        replace(record, metrics={**record.metrics, "busy_share": 0.4})
        for record in records_of("lora", (0.1, 0.1, 0.1))
    ]
    (problem,) = problems(base(records_of("lora"), worse))
    assert "busy" not in problem


def test_regression_check_passes_with_better_metrics(base: Any) -> None:
    better = records_of("lora", (0.99, 0.99, 0.99), seconds=[1.0] * 3, memory=[2.0**20] * 3)
    assert base(records_of("lora"), better).ret == 0


def test_change_explained_by_seeds_passes_with_one_seed_too(base: Any, tell: Any) -> None:
    noisy = records_of("lora", (0.90, 0.84, 0.87))
    assert base(noisy, records_of("lora", (0.85, 0.88, 0.82))).ret == 0
    assert tell(records_of("lora", (0.85,)), "--peft-baseline=base.json").ret == 0
    one = tell(records_of("lora", (0.3,)), "--peft-baseline=base.json")
    assert one.ret == pytest.ExitCode.TESTS_FAILED
    assert "accuracy fell from 87.0 % to 30.0 %" in problems(one)[0]


def test_given_tolerances_replace_the_defaults(base: Any, tell: Any) -> None:
    slower = records_of("lora", (0.80, 0.81, 0.79), seconds=[14.0] * 3)
    assert base(records_of("lora"), slower, "--peft-fail=accuracy:12pp").ret == 0
    strict = tell(
        slower,
        "--peft-baseline=base.json",
        "--peft-fail=accuracy:12pp,train_seconds:3%",
        "--peft-fail=peak_memory_bytes:0%",
    )
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    assert "worse by 40% (tolerance 3%;" in problems(strict)[0]
    assert "tolerances accuracy:12pp, train_seconds:3%, peak_memory_bytes:0%" in strict.stdout.str()


def test_macro_f1_has_a_tolerance_if_the_recipe_selects_by_it() -> None:
    (record,) = records_of("lora", (0.9,))
    record = replace(record, spec=with_settings(record.spec, ("data.select_by", "macro_f1")))
    assert [str(one) for one in RegressionCheck({}).tolerances_for(record)] == [
        "macro_f1:1pp",
        "peak_memory_bytes:5%",
        "train_seconds:10%",
    ]


def test_method_missing_on_either_side_fails_unless_allowed(base: Any, tell: Any) -> None:
    result = base(
        [*records_of("full"), *records_of("lora")], [*records_of("full"), *records_of("ia3")]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    new, old = problems(result)
    assert re.match(
        r"regression check: embedded-ia3: missing from the baseline base\.json of .*, which has "
        r"full, lora\. Write the baseline again",
        new,
    )
    assert re.match(
        r"regression check: embedded-lora: in the baseline base\.json of .* but not in this "
        r"session\. Write the baseline again",
        old,
    )
    allowed = tell(
        [*records_of("full"), *records_of("ia3")],
        "--peft-baseline=base.json",
        "--peft-allow-missing",
    )
    assert allowed.ret == 0
    assert re.search(
        r"embedded-lora: in the baseline .* but not in this session \(allowed\)",
        allowed.stdout.str(),
    )


def test_session_fails_if_a_baseline_method_did_not_run(base: Any) -> None:
    result = base([*records_of("full"), *records_of("lora")], records_of("full"))
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    skipped = [make_record("lora", status="skipped", message="no bitsandbytes", metrics={})]
    again = base([*records_of("full"), *records_of("lora")], [*records_of("full"), *skipped])
    assert again.ret == pytest.ExitCode.TESTS_FAILED
    assert "not in this session (skipped: no bitsandbytes)" in problems(again)[0]


def test_missing_metric_fails(base: Any) -> None:
    result = base(records_of("lora"), records_of("lora", memory=[None] * 3))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "embedded-lora: has no peak_memory_bytes, which the baseline base.json of"
        in problems(result)[0]
    )


def test_only_quality_is_compared_on_another_device(base: Any, tell: Any) -> None:
    gpu = {"device_name": "NVIDIA H100", "device": "cuda"}
    costly = {"seconds": [500.0] * 3, "memory": [2.0**33] * 3, "environment": gpu}
    passed = base(records_of("lora"), records_of("lora", **costly))
    assert passed.ret == 0
    note = (
        "every method: another device (a cpu, 2 threads → NVIDIA H100): "
        "quality is compared, time and memory are not"
    )
    assert note in passed.stdout.str()
    failed = tell(records_of("lora", (0.5, 0.5, 0.5), **costly), "--peft-baseline=base.json")
    assert failed.ret == pytest.ExitCode.TESTS_FAILED
    assert [line.split(": ")[2].split()[0] for line in problems(failed)] == ["accuracy"]


def test_regression_check_lists_changed_versions_settings_and_seeds(base: Any) -> None:
    before = [*records_of("full"), *records_of("lora")]
    newer = {"packages": {"torch": "2.12.0"}}
    now = [
        *records_of("full", (0.9, 0.91), environment=newer),
        *records_of("lora", (0.5, 0.5), environment=newer),
    ]
    now = [
        replace(
            record,
            spec=with_settings(
                record.spec,
                ("budget.epochs", 1),
                *([("method.rank", 4)] if record.method_name == "lora" else []),
            ),
        )
        for record in now
    ]
    result = base(before, now)
    out = result.stdout.str()
    assert (
        "every method: differs from the baseline: seeds 0, 1, 2 → 0, 1; "
        "budget.epochs 2 → 1; torch 2.11.0 → 2.12.0" in out
    )
    assert "embedded-lora: differs from the baseline: method.rank 8 → 4" in out
    assert (
        "Differs: seeds 0, 1, 2 → 0, 1; budget.epochs 2 → 1; method.rank 8 → 4; "
        "torch 2.11.0 → 2.12.0." in problems(result)[0]
    )


def test_upgrade_is_compared_and_what_moved_is_named_with_the_versions(base: Any) -> None:
    newer = {"packages": {"torch": "2.12.0"}}
    result = base(records_of("lora"), records_of("lora", (0.2, 0.2, 0.2), environment=newer))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "with torch 2.11.0 → 2.12.0: accuracy fell from 90.0 % to 20.0 %" in result.stdout.str()


def test_session_is_added_to_a_baseline(tell: Any) -> None:
    save = "--peft-save-baseline=base.json"
    for seconds in (10.0, 11.0, 10.5):
        added = tell(records_of("lora", seconds=[seconds] * 3), save, "--peft-append")
        assert added.ret == 0, added.stdout.str()
    assert "baseline written: base.json (1 method, 3 sessions)" in added.stdout.str()
    sessions = read_baseline(Path("base.json")).entries["embedded", "lora"].sessions
    assert [one.values("train_seconds")[0] for one in sessions] == [10.0, 11.0, 10.5]
    assert tell(records_of("lora"), "--peft-baseline=base.json").ret == 0
    assert error_line(tell(records_of("lora"), "--peft-append")).endswith(
        "add --peft-save-baseline FILE|auto."
    )


def test_common_shift_is_found_if_no_single_change_is_significant(base: Any) -> None:
    rng = np.random.default_rng(4)
    before, now = [], []
    for number, method in enumerate(CORE):
        seeds = 0.85 + 0.01 * number + np.asarray([-0.023, 0.0, 0.023])
        before += records_of(method, seeds.tolist())
        now += records_of(method, (seeds - 0.0165 + 0.002 * rng.standard_normal()).tolist())
    result = base(before, now)
    result.assert_outcomes(passed=8)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (problem,) = problems(result)
    assert re.match(
        r"regression check: embedded: 8 of 8 methods are worse in accuracy, by 1\.6\d*pp on "
        r"average \(tolerance 1pp; chance explains [\d.]+pp across methods\): a common shift\. "
        r"Baseline: base\.json of",
        problem,
    )


def test_reused_records_are_not_compared_unless_allowed(base: Any, tell: Any) -> None:
    result = base(
        records_of("lora"),
        [replace(record, reused=True) for record in records_of("lora", (0.1, 0.1, 0.1))],
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (problem,) = problems(result)
    assert (
        "embedded-lora: 3 of 3 records are reused from an earlier session and not compared: "
        "train them again with --peft-fresh, or give --peft-allow-reused." in problem
    )
    mixed = [replace(record, reused=record.seed < 2) for record in records_of("lora")]
    allowed = tell(
        mixed, "--peft-baseline=base.json", "--peft-allow-reused", "--peft-save-baseline=now.json"
    )
    assert allowed.ret == 0
    assert (
        "baseline written: now.json (1 method, 2 runs of an earlier session)"
        in allowed.stdout.str()
    )
    (entry,) = json.loads(Path("now.json").read_text(encoding="utf-8"))["benchmarks"]
    assert (entry["extra_info"]["seeds"], entry["extra_info"]["reused"]) == ([0, 1, 2], [0, 1])
    assert entry["stats"]["rounds"] == 3  # reused times are rounds too


def test_stored_baselines_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BENCHMARK.parent.parent)
    paths = sorted((BENCHMARK.parent / "baselines").glob("*/*.json"))
    assert paths
    for path in paths:
        name = path.stem.partition("-random-weights")[0].partition(".")[0]
        entry = read_baseline(path).entries[name, "lora"]
        settings = entry.settings
        random = settings["model.weights"] == "random"
        assert len(entry.values("train_seconds")) == len(entry.seeds)
        recipe = load_recipe(name, [f"model.weights={settings['model.weights']}"])
        assert len(entry.values(with_task(recipe).ranking_metric)) == (0 if random else 3)
        if "." in path.stem:  # other sources than the recipe's are part of the name
            sources = {key: settings[f"{key}.source"] for key in ("model", "data")}
            recipe = load_recipe(name, weights=settings["model.weights"], **sources)
        device = str(entry.environment["device_name"])
        assert auto_path(find_recipe(name), recipe, device).samefile(path)


def test_stored_baselines_of_version_1_have_the_settings_of_today() -> None:
    for path in sorted((BENCHMARK.parent / "baselines").glob("*/*.json")):
        for (name, method), entry in read_baseline(path).entries.items():
            recipe = with_task(load_recipe(name))
            (today, *_) = run_specs(recipe, chosen_methods(recipe, [method])[0], "cuda")
            own = {key for key in entry.settings if not key.startswith("prerequisites.")}
            only_if_set = {"fallback_from", "data.references"}
            assert own - only_if_set <= today.flat().keys()
            assert entry.settings["engine"] in ENGINES
            assert "embedded:" not in str(entry.settings)
            assert entry.settings["role"] == "main"


def of_other_rows(records: Sequence[Record], rows: int) -> list[Record]:
    """The same records with another number of test rows."""
    return [
        replace(
            record,
            spec=with_settings(record.spec, ("data.test", rows)),
            data={**record.data, "fingerprint": "g"},
        )
        for record in records
    ]


def test_quality_on_other_test_rows_is_not_compared(base: Any, tell: Any) -> None:
    """The spread over seeds does not show what other test rows change."""
    before = [*records_of("full"), *records_of("lora")]
    now = of_other_rows([*records_of("full"), *records_of("lora", (0.75, 0.75, 0.75))], 1500)
    result = base(before, now)
    (problem,) = problems(result)
    assert "embedded: accuracy is not compared: the baseline base.json of " in problem
    assert problem.endswith(
        " has other test rows (data.test 840 → 1500). Write the baseline again with "
        "--peft-save-baseline, or give --peft-allow-missing."
    )
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    allowed = tell(now, "--peft-baseline=base.json", "--peft-allow-missing")
    assert allowed.ret == 0
    assert "accuracy is not compared" in allowed.stdout.str()
    slower = of_other_rows(records_of("lora", seconds=[30.0] * 3), 1500)
    late = tell(slower, "--peft-baseline=base.json", "--peft-allow-missing")
    assert "train_seconds rose from 10.0 s to 30.0 s" in "".join(problems(late))


def test_quality_on_the_same_rows_under_another_name_is_compared(base: Any) -> None:
    """The fingerprint of the data says that the rows are the same."""
    renamed = [
        replace(record, spec=with_settings(record.spec, ("data.source", "elsewhere")))
        for record in records_of("lora", (0.75, 0.75, 0.75))
    ]
    (problem,) = problems(base(records_of("lora"), renamed))
    assert "accuracy fell from 90.0 % to 75.0 %" in problem


def test_more_training_rows_leave_the_test_rows_as_they_are(base: Any) -> None:
    more = [
        replace(
            record,
            spec=with_settings(record.spec, ("data.train", 500)),
            data={**record.data, "fingerprint": "g"},
        )
        for record in records_of("lora", (0.75, 0.75, 0.75))
    ]
    (problem,) = problems(base(records_of("lora"), more))
    assert "accuracy fell from 90.0 % to 75.0 %" in problem


def test_stored_baseline_of_an_older_recipe_says_so(tell: Any) -> None:
    """On an H100 the stored baseline has 500 test rows, the recipe has 840."""
    folder = BENCHMARK.parent / "baselines" / "nvidia-h100-80gb-hbm3"
    path = folder / "embedded.json"
    entry = read_baseline(path).entries["embedded", "lora"]
    then = entry.environment
    records = [
        replace(
            record,
            spec=replace(record.spec, device="cuda"),
            environment={**record.environment, **then},
            metrics={name: values[record.seed] for name, values in entry.metrics.items()}
            | {"accuracy": 0.70},
        )
        for record in records_of("lora")
    ]
    result = tell(records, f"--peft-baseline={path}", "--peft-allow-missing")
    assert result.ret == 0
    assert "has other test rows (data.test 500 → 840)" in result.stdout.str()


def test_baseline_of_a_method_that_is_not_installed_is_read(tmp_path: Path) -> None:
    path = next((BENCHMARK.parent / "baselines").glob("*/embedded.json"))
    document = json.loads(path.read_text(encoding="utf-8"))
    info = document["benchmarks"][0]["extra_info"]
    info["method"] = info["spec"]["method"]["name"] = "from_elsewhere"
    base = tmp_path / "base.json"
    base.write_text(json.dumps(document), encoding="utf-8")
    entry = read_baseline(base).entries["embedded", "from_elsewhere"]
    assert entry.settings["method.name"] == "from_elsewhere"
    assert entry.settings["engine"] in ENGINES


def test_baseline_text_mentions_uncommitted_changes(tmp_path: Path) -> None:
    path = sorted((BENCHMARK.parent / "baselines").glob("*/embedded.json"))[0]
    document = json.loads(path.read_text(encoding="utf-8"))
    for dirty, end in ((True, " with changes"), (False, document["commit_info"]["id"][:10])):
        document["commit_info"]["dirty"] = dirty
        (tmp_path / "base.json").write_text(json.dumps(document), encoding="utf-8")
        assert str(read_baseline(tmp_path / "base.json")).endswith(end)


def of_recipe(records: Sequence[Record], name: str) -> list[Record]:
    """The same records as runs of another recipe."""
    return [
        replace(
            record,
            fingerprint=f"{name}-{record.fingerprint}",
            spec=with_settings(record.spec, ("name", name)),
        )
        for record in records
    ]


def baseline_of(records: Sequence[Record]) -> Baseline:
    """A baseline with the metrics of these records, all of one method."""
    first = records[0]
    metrics = {name: tuple(record.metrics[name] for record in records) for name in first.metrics}
    entry = Entry(
        first.recipe_name,
        first.method_name,
        tuple(record.seed for record in records),
        metrics,
        first.spec.flat(),
        first.data,
        first.environment,
    )
    return Baseline(
        Path("base.json"), "2026-01-01", "c0ffee", {(entry.recipe, entry.method): entry}
    )


def test_report_section_shows_only_the_entries_of_its_recipe(tmp_path: Path) -> None:
    """One recipe's name may be part of another's."""
    names = ("sst2_bert", "sst2_bert_as_published")
    baselines = {name: baseline_of(of_recipe(records_of("lora"), name)) for name in names}
    check = RegressionCheck(baselines)
    worse = of_recipe(records_of("lora", (0.5, 0.5, 0.5)), names[1])
    records = [*of_recipe(records_of("lora"), names[0]), *worse]
    session = SimpleNamespace(exitstatus=0, testsfailed=0)
    result = regression_check.finish(session, records, check, {})  # type: ignore[arg-type]
    assert session.exitstatus == 1
    page = write_report(
        build_report(Comparison(tuple(records)), {}, check, result), tmp_path, pytest_command
    ).read_text(encoding="utf-8")
    sections = [
        re.search(rf'id="{name}-1-baseline".*?id="{name}-1-findings"', page, re.DOTALL)
        for name in names
    ]
    first, second = (match[0] for match in sections if match)
    assert "sst2_bert_as_published" not in first
    assert "accuracy fell from" not in first
    assert "sst2_bert-lora" not in second
    assert "sst2_bert_as_published-lora: accuracy fell from 90.0 % to 50.0 %" in second


def test_session_without_records_fails_every_baseline_method() -> None:
    baseline = read_baseline(next((BENCHMARK.parent / "baselines").glob("*/embedded.json")))
    entries = RegressionCheck({"embedded": baseline}).check_common([])
    assert [(entry.recipe, entry.method) for entry in entries] == [
        ("embedded", method) for method in CORE
    ]
    assert all(entry.is_failure for entry in entries)
    assert "embedded-full: in the baseline" in str(entries[0])


def test_spec_changes_ignore_expectations() -> None:
    (record,) = records_of("lora", (0.9,))
    stored = Entry(
        "embedded", "lora", (0,), {}, record.spec.flat(), record.data, record.environment
    )
    spec = with_settings(record.spec, ("expect.margin_over_majority", 0.4))
    assert spec_changes(stored, [replace(record, spec=spec)]) == []
    spec = replace(spec, prerequisites=(record.spec,))
    changes = spec_changes(stored, [replace(record, spec=spec)])
    assert changes[0] == "prerequisites [] → None"
    assert "prerequisites.0.method.rank None → 8" in changes


def test_auto_baseline_is_written_and_read_next_to_the_recipe_folder(
    tell: Any, pytester: pytest.Pytester
) -> None:
    recipe = pytester.mkdir("recipes") / "embedded.toml"
    recipe.write_text(find_recipe("embedded").read_text(encoding="utf-8"), encoding="utf-8")
    chosen = f"--peft-recipe={recipe}"
    place = Path("baselines/cpu/embedded.json").absolute()
    refused = error_line(tell(records_of("lora"), chosen, "--peft-baseline=auto"))
    assert (
        f"baseline: the file {place} does not exist. Write it first (--peft-save-baseline={place})."
        in refused
    )
    assert tell(records_of("lora"), chosen, "--peft-save-baseline=auto").ret == 0
    assert place.is_file()
    assert tell(records_of("lora"), chosen, "--peft-baseline=auto").ret == 0
    assert (
        tell(records_of("lora", (0.1, 0.1, 0.1)), chosen, "--peft-baseline=auto").ret
        == pytest.ExitCode.TESTS_FAILED
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "embedded.json"),
        ({"data": "My own.csv"}, "embedded.data-my-own-csv.json"),
        (
            {"model": "org/big", "data": "imdb", "weights": "random"},
            "embedded.model-org-big.data-imdb-random-weights.json",
        ),
    ],
)
def test_other_sources_have_a_baseline_of_their_own(changes: dict[str, str], name: str) -> None:
    recipe = load_recipe("embedded", **changes)
    assert auto_path(find_recipe("embedded"), recipe, "cpu").name == name


def test_baselines_of_two_long_sources_do_not_meet() -> None:
    names = set()
    for folder in ("a", "b"):
        recipe = load_recipe("embedded", data=f"/{folder}{300 * '/deep'}/own.csv")
        names.add(auto_path(find_recipe("embedded"), recipe, "cpu").name)
    assert len(names) == 2
    assert max(map(len, names)) < 120


def test_auto_baseline_of_own_data_is_read_again_and_not_the_recipes(
    tell: Any, pytester: pytest.Pytester
) -> None:
    (pytester.path / "own.csv").write_text("text,label\n", encoding="utf-8")
    own = "--peft-data=own.csv"
    assert tell(records_of("lora"), own, "--peft-save-baseline=auto").ret == 0
    (written,) = pytester.path.rglob("*.json")
    assert written == pytester.path / "benchmarks/baselines/cpu/embedded.data-own-csv.json"
    assert tell(records_of("lora"), own, "--peft-baseline=auto").ret == 0
    assert "embedded.json does not exist" in error_line(
        tell(records_of("lora"), "--peft-baseline=auto")
    )


def test_failed_session_writes_no_baseline(base: Any, tell: Any) -> None:
    result = base(
        records_of("lora"), records_of("lora", (0.1, 0.1, 0.1)), "--peft-save-baseline=next.json"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "the baseline was not written: 1 failed; a baseline must come from a session without "
        "failures." in result.stdout.str()
    )
    assert not Path("next.json").exists()
    nothing = tell(
        [make_record("lora", status="skipped", message="why", metrics={})],
        "--peft-save-baseline=next.json",
    )
    assert nothing.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "next.json would be empty, because no benchmark of embedded has results."
        in nothing.stdout.str()
    )


def entry(**changes: Any) -> dict[str, Any]:
    valid = {
        "schema_version": SCHEMA_VERSION,
        "recipe": "embedded",
        "method": "lora",
        "seeds": [0],
        "metrics": {"accuracy": [0.9]},
    }
    spec = make_record().spec.to_json()
    return {"extra_info": {**valid, "spec": spec, "data": {}, "environment": {}, **changes}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "the file b.json does not exist. Write it first (--peft-save-baseline=b.json)."),
        ("", "b.json is empty. Write it again"),
        ('{"benchmarks": [', "b.json is not valid JSON (Expecting value: line 1 column 17"),
        ("[" * 100_000, "b.json is not valid JSON"),
        ("[]", "b.json is not a pytest-benchmark JSON: it has no list of benchmarks."),
        ('{"benchmarks": []}', "b.json has no fine-tuning results (0 benchmarks of other kinds)"),
        (
            '{"benchmarks": [3]}',
            "(1 benchmark of other kinds). Write it again (--peft-save-baseline=b.json).",
        ),
        (
            '{"benchmarks": [{"extra_info": {}}, 3]}',
            "has no fine-tuning results (2 benchmarks of other kinds)",
        ),
        (
            {"benchmarks": [entry(schema_version=SCHEMA_VERSION + 1)]},
            f"b.json has schema version {SCHEMA_VERSION + 1}, newer than {SCHEMA_VERSION}. Update",
        ),
        (
            {"benchmarks": [entry()], "earlier_sessions": [{}]},
            "b.json is invalid at earlier_sessions: it must be a list of sessions",
        ),
        ({"benchmarks": [entry(seeds=[])]}, "the entry of embedded-lora is invalid at seeds:"),
        (
            {"benchmarks": [entry(metrics={"accuracy": ["x"]})]},
            "the entry of embedded-lora is invalid at metrics.accuracy.0:",
        ),
        (
            {"benchmarks": [entry(environment={"packages": 1})]},
            "the entry of embedded-lora is invalid at environment: "
            "Value error, packages must map names to versions",
        ),
        (
            {"benchmarks": [entry(), entry(seeds=[7])]},  # equal ones are of several tests
            "b.json has two entries of embedded-lora. Delete one.",
        ),
    ],
)
def test_invalid_baseline_file_ends_in_one_line_and_exit_4(
    tell: Any, text: Any, expected: str
) -> None:
    if text is not None:
        Path("b.json").write_text(
            text if isinstance(text, str) else json.dumps(text), encoding="utf-8"
        )
    line = error_line(tell(records_of("lora"), "--peft-baseline=b.json"))
    assert "baseline" in line
    assert expected in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--peft-fail=acuracy:1pp"],
            "tolerance 'acuracy:1pp': unknown metric 'acuracy'. Did you mean 'accuracy'?",
        ),
        (
            ["--peft-fail=accuracy"],
            "must have the form METRIC:TOLERANCE, for example accuracy:1pp (points) or "
            "train_seconds:10%",
        ),
        (["--peft-fail=accuracy:-1pp"], "must have the form METRIC:TOLERANCE"),
        (["--peft-fail=accuracy:1"], "must have the form METRIC:TOLERANCE"),
        (
            ["--peft-fail=train_seconds:1pp"],
            "points (pp) are only for shares such as accuracy; "
            "write train_seconds:1% (of the baseline).",
        ),
        (
            ["--peft-fail=head_parameters:1%"],
            "neither higher nor lower head_parameters is better",
        ),
        (
            ["--peft-fail=accuracy:1pp", "--peft-fail=accuracy:2pp"],
            "accuracy has more than one tolerance",
        ),
        (["--peft-save-baseline=no/such/b.json"], "the folder no/such does not exist"),
    ],
)
def test_invalid_regression_option_ends_in_one_line_and_exit_4(
    tell: Any, arguments: list[str], expected: str
) -> None:
    Path("b.json").write_text(json.dumps({"benchmarks": [entry()]}), encoding="utf-8")
    assert expected in error_line(tell(records_of("lora"), "--peft-baseline=b.json", *arguments))


@pytest.mark.parametrize(
    "option", ["--peft-fail=accuracy:1pp", "--peft-allow-missing", "--peft-allow-reused"]
)
def test_regression_option_without_baseline_is_rejected(tell: Any, option: str) -> None:
    line = error_line(tell(records_of("lora"), option))
    assert option.partition("=")[0] in line
    assert line.endswith("add --peft-baseline FILE|auto.")


@given(st.text(max_size=25))
def test_any_text_is_parsed_or_rejected_as_a_tolerance(text: str) -> None:
    try:
        (tolerance,) = (
            parse_tolerances([text]) if "," not in text else (parse_tolerance("accuracy:1pp"),)
        )
    except OptionError as error:
        assert "tolerance" in str(error)
    else:
        assert parse_tolerance(str(tolerance)) == tolerance


@given(
    st.sampled_from(
        [name for name, metric in METRICS.items() if metric.higher_is_better is not None]
    ),
    st.floats(1e-3, 1e6),
    st.floats(1e-3, 1e6),
)
def test_tolerance_worse_follows_the_direction_of_the_metric(
    name: str, before: float, now: float
) -> None:
    tolerance = parse_tolerance(f"{name}:5%")
    worse = tolerance.worse(before, now)
    assert (worse > 0) == (
        (now > before) if METRICS[name].higher_is_better is False else (now < before)
    )
    assert not tolerance.is_exceeded(tolerance.worse(before, before))
    assert abs(worse) == pytest.approx(abs(now - before) / before)


def test_tolerance_of_one_point_accepts_one_point() -> None:
    assert not parse_tolerance("accuracy:1pp").is_exceeded(
        parse_tolerance("accuracy:1pp").worse(0.90, 0.89)
    )
    assert parse_tolerance("thermal_slowdown_seconds:5%").worse(0.0, 0.1) == float("inf")


@given(st.text(max_size=20))
def test_slug_of_any_device_name_is_a_folder_name(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(name))
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.slow
def test_regression_check_compares_two_trained_sessions(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    """Trains, writes a baseline, trains again and compares, without given records.

    pytest-benchmark's own JSON is a valid baseline too.
    """
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    plain = (
        "-p",
        "peft_methods.plugin",
        "-p",
        "no:cacheprovider",
        f"--peft-recipe={tiny_recipe}",
        "--peft-method=head_only",
    )
    saved = pytester.runpytest_subprocess(
        *plain, "--peft-save-baseline=base.json", "--benchmark-json=own.json"
    )
    assert saved.ret == 0
    own, stored = (
        json.loads(Path(name).read_text(encoding="utf-8")) for name in ("own.json", "base.json")
    )
    assert own.keys() == stored.keys()
    assert own["benchmarks"][0]["stats"] == stored["benchmarks"][0]["stats"]
    assert stored["benchmarks"][0]["params"] == {"finetune_task": "tiny-head_only"}
    for name in ("own.json", "base.json"):
        same = pytester.runpytest_inprocess(
            *plain, f"--peft-baseline={name}", "--peft-fail=accuracy:1pp", "--peft-fresh"
        )
        assert same.ret == 0, same.stdout.str()
        assert PASSED in same.stdout.str()
    stored["benchmarks"][0]["extra_info"]["metrics"]["accuracy"] = [1.5, 1.5]
    Path("base.json").write_text(json.dumps(stored), encoding="utf-8")
    worse = pytester.runpytest_inprocess(*plain, "--peft-baseline=base.json", "--peft-allow-reused")
    assert worse.ret == pytest.ExitCode.TESTS_FAILED
    assert "regression check: tiny-head_only: accuracy fell from 150.0 % to " in worse.stdout.str()
