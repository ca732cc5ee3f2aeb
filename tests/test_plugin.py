"""The plugin as users meet it: options, ids, JSON, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import BENCHMARK, error_line, make_data, make_model, make_rows, write_csv
from peft_methods.cli.arguments import add_options
from peft_methods.cli.parsing import parse_seeds
from peft_methods.cli.setting_help import OPTIONS, how_to_change
from peft_methods.recipes.loading import shipped_recipes
from peft_methods.runs.record import SCHEMA_VERSION
from peft_methods.utils.errors import DataError, OptionError


@pytest.fixture
def run(pytester: pytest.Pytester, tiny_recipe: Path) -> Any:
    """Return a function that runs pytest on the benchmark, with the tiny recipe by default."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))

    def go(
        *arguments: str, recipe: str | None = str(tiny_recipe), own_process: bool = False
    ) -> pytest.RunResult:
        chosen = [f"--peft-recipe={recipe}"] if recipe else []
        start = pytester.runpytest_subprocess if own_process else pytester.runpytest_inprocess
        return start("-p", "peft_methods.plugin", "-p", "no:cacheprovider", *chosen, *arguments)

    return go


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peft-method=loar"], "unknown method 'loar'. Did you mean 'lora'?"),
        (["--peft-method=lora,,ia3"], "has an empty name"),
        (["--peft-seeds=0"], "seeds 0 would train nothing"),
        (["--peft-seeds=x"], "seeds 'x' should be a number of seeds"),
        (["--peft-seeds=1,1"], "contains a seed twice"),
        (["--peft-set=budget.seeds=[2,2]"], "contains a seed twice"),
        (
            ["--peft-set=budget.epoch=3"],
            "tiny.toml: unknown key 'budget.epoch'. Did you mean 'epochs'?",
        ),
        (["--peft-set=methods.lora.rank=0"], "rank = 0 should be greater than or equal to 1"),
        (["--peft-set=methods.loar.rank=1"], "unknown method 'loar'. Did you mean 'lora'?"),
        (["--peft-set=budget"], "should have the form KEY=VALUE"),
        (["--peft-weights=foo"], "unknown weights 'foo'. Allowed: pretrained, random."),
        (["--peft-weights="], "unknown weights ''. Allowed: pretrained, random."),
        (["--peft-workers=0"], "workers '0' should be a whole number from 1 to"),
        (
            ["--peft-set=budget.precision=tf32"],
            "'tf32' needs an NVIDIA GPU and none is visible. Allowed here: fp32, bf16",
        ),
        (
            ["--peft-set=budget.precision=fp16"],
            "recipe 'tiny': budget.precision = 'fp16' needs an NVIDIA GPU and none is visible.",
        ),
        (
            ["--peft-engine=graphed"],
            "engine 'cuda_graphs' needs an NVIDIA GPU and none is visible. "
            "Allowed here: auto, trainer. Change it with --peft-engine.",
        ),
        (
            ["--peft-engine=cuda_graph"],
            "unknown engine 'cuda_graph'. Did you mean 'cuda_graphs'? "
            "Allowed: auto, trainer, cuda_graphs.",
        ),
        (
            ["--peft-tune=0"],
            "tune '0' should be a whole number of trials per method, 1 or more. "
            "Change it with --peft-tune.",
        ),
        (["--peft-tune=many"], "tune 'many' should be a whole number of trials"),
        (
            ["--peft-tune=2", "--peft-weights=random"],
            "recipe 'tiny' cannot be tuned: its weights are random, so it has no quality to tune.",
        ),
        (["--peft-tune=2", "--peft-set=tuning.points=4"], "tuning.points = 4 should be odd"),
        (
            ["--peft-tune=2", "--peft-set=tuning.knobs.lora.rnk=[2,4]"],
            "unknown hyperparameter 'rnk'. Did you mean 'rank'?",
        ),
        (
            ["--peft-tune=2", "--peft-set=tuning.knobs.lora.rank=[0,4]"],
            "rank = 0 should be greater than or equal to 1",
        ),
        (
            ["--peft-tune=2", "--peft-set=tuning.knobs.loar.rank=[2,4]"],
            "unknown method 'loar'. Did you mean 'lora'?",
        ),
        (
            ["--peft-timeout=90"],
            "timeout '90' should be a time above 0 with its unit, for example 90s, 10min or 2h.",
        ),
        (["--peft-timeout=0s"], "timeout '0s' should be a time above 0"),
        (["--peft-timeout=soon"], "timeout 'soon' should be a time above 0"),
        (
            ["--peft-retries=-1"],
            "retries '-1' should be a whole number of retries, 0 or more.",
        ),
        (["--peft-csv=no/such/folder/t.csv"], "the folder no/such/folder does not exist"),
        (["--peft-save-models=test_finetune.py"], "is a file; give a folder"),
        (
            ["--peft-results=test_finetune.py/x"],
            "Choose another folder for `results`. Change it with --peft-results.",
        ),
    ],
)
def test_bad_option_prints_one_line_and_exits_with_4(
    run: Any, arguments: list[str], message: str
) -> None:
    assert message in error_line(run(*arguments))


def test_bad_recipe_prints_one_line_and_exits_with_4(run: Any, pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", broken="name = [")
    assert "broken.toml is not valid TOML" in error_line(run(recipe="broken.toml"))
    assert "unknown recipe 'embeded'. Did you mean 'embedded'?" in error_line(run(recipe="embeded"))


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", 3), ("4,7", [4, 7]), ("0,", [0]), (" 2 , 1 ", [2, 1])]
)
def test_parse_seeds_reads_numbers_and_lists(text: str, seeds: Any) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "-1", "1.5", "0", "٣", "1;2"])
def test_parse_seeds_refuses_other_texts(text: str) -> None:
    with pytest.raises(OptionError, match=r"^seeds "):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("", ""),
        ("workers", "--peft-workers"),
        ("allow_missing", "--peft-allow-missing"),
        ("trials", "--peft-tune"),
        ("budget.seeds", "--peft-seeds"),
        ("model.source", "--peft-model"),
        ("data.source", "--peft-data"),
        ("budget.precision", "--peft-set budget.precision=VALUE"),
        ("gpu", "--peft-set gpu=VALUE"),
    ],
)
def test_how_to_change_names_the_option(setting: str, change: str) -> None:
    assert how_to_change(setting) == change


def test_how_to_change_covers_every_option() -> None:
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    options = {name for group in parser._groups for one in group.options for name in one.names()}
    assert {f"--peft-{name.replace('_', '-')}" for name in OPTIONS} | {"--peft-set"} == options


@pytest.mark.parametrize("arguments", [[], ["--peft-dry-run"]])
def test_failed_preparation_names_the_option_of_its_setting(
    run: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    def fail(*_: Any, **more: Any) -> None:
        raise DataError("the texts are too long.", setting="data.max_length")

    monkeypatch.setattr("peft_methods.runs.scheduler.Scheduler.prepare", fail)
    result = run("--peft-method=lora", *arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    change = "Change it with --peft-set data.max_length=VALUE."
    assert f"the texts are too long. {change}" in result.stdout.str()


def test_benchmarks_have_ids_and_a_default_selection(run: Any) -> None:
    result = run("--collect-only", "-q", recipe=None)
    result.stdout.fnmatch_lines(
        ["*::test_finetune[[]embedded-full]", "*::test_finetune[[]embedded-adapter_fusion]"]
    )
    assert result.parseoutcomes() == {"tests": 8} or "8 tests collected" in result.stdout.str()
    listed = run("--collect-only", "-q", "--peft-method=ia3,lora").stdout
    listed.fnmatch_lines(["*::test_finetune[[]tiny-lora]", "*::test_finetune[[]tiny-ia3]"])


def test_gpu_recipes_are_selected_by_marker_and_skipped_without_a_gpu(run: Any) -> None:
    result = run("-m", "gpu", "--peft-method=lora,ia3", recipe=None)
    assert result.ret == 0
    result.assert_outcomes(skipped=2, deselected=2)
    assert (
        "LoRA, IA3: skipped: recipe 'imdb_roberta' needs an NVIDIA GPU and none is visible"
        in result.stdout.str()
    )


def test_recipe_all_selects_every_shipped_recipe(run: Any) -> None:
    listed = run("--collect-only", "-q", "--peft-method=full", recipe="all").stdout.str()
    assert set(re.findall(r"test_finetune\[(\w+)-full\]", listed)) == set(shipped_recipes())
    beside = run("--collect-only", "-q", "--peft-method=full", recipe="all,embedded").stdout.str()
    assert beside.count("[embedded-full]") == 1


def test_benchmark_json_is_written_when_everything_is_skipped(tmp_path: Path) -> None:
    """Uses this repository's own settings, where pytest-benchmark's warning would be an error."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(BENCHMARK),
        "--peft-recipe=imdb_mpnet",
        "--peft-method=lora",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--benchmark-json={tmp_path / 'b.json'}", f"--peft-results={tmp_path}"]
    there = {"cwd": BENCHMARK.parents[1], "env": {**os.environ, "CUDA_VISIBLE_DEVICES": ""}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **there)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "1 skipped" in done.stdout


def test_gpu_recipe_with_gpu_precision_is_skipped_without_a_gpu(run: Any) -> None:
    result = run("--peft-method=lora", "--peft-set=budget.precision=fp16", recipe="imdb_roberta")
    assert result.ret == 0
    result.assert_outcomes(skipped=1)


def test_every_budget_option_is_applied_and_listed_in_the_table(run: Any) -> None:
    wanted = [
        "epochs=9",
        "early_stopping=1",
        "gradient_accumulation=2",
        "gradient_checkpointing=true",
        "padding=fixed",
    ]
    result = run(
        "--peft-method=head_only",
        "--peft-seeds=1",
        "--peft-checkpoint",
        "--peft-deterministic",
        *(f"--peft-set=budget.{one}" for one in wanted),
        "--peft-set=methods.head_only.learning_rate=0.5",
    )
    out = result.stdout.str()
    assert "up to 9 epochs (" in out
    assert ", batch 8 × 2, max length 16, fp32, gradient checkpointing, fixed padding, " in out
    assert "fixed padding, deterministic; seed 0" in out
    # There were checkpoints, which are deleted when the run has ended.
    assert list(Path(".peft/results/checkpoints").iterdir()) == []
    (record,) = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in Path(".peft/results").glob("*.json")
    )
    ran = len(record["epochs"])
    assert ran < 9
    assert record["metrics"]["train_seconds"] == pytest.approx(
        sum(epoch["train_seconds"] for epoch in record["epochs"])
    )
    assert record["metrics"]["samples_per_second"] == pytest.approx(
        160 * ran / record["metrics"]["train_seconds"]
    )
    assert record["spec"]["recipe"]["budget"]["early_stopping"] == 1


def test_gpu_recipe_is_not_prepared_without_a_gpu(
    run: Any, pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    big = tiny_recipe.read_text(encoding="utf-8").replace(
        'name = "tiny"', 'name = "big"\ngpu = true'
    )
    pytester.makefile(".toml", big=big)
    result = run("--peft-method=full,head_only", "--peft-seeds=1", recipe=f"{tiny_recipe},big.toml")
    result.assert_outcomes(passed=2, skipped=2)
    assert not list(Path(".peft/results/logs").glob("big*"))


def test_two_recipes_with_the_same_name_are_refused(
    run: Any, pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makefile(".toml", copy=tiny_recipe.read_text(encoding="utf-8"))
    assert "two recipes are named 'tiny'" in error_line(run(recipe=f"{tiny_recipe},copy.toml"))


def test_unwritable_model_folder_loses_no_result(run: Any) -> None:
    folder = Path("models")
    (folder / "tiny-head_only-seed0" / "config.json").mkdir(parents=True)
    result = run("--peft-method=head_only", "--peft-seeds=1", "--peft-save-models=models")
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(r"Head only +\d", out)
    assert "Head only seed 0: its model could not be saved" in out


def test_untrained_prerequisite_fails_the_fusion_run(run: Any) -> None:
    result = run(
        "--peft-method=adapter_fusion",
        "--peft-seeds=1",
        "--peft-set=methods.adapter_fusion.source_learning_rate=1e-30",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert re.search(
        r"V202 error tiny\.source1-\S+-adapter-seed0, tiny\.source2-\S+: "
        r"\d+ of \d+ trained tensors did not move",
        result.stdout.str(),
    )


def test_overflowing_training_fails_without_invented_values(
    run: Any,
) -> None:
    wild = (
        "--peft-set=methods.full.learning_rate=1e38",
        "--peft-set=methods.lora.learning_rate=1e38",
        "--peft-set=budget.max_grad_norm=1e30",
    )
    result = run("--peft-method=full,lora", "--peft-seeds=1", *wild)
    result.assert_outcomes(failed=2)
    out = result.stdout.str()
    assert (
        "V302 error tiny-lora-seed0: train_loss of epoch 1 is nan; "
        "its logits for the test rows are not finite" in out
    )
    assert "lower the learning rate" in out.lower()
    assert "V202" not in out  # a parameter that is nan has changed
    assert "V301" not in out  # there is no accuracy to compare
    assert re.search(r"Full fine-tuning +– +–", out)
    for path in Path(".peft/results").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert (
            record["metrics"]["accuracy"]
            is record["metrics"]["validation_accuracy"]
            is record["quality"]
            is None
        )
        assert record["metrics"]["train_seconds"] > 0


def test_too_long_max_length_fails_before_training(run: Any) -> None:
    result = run("--peft-method=full", "--peft-set=data.max_length=65")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    out = result.stdout.str()
    assert "data.max_length = 65, but this model reads at most 64 tokens." in out
    assert "Change it with --peft-set data.max_length=VALUE." in out


def test_session_writes_json_table_csv_and_models(run: Any, pytester: pytest.Pytester) -> None:
    result = run(
        "--peft-method=full,lora", "--benchmark-json=out.json",
        "--peft-markdown=t.md", "--peft-csv=t.csv",
        "--peft-save-models=models", "--benchmark-save=base", own_process=True,
    )  # fmt: skip
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(
        r"\[1/4, [^]]+ left\] tiny-\w+-seed\d: accuracy \d\.\d+, loss \d\.\d+, [\d.,]+/s, "
        r"[\d.,]+ MiB, trained",
        out,
    )
    assert re.search(
        r"peft-methods: 4 runs of 2 methods, \d at a time, about \d+ s, corrected as runs finish\n"
        r"peft-methods: the longest first: Full fine-tuning, LoRA\n"
        r"\[0/4, \d+ s left\] tiny-full-seed0: started\n",
        out,
    )
    assert re.search(r"Full fine-tuning +\d", out)
    assert "seeds 0, 1" in out
    stored = json.loads(Path("out.json").read_text(encoding="utf-8"))
    for entry in stored["benchmarks"]:
        info = entry["extra_info"]
        assert info["schema_version"] == SCHEMA_VERSION
        assert entry["stats"]["rounds"] == 2 == len(info["seeds"])
        assert sorted(entry["stats"]["data"]) == pytest.approx(
            sorted(info["metrics"]["train_seconds"])
        )
        assert entry["options"]["timer"] == "peft_methods.TrainingClock"
        assert entry["group"] == "tiny"
        assert info["environment"]["packages"]["transformers"]
        assert info["data"]["majority"] == 0.5
    assert {path.name for path in Path("models").iterdir()} == {
        f"tiny-{m}-seed{s}" for m in ("full", "lora") for s in (0, 1)
    }
    assert "LoRA" in Path("t.md").read_text(encoding="utf-8")
    assert len(Path("t.csv").read_text(encoding="utf-8").splitlines()) == 3
    records = list(Path(".peft/results").glob("*.json"))
    assert len(records) == len(list(Path(".peft/results").glob("*.npz"))) == 4
    compared = run("--peft-method=lora", "--benchmark-compare", "--peft-seeds=1", "-q")
    assert compared.ret == 0
    assert "test_finetune[tiny-lora] (NOW)" in compared.stdout.str()
    assert "started" not in compared.stdout.str()


def test_dry_run_prints_the_plan_and_trains_nothing(run: Any) -> None:
    result = run("--peft-dry-run", "--peft-method=lora,adapter_fusion")
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(r"tiny-lora +0, 1 +0\.05 +2 × \d", out)
    assert re.search(
        r"4 (cells|runs), \d at a time, about .*from a timed forward pass on this machine.*"
        r"[Nn]othing was trained",
        out,
    )
    assert "The longest come first: AdapterFusion, LoRA." in out
    assert not list(Path(".peft/results").glob("*.json"))


def test_bad_data_prints_one_line_and_exits_with_1(run: Any, tmp_path: Path) -> None:
    rows = make_rows(60)
    folder = write_csv(tmp_path / "d", train=rows, test=rows)
    result = run(f"--peft-data={folder}", "--peft-method=lora,full")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=2)
    out = result.stdout.str()
    assert "60 of 60 test texts (100.0%) " in out
    assert "Traceback" not in out + result.stderr.str()
    assert "Full fine-tuning, LoRA: failed:" in out
    assert run(f"--peft-data={folder}", "--peft-dry-run").ret == pytest.ExitCode.TESTS_FAILED


def test_model_that_carries_no_classifier_fails_with_one_line(run: Any, tmp_path: Path) -> None:
    import transformers

    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    result = run(f"--peft-model={tmp_path / 'vit'}", "--peft-method=lora")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "is a 'vit' model, which is " in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_other_model_and_data_are_noted_in_the_table(run: Any, tmp_path: Path) -> None:
    model, data = make_model(tmp_path / "mpnet", "mpnet"), make_data(tmp_path / "d", seed=5)
    result = run(
        f"--peft-model={model}",
        f"--peft-data={data}",
        "--peft-method=full",
        "--peft-seeds=1",
        "--peft-set=data.train=all",
    )
    out = result.stdout.str()
    assert result.ret == 0, out
    assert "warning: the learning rates were tuned for" in out
    assert "Tune them with --peft-tune" in out
    assert "sizes (all/30/50) are upper limits" in out
    assert "210 train / 30 validation / 50 test" in out


def test_unsupported_method_is_skipped_with_the_reason(run: Any, tmp_path: Path) -> None:
    """FNet mixes tokens by Fourier transforms: it has no query and value for LoRA's updates."""
    folder = make_model(tmp_path / "fnet", kind="fnet")
    result = run(f"--peft-model={folder}", "--peft-method=lora,full", "--peft-seeds=1")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=1, skipped=1)
    assert "LoRA: skipped: " in result.stdout.str()
    assert "query" in result.stdout.str()


def test_finding_fails_only_its_own_test(run: Any) -> None:
    result = run(
        "--peft-method=head_only,full",
        "--peft-set=expect.margin_over_majority=0.3",
        "--peft-set=methods.full.learning_rate=1e-9",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    assert "V301 error tiny-full-seed0, tiny-full-seed1: all test rows" in result.stdout.str()


def test_unwritable_output_file_loses_no_result(run: Any) -> None:
    Path("full.md").symlink_to("/dev/full")
    result = run("--peft-method=head_only", "--peft-seeds=1", "--peft-markdown=full.md")
    assert result.ret == 0
    assert "full.md could not be written: No space left on device" in result.stdout.str()
    assert re.search(r"Head only +\d", result.stdout.str())


def test_fixtures_provide_recipe_model_and_data(
    pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makepyfile(
        """
        def test_them(peft_recipe, peft_method, peft_model, peft_data):
            assert peft_recipe.name == "tiny"
            assert peft_method.name == "lora"
            assert peft_model.architecture.hidden == 32
            splits = peft_data.train, peft_data.validation, peft_data.test
            assert tuple(map(len, splits)) == (160, 30, 50)
        """
    )
    result = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", f"--peft-recipe={tiny_recipe}", "--peft-method=lora"
    )
    result.assert_outcomes(passed=1)


def test_plugin_does_not_affect_other_tests(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = gpu: theirs")
    pytester.makepyfile(
        "import pytest\n@pytest.mark.gpu\ndef test_theirs(): pass\ndef test_plain(): pass"
    )
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin")
    result.assert_outcomes(passed=2)
    assert not Path(".peft").exists()


def test_missing_prerequisite_data_fails_only_the_fusion_run(run: Any) -> None:
    gone = '--peft-set=methods.adapter_fusion.sources=["/gone/a", "/gone/b"]'
    result = run("--peft-method=adapter_fusion,full", "--peft-seeds=1", gone)
    result.assert_outcomes(passed=1, failed=1)
    message = (
        r"AdapterFusion: failed: its prerequisite run tiny\.\w+-(a|b) failed: "
        r"there is no folder /gone/\1\."
    )
    assert re.search(message, result.stdout.str())


def config_alone(folder: Path) -> Path:
    """Save the smallest folder from which random weights can be drawn: a config."""
    from builders import CONFIGS

    CONFIGS["bert"]().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_random_weights_from_a_config_measure_the_cost_of_every_method(
    run: Any, tmp_path: Path
) -> None:
    model = config_alone(tmp_path / "shape")
    arguments = (
        "--peft-weights=random",
        "--peft-data=nobody/nothing",
        "--peft-seeds=1",
        "--peft-set=expect.margin_over_majority=0.3",
    )
    result = run(f"--peft-model={model}", *arguments)
    result.assert_outcomes(passed=8)
    out = result.stdout.str()
    assert (
        f"tiny: {model} (random weights) on nobody/nothing (random tokens), "
        "160 train / 30 validation / 50 test" in out
    )
    assert "V501 note" in out
    assert "every row has the maximum of 16 tokens" in out
    assert re.search(r"AdapterFusion: .* trained once, \d", out)
    assert "rates were tuned" not in out
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in Path(".peft/results").glob("*.json")
    ]
    assert len(records) == 8 + 2  # including the fusion's prerequisites
    assert not list(Path(".peft/results").glob("*.npz"))
    for record in records:
        _has_cost_but_no_quality(record)


def _has_cost_but_no_quality(record: dict[str, Any]) -> None:
    metrics = record["metrics"]
    for name in ("accuracy", "macro_f1", "validation_accuracy", "data_seconds", "tokenize_seconds"):
        assert metrics[name] is None, name
    for name in (
        "train_seconds",
        "evaluate_seconds",
        "peak_memory_bytes",
        "total_parameters",
        "trainable_share",
    ):
        assert metrics[name] > 0, name
    last = record["epochs"][-1]
    assert (record["quality"], record["best_epoch"]) == (None, last["epoch"])
    assert (last["validation_loss"], last["validation_accuracy"], last["selection"]) == (
        None,
        None,
        None,
    )
    assert record["data"]["fingerprint"].startswith("random-")
    assert record["data"]["majority"] is None


def test_dry_run_works_with_random_weights(run: Any, tmp_path: Path) -> None:
    result = run(
        f"--peft-model={config_alone(tmp_path)}",
        "--peft-weights=random",
        "--peft-dry-run",
        "--peft-method=lora,qlora",
    )
    assert result.ret == 0
    assert "4 runs" in result.stdout.str()
    assert not list(Path(".peft/results").glob("*.json"))


def test_dry_run_works_for_a_gpu_recipe_without_its_data(run: Any, tmp_path: Path) -> None:
    here = (
        "--peft-set=gpu=false",
        f"--peft-model={config_alone(tmp_path)}",
        "--peft-weights=random",
        "--peft-dry-run",
    )
    result = run(
        *here, "--peft-method=lora,adapter_fusion", "--peft-set=data.train=300", recipe="trec_bert"
    )
    assert result.ret == 0
    assert "6 runs" in result.stdout.str()
    refused = run(*here, "--peft-method=lora", recipe="trec_bert")
    assert refused.ret == pytest.ExitCode.TESTS_FAILED
    out = refused.stdout.str()
    assert "Set data.train to a number of rows." in out
    assert "Change it with --peft-set data.train=VALUE." in out


def test_dry_run_says_why_a_gpu_recipe_has_no_plan(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = run("--peft-dry-run", recipe="stsb_regression")
    result.stdout.fnmatch_lines(
        ["stsb_regression: recipe 'stsb_regression' needs an NVIDIA GPU and none is visible*"]
    )


def test_random_weights_without_a_known_architecture_fail_with_one_line(run: Any) -> None:
    result = run(
        "--peft-model=FacebookAI/roberta-bas", "--peft-weights=random", "--peft-method=lora"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    out = result.stdout.str()
    assert re.search(
        r"nor an architecture preset\. Did you mean 'FacebookAI/roberta-base'\? "
        "Presets: .*bert-base-uncased,",
        out,
    )
    assert "Traceback" not in out + result.stderr.str()


def test_fixtures_provide_random_tokens(
    pytester: pytest.Pytester, tiny_recipe: Path, tmp_path: Path
) -> None:
    pytester.makepyfile(
        """
        def test_them(peft_model, peft_data):
            assert peft_data.facts.random
            assert set(peft_data.test.lengths) == {16}
            assert peft_model.head == ("classifier",)
        """
    )
    chosen = (
        f"--peft-recipe={tiny_recipe}",
        "--peft-method=lora",
        f"--peft-model={config_alone(tmp_path)}",
        "--peft-weights=random",
    )
    pytester.runpytest_inprocess("-p", "peft_methods.plugin", *chosen).assert_outcomes(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--peft-fresh"]])
def test_torch_is_imported_only_in_the_processes_of_runs(
    run: Any, pytester: pytest.Pytester, more: list[str]
) -> None:
    """In pytest's own process, importing torch would take seconds before the first run starts."""
    pytester.makeconftest(
        "import sys\ndef pytest_runtest_teardown():\n"
        "    print('\\nimported here:', 'torch' in sys.modules)"
    )
    result = run(
        "--peft-method=head_only",
        "--peft-seeds=1",
        "--peft-set=budget.epochs=1",
        "-s",
        *more,
        own_process=True,
    )
    result.stdout.fnmatch_lines(["*imported here: False*", "*Head only*"])
