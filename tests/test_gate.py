"""The regression gate as its users meet it: figures are told, all that judges them is real; one run trains for real."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import BENCHMARK, error_line, make_record, records_of
from peft_methods import gate as gates
from peft_methods.baseline import Entry, auto_path, read_baseline, slug
from peft_methods.errors import OptionError
from peft_methods.metrics import METRICS
from peft_methods.recipe import find_recipe, load_recipe
from peft_methods.records import SCHEMA_VERSION
from peft_methods.statistics import explained_by_seeds, shift_p
from peft_methods.tolerances import parse_tolerance, parse_tolerances

Figures = dict[str, list[float]]
METHODS = ("full", "head_only", "bitfit", "lora", "qlora", "ia3", "adapter", "adapter_fusion")


def problems(result: pytest.RunResult) -> list[str]:
    """The gate's failing lines in its own section at the end; pytest's summary, which in CI repeats whole messages, comes after it."""
    out = result.stdout.str()
    assert "Traceback" not in out + result.stderr.str()
    section = out.partition("= regression gate =")[2].partition("= short test summary info =")[0]
    return [line for line in section.splitlines() if line.startswith("gate: ")]


def test_the_same_figures_pass(base: Any) -> None:
    before = [*records_of("full"), *records_of("lora")]
    result = base(before, before)
    assert result.ret == 0
    out = result.stdout.str()
    date = json.loads(Path("base.json").read_text(encoding="utf-8"))["datetime"][:10]
    said = rf"embedded: judged against base\.json of {date}, commit \w+; tolerances accuracy:1pp, peak_memory_bytes:5%, train_seconds:10%"
    assert re.search(said, out)
    assert "Nothing is worse beyond its tolerance and what seeds explain." in out


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            {"accuracy": (0.1, 0.1, 0.1)},
            r"accuracy fell from 90\.0 % to 10\.0 %, worse by 80pp \(tolerance 1pp; seeds explain 1\.\d+pp\)",
        ),
        (
            {"seconds": [100.0] * 3},
            r"train_seconds rose from 10\.0 s to 100\.0 s, worse by 900% \(tolerance 10%; seeds explain 0%\)",
        ),
        (
            {"memory": [1.06 * 2**28] * 3},
            r"peak_memory_bytes rose from 256\.0 MiB to 271\.4 MiB, worse by 6% \(tolerance 5%; ",
        ),
    ],
)
def test_what_got_worse_fails_its_test_and_no_other(
    base: Any, now: dict[str, Any], said: str
) -> None:
    result = base(
        [*records_of("full"), *records_of("lora")],
        [*records_of("full"), *records_of("lora", **now)],
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    (problem,) = problems(result)
    assert re.match(
        rf"gate: embedded-lora: {said}.*Baseline: base\.json of \d{{4}}-\d\d-\d\d, commit \w+\.",
        problem,
    )
    assert result.stdout.str().count(problem) > 1  # the test's own message, and at the end


def test_a_time_that_a_busy_machine_spoilt_is_said_to_be_one(base: Any) -> None:
    busy = [
        replace(record, metrics={**record.metrics, "busy_share": 0.4})
        for record in records_of("lora", seconds=[100.0] * 3)
    ]
    (problem,) = problems(base(records_of("lora"), busy))
    assert (
        "The machine was busy: the training thread had a core for 40% of the time (V411), so measure it again alone."
        in problem
    )
    worse = [
        replace(record, metrics={**record.metrics, "busy_share": 0.4})
        for record in records_of("lora", (0.1, 0.1, 0.1))
    ]
    (problem,) = problems(base(records_of("lora"), worse))
    assert "busy" not in problem


def test_better_is_no_reason_to_fail(base: Any) -> None:
    better = records_of("lora", (0.99, 0.99, 0.99), seconds=[1.0] * 3, memory=[2.0**20] * 3)
    assert base(records_of("lora"), better).ret == 0


def test_what_the_seeds_explain_passes_and_one_seed_has_only_the_tolerance(
    base: Any, tell: Any
) -> None:
    shaky = records_of("lora", (0.90, 0.84, 0.87))
    assert base(shaky, records_of("lora", (0.85, 0.88, 0.82))).ret == 0
    one = tell(records_of("lora", (0.85,)), "--peft-baseline=base.json")
    assert one.ret == pytest.ExitCode.TESTS_FAILED
    assert "worse by 2pp (tolerance 1pp; one seed: no spread to judge by)" in problems(one)[0]
    assert tell(records_of("lora", (0.865,)), "--peft-baseline=base.json").ret == 0


def test_tolerances_of_ones_own_replace_the_default_ones(base: Any, tell: Any) -> None:
    slower = records_of("lora", (0.80, 0.81, 0.79), seconds=[10.4] * 3)
    assert base(records_of("lora"), slower, "--peft-fail=accuracy:12pp").ret == 0
    strict = tell(
        slower,
        "--peft-baseline=base.json",
        "--peft-fail=accuracy:12pp,train_seconds:3%",
        "--peft-fail=peak_memory_bytes:0%",
    )
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    assert "worse by 4% (tolerance 3%;" in problems(strict)[0]
    assert "tolerances accuracy:12pp, train_seconds:3%, peak_memory_bytes:0%" in strict.stdout.str()


def test_macro_f1_is_judged_where_the_recipe_selects_by_it() -> None:
    (record,) = records_of("lora", (0.9,))
    record.cell["recipe"]["data"]["select_by"] = "macro_f1"
    assert [str(one) for one in gates.Gate({}).tolerances_for(record)] == [
        "macro_f1:1pp",
        "peak_memory_bytes:5%",
        "train_seconds:10%",
    ]


def test_a_method_missing_on_either_side_fails_unless_allowed(base: Any, tell: Any) -> None:
    result = base(
        [*records_of("full"), *records_of("lora")], [*records_of("full"), *records_of("ia3")]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    new, old = problems(result)
    assert re.match(
        r"gate: embedded-ia3 is missing from the baseline base\.json of .*, which has full, lora\. Write the baseline anew",
        new,
    )
    assert re.match(
        r"gate: embedded-lora is in the baseline base\.json of .* and missing from the run\. Write the baseline anew",
        old,
    )
    allowed = tell(
        [*records_of("full"), *records_of("ia3")],
        "--peft-baseline=base.json",
        "--peft-allow-missing",
    )
    assert allowed.ret == 0
    assert re.search(
        r"embedded-lora: is in the baseline .* missing from the run \(allowed\)",
        allowed.stdout.str(),
    )


def test_a_run_whose_tests_all_pass_fails_for_a_method_that_did_not_run(base: Any) -> None:
    result = base([*records_of("full"), *records_of("lora")], records_of("full"))
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    skipped = [make_record("lora", status="skipped", message="no bitsandbytes", metrics={})]
    again = base([*records_of("full"), *records_of("lora")], [*records_of("full"), *skipped])
    assert again.ret == pytest.ExitCode.TESTS_FAILED
    assert "missing from the run (skipped: no bitsandbytes)" in problems(again)[0]


def test_a_metric_that_is_gone_fails(base: Any) -> None:
    result = base(records_of("lora"), records_of("lora", memory=[None] * 3))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "embedded-lora has no peak_memory_bytes, which the baseline base.json of"
        in problems(result)[0]
    )


def test_on_another_device_quality_alone_is_compared(base: Any, tell: Any) -> None:
    gpu = {"device_name": "NVIDIA H100", "device": "cuda"}
    dear = {"seconds": [500.0] * 3, "memory": [2.0**33] * 3, "environment": gpu}
    passed = base(records_of("lora"), records_of("lora", **dear))
    assert passed.ret == 0
    said = "every method: another device (a cpu, 2 threads → NVIDIA H100): time and memory are not compared, quality is"
    assert said in passed.stdout.str()
    failed = tell(records_of("lora", (0.5, 0.5, 0.5), **dear), "--peft-baseline=base.json")
    assert failed.ret == pytest.ExitCode.TESTS_FAILED
    assert [line.split(": ")[2].split()[0] for line in problems(failed)] == ["accuracy"]


def test_other_versions_recipe_and_seeds_are_said_with_what_differs(base: Any) -> None:
    before = [*records_of("full"), *records_of("lora")]
    newer = {"packages": {"torch": "2.12.0"}}
    now = [
        *records_of("full", (0.9, 0.91), environment=newer),
        *records_of("lora", (0.5, 0.5), environment=newer),
    ]
    for record in now:
        record.cell["recipe"]["budget"]["epochs"] = 1
    now[-1].cell["method"]["rank"] = 4
    now[-2].cell["method"]["rank"] = 4
    result = base(before, now)
    out = result.stdout.str()
    assert (
        "every method: differs from the baseline: seeds 0, 1, 2 → 0, 1; budget.epochs 2 → 1; torch 2.11.0 → 2.12.0"
        in out
    )
    assert "embedded-lora: differs from the baseline: method.rank 8 → 4" in out
    assert (
        "Differs: seeds 0, 1, 2 → 0, 1; budget.epochs 2 → 1; method.rank 8 → 4; torch 2.11.0 → 2.12.0."
        in problems(result)[0]
    )


def test_a_shift_common_to_all_is_found_where_none_is_separable_alone(base: Any) -> None:
    rng = np.random.default_rng(4)
    before, now = [], []
    for number, method in enumerate(METHODS):
        seeds = 0.85 + 0.01 * number + np.asarray([-0.023, 0.0, 0.023])
        before += records_of(method, seeds.tolist())
        now += records_of(method, (seeds - 0.0165 + 0.002 * rng.standard_normal()).tolist())
    result = base(before, now)
    result.assert_outcomes(passed=8)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (problem,) = problems(result)
    said = r"gate: embedded: 8 of 8 methods are worse in accuracy, by 1\.6\d*pp on average \(tolerance 1pp; p = \S+ across methods\)"
    assert re.match(rf"{said}: a common shift\. Baseline: base\.json of", problem)


def test_reused_records_are_not_judged_unless_allowed(base: Any, tell: Any) -> None:
    result = base(
        records_of("lora"),
        [replace(record, reused=True) for record in records_of("lora", (0.1, 0.1, 0.1))],
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (problem,) = problems(result)
    assert (
        "3 of 3 records of embedded-lora are reused from an earlier run, so they are not judged: train them anew (--peft-fresh), or"
        in problem
    )
    mixed = [replace(record, reused=record.seed < 2) for record in records_of("lora")]
    allowed = tell(
        mixed, "--peft-baseline=base.json", "--peft-allow-reused", "--peft-save-baseline=now.json"
    )
    assert allowed.ret == 0
    assert (
        "baseline written: now.json (1 methods, 2 cells of an earlier run)" in allowed.stdout.str()
    )
    (entry,) = json.loads(Path("now.json").read_text(encoding="utf-8"))["benchmarks"]
    assert (entry["extra_info"]["seeds"], entry["extra_info"]["reused"]) == ([0, 1, 2], [0, 1])
    assert entry["stats"]["rounds"] == 3  # times as they were measured then


def test_the_stored_baselines_can_be_read() -> None:
    paths = sorted((BENCHMARK.parent / "baselines").glob("*/*.json"))
    assert paths
    for path in paths:
        name, random, _ = path.stem.partition("-random-weights")
        recipe = load_recipe(name, ["model.weights=random"] if random else [])
        baseline = read_baseline(path)
        entry = baseline.entries[name, "lora"]
        assert len(entry.values("train_seconds")) == len(entry.seeds)
        assert len(entry.values("accuracy")) == (0 if random else 3)
        device = str(entry.environment["device_name"])
        assert auto_path(find_recipe(name), recipe, device).samefile(path)


def test_a_baseline_says_where_its_code_was_no_commits(tmp_path: Path) -> None:
    path = sorted((BENCHMARK.parent / "baselines").glob("*/embedded.json"))[0]
    document = json.loads(path.read_text(encoding="utf-8"))
    for dirty, end in ((True, " with changes"), (False, document["commit_info"]["id"][:10])):
        document["commit_info"]["dirty"] = dirty
        (tmp_path / "base.json").write_text(json.dumps(document), encoding="utf-8")
        assert str(read_baseline(tmp_path / "base.json")).endswith(end)


def test_a_run_without_any_record_passes_for_none() -> None:
    baseline = read_baseline(next((BENCHMARK.parent / "baselines").glob("*/embedded.json")))
    problems = gates.Gate({"embedded": baseline}).judge_together([]).problems
    assert len(problems) == len(METHODS)
    assert "embedded-full is in the baseline" in problems[0]


def test_what_only_judges_the_result_is_no_difference() -> None:
    (record,) = records_of("lora", (0.9,))
    spec = {name: value for name, value in record.cell.items() if name != "seed"}
    stored = Entry(
        "embedded", "lora", (0,), {}, json.loads(json.dumps(spec)), record.data, record.environment
    )
    record.cell["recipe"]["expect"]["margin_over_majority"] = 0.4
    assert gates.differences(stored, [record]) == []
    record.cell["stages"] = [{"method": {"rank": 2}}]
    assert gates.differences(stored, [record]) == [
        "stages [] → None",
        "stages.0.method.rank None → 2",
    ]


def test_auto_writes_and_reads_beside_the_recipe(tell: Any, pytester: pytest.Pytester) -> None:
    recipe = pytester.mkdir("recipes") / "embedded.toml"
    recipe.write_text(find_recipe("embedded").read_text(encoding="utf-8"), encoding="utf-8")
    chosen = f"--peft-recipe={recipe}"
    place = Path("baselines/cpu/embedded.json").absolute()
    refused = error_line(tell(records_of("lora"), chosen, "--peft-baseline=auto"))
    assert (
        f"--peft-baseline: there is no file {place}; write it with --peft-save-baseline {place}."
        in refused
    )
    assert tell(records_of("lora"), chosen, "--peft-save-baseline=auto").ret == 0
    assert place.is_file()
    assert tell(records_of("lora"), chosen, "--peft-baseline=auto").ret == 0
    assert (
        tell(records_of("lora", (0.1, 0.1, 0.1)), chosen, "--peft-baseline=auto").ret
        == pytest.ExitCode.TESTS_FAILED
    )


def test_a_run_that_failed_is_no_baseline(base: Any, tell: Any) -> None:
    result = base(
        records_of("lora"), records_of("lora", (0.1, 0.1, 0.1)), "--peft-save-baseline=next.json"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "the baseline was not written: 1 failed, and a baseline is what later runs are held to."
        in result.stdout.str()
    )
    assert not Path("next.json").exists()
    nothing = tell(
        [make_record("lora", status="skipped", message="why", metrics={})],
        "--peft-save-baseline=next.json",
    )
    assert nothing.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "next.json would hold nothing, no benchmark of embedded gave figures."
        in nothing.stdout.str()
    )


def entry(**changes: Any) -> dict[str, Any]:
    sound = {
        "schema_version": 1,
        "recipe": "embedded",
        "method": "lora",
        "seeds": [0],
        "metrics": {"accuracy": [0.9]},
    }
    return {"extra_info": {**sound, "spec": {}, "data": {}, "environment": {}, **changes}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file b.json; write it with --peft-save-baseline b.json."),
        ("", "b.json is empty; write it anew"),
        ('{"benchmarks": [', "b.json is not valid JSON (Expecting value: line 1 column 17"),
        ("[" * 100_000, "b.json is not valid JSON"),
        ("[]", "b.json is no pytest-benchmark JSON: it has no list of benchmarks."),
        ('{"benchmarks": []}', "b.json holds no fine-tuning figures (0 benchmarks of other kinds)"),
        (
            '{"benchmarks": [{"extra_info": {}}, 3]}',
            "holds no fine-tuning figures (2 benchmarks of other kinds)",
        ),
        (
            {"benchmarks": [entry(schema_version=SCHEMA_VERSION + 1)]},
            "b.json has schema version 2, newer than 1; update peft-methods",
        ),
        ({"benchmarks": [entry(seeds=[])]}, "the figures of embedded-lora are spoilt at seeds:"),
        (
            {"benchmarks": [entry(metrics={"accuracy": ["x"]})]},
            "the figures of embedded-lora are spoilt at metrics.accuracy.0:",
        ),
        (
            {"benchmarks": [entry(), entry()]},
            "b.json has two entries of embedded-lora; leave one of them.",
        ),
    ],
)
def test_a_file_that_is_no_baseline_is_one_line_and_exit_4(tell: Any, text: Any, said: str) -> None:
    if text is not None:
        Path("b.json").write_text(
            text if isinstance(text, str) else json.dumps(text), encoding="utf-8"
        )
    line = error_line(tell(records_of("lora"), "--peft-baseline=b.json"))
    assert "--peft-baseline" in line
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--peft-fail=acuracy:1pp"],
            "--peft-fail 'acuracy:1pp': unknown metric 'acuracy'. Did you mean 'accuracy'?",
        ),
        (
            ["--peft-fail=accuracy"],
            "should read METRIC:TOLERANCE, for example accuracy:1pp (points) or train_seconds:10%",
        ),
        (["--peft-fail=accuracy:-1pp"], "should read METRIC:TOLERANCE"),
        (["--peft-fail=accuracy:1"], "should read METRIC:TOLERANCE"),
        (
            ["--peft-fail=train_seconds:1pp"],
            "points are for shares such as accuracy; write train_seconds:1% (of the baseline).",
        ),
        (["--peft-fail=head_parameters:1%"], "neither more nor less of head_parameters is better"),
        (
            ["--peft-fail=accuracy:1pp", "--peft-fail=accuracy:2pp"],
            "--peft-fail names accuracy twice",
        ),
        (["--peft-save-baseline=no/such/b.json"], "the folder no/such does not exist"),
    ],
)
def test_a_bad_gate_option_is_one_line_and_exit_4(
    tell: Any, arguments: list[str], said: str
) -> None:
    Path("b.json").write_text(json.dumps({"benchmarks": [entry()]}), encoding="utf-8")
    assert said in error_line(tell(records_of("lora"), "--peft-baseline=b.json", *arguments))


@pytest.mark.parametrize(
    "option", ["--peft-fail=accuracy:1pp", "--peft-allow-missing", "--peft-allow-reused"]
)
def test_how_to_judge_without_a_baseline_is_refused(tell: Any, option: str) -> None:
    said = error_line(tell(records_of("lora"), option))
    assert said.endswith(
        f"{option.partition('=')[0]} says how to judge and nothing is judged: add --peft-baseline FILE|auto."
    )


@given(st.text(max_size=25))
def test_any_text_is_a_tolerance_or_refused_by_name(text: str) -> None:
    try:
        (tolerance,) = (
            parse_tolerances([text]) if "," not in text else (parse_tolerance("accuracy:1pp"),)
        )
    except OptionError as error:
        assert "--peft-fail" in str(error)
    else:
        assert parse_tolerance(str(tolerance)) == tolerance


@given(
    st.sampled_from([name for name, metric in METRICS.items() if metric.better]),
    st.floats(1e-3, 1e6),
    st.floats(1e-3, 1e6),
)
def test_worse_is_in_the_metrics_own_direction(name: str, before: float, now: float) -> None:
    tolerance = parse_tolerance(f"{name}:5%")
    worse = tolerance.worse(before, now)
    assert (worse > 0) == ((now > before) if METRICS[name].better == "lower" else (now < before))
    assert not tolerance.is_exceeded(tolerance.worse(before, before))
    assert abs(worse) == pytest.approx(abs(now - before) / before)


def test_a_point_is_within_a_point() -> None:
    assert not parse_tolerance("accuracy:1pp").is_exceeded(
        parse_tolerance("accuracy:1pp").worse(0.90, 0.89)
    )
    assert parse_tolerance("thermal_slowdown_seconds:5%").worse(0.0, 0.1) == float("inf")


@given(st.text(max_size=20))
def test_any_devices_name_is_a_folders(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(name))
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_the_gates_false_alarm_rate_over_eight_methods_run_again() -> None:
    """The same eight methods again, other luck with seeds (standard deviation 2.3 points): one alarm in twenty runs at most, about."""
    rng, alarms = np.random.default_rng(6), 0
    for _ in range(1000):
        before, now = rng.normal(0.8, 0.023, (2, 8, 3)).tolist()
        worse = [float(np.mean(b) - np.mean(n)) for b, n in zip(before, now, strict=True)]
        explained = [
            explained_by_seeds(before[i], now[i], before[:i] + before[i + 1 :]) for i in range(8)
        ]
        alone = any(w > max(0.01, e or 0.0) for w, e in zip(worse, explained, strict=True))
        alarms += alone
    print(f"\neight methods run again: a false alarm of the gate in {alarms / 1000:.1%}")
    assert alarms <= 64


def test_shifts_by_hand() -> None:
    from scipy import stats

    changes = [0.01, 0.02, 0.015, 0.03]
    assert shift_p(changes) == pytest.approx(
        stats.ttest_1samp(changes, 0, alternative="greater").pvalue
    )
    assert shift_p([0.1, 0.1]) == shift_p([-0.1, -0.2, -0.3]) == 1
    assert shift_p([0.01, 0.01, 0.01, 0.01]) < 1e-6
    assert shift_p([0.8, *[0.0] * 7]) > 0.05


def test_a_trained_run_is_judged_by_another(pytester: pytest.Pytester, tiny_recipe: Path) -> None:
    """Nothing told: trained, written, trained again, judged; pytest-benchmark's own JSON is a baseline as well."""
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
        assert "Nothing is worse beyond its tolerance and what seeds explain." in same.stdout.str()
    stored["benchmarks"][0]["extra_info"]["metrics"]["accuracy"] = [1.5, 1.5]
    Path("base.json").write_text(json.dumps(stored), encoding="utf-8")
    worse = pytester.runpytest_inprocess(*plain, "--peft-baseline=base.json", "--peft-allow-reused")
    assert worse.ret == pytest.ExitCode.TESTS_FAILED
    assert "gate: tiny-head_only: accuracy fell from 150.0 % to " in worse.stdout.str()
