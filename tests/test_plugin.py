"""The plugin as its users meet it: options, ids, JSON, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import make_data, make_model, make_rows, write_csv
from peft_methods.errors import OptionError
from peft_methods.option_values import parse_seeds
from peft_methods.recipe import shipped_recipes

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "test_finetune.py"


@pytest.fixture
def run(pytester: pytest.Pytester, tiny_recipe: Path) -> Any:
    """Runs pytest on the benchmark with the tiny recipe (unless told otherwise)."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))

    def go(
        *arguments: str, recipe: str | None = str(tiny_recipe), own_process: bool = False
    ) -> pytest.RunResult:
        chosen = [f"--peft-recipe={recipe}"] if recipe else []
        start = pytester.runpytest_subprocess if own_process else pytester.runpytest_inprocess
        return start("-p", "peft_methods.plugin", "-p", "no:cacheprovider", *chosen, *arguments)

    return go


def error_line(result: pytest.RunResult) -> str:
    """The one line of a usage error; nothing else, no traceback."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peft-method=loar"], "unknown method 'loar'. Did you mean 'lora'?"),
        (["--peft-method=lora,,ia3"], "has an empty name"),
        (["--peft-seeds=0"], "--peft-seeds 0 would train nothing"),
        (["--peft-seeds=x"], "--peft-seeds 'x' should be a number of seeds"),
        (["--peft-seeds=1,1"], "names a seed twice"),
        (["--peft-set=budget.seeds=[2,2]"], "names a seed twice"),
        (
            ["--peft-set=budget.epoch=3"],
            "tiny.toml: unknown key 'budget.epoch'. Did you mean 'epochs'?",
        ),
        (["--peft-set=methods.lora.rank=0"], "rank = 0 should be greater than or equal to 1"),
        (["--peft-set=methods.loar.rank=1"], "unknown method 'loar'. Did you mean 'lora'?"),
        (["--peft-set=budget"], "should read KEY=VALUE"),
        (["--peft-weights=foo"], "unknown weights 'foo'. Allowed: pretrained, random."),
        (["--peft-weights="], "unknown weights ''. Allowed: pretrained, random."),
        (["--peft-workers=0"], "--peft-workers '0' should be a whole number from 1 to"),
        (
            ["--peft-set=budget.precision=tf32"],
            "'tf32' needs an NVIDIA GPU and none is visible. Allowed here: fp32, bf16; --peft",
        ),
        (
            ["--peft-set=budget.precision=fp16"],
            "recipe 'tiny': budget.precision = 'fp16' needs an NVIDIA GPU and none is visible.",
        ),
        (
            ["--peft-engine=graphed"],
            "engine 'graphed' needs an NVIDIA GPU and none is visible. Allowed here: auto, stock.",
        ),
        (
            ["--peft-engine=grafed"],
            "unknown engine 'grafed'. Did you mean 'graphed'? Allowed: auto, stock, graphed.",
        ),
        (
            ["--peft-tune=0"],
            "--peft-tune '0' should be a whole number of trials a method, 1 or more.",
        ),
        (["--peft-tune=many"], "--peft-tune 'many' should be a whole number of trials"),
        (
            ["--peft-tune=2", "--peft-weights=random"],
            "recipe 'tiny' has random weights, so there is no quality to tune by",
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
            "--peft-timeout '90' should be a time above 0 with its unit, for example 90s, 10min or 2h.",
        ),
        (["--peft-timeout=0s"], "--peft-timeout '0s' should be a time above 0"),
        (["--peft-timeout=soon"], "--peft-timeout 'soon' should be a time above 0"),
        (
            ["--peft-retries=-1"],
            "--peft-retries '-1' should be a whole number of further attempts, 0 or more.",
        ),
        (["--peft-csv=no/such/folder/t.csv"], "the folder no/such/folder does not exist"),
        (["--peft-save-models=test_finetune.py"], "is a file; give a folder"),
        (["--peft-results=test_finetune.py/x"], "results cannot be written to"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_4(run: Any, arguments: list[str], said: str) -> None:
    assert said in error_line(run(*arguments))


def test_a_bad_recipe_is_one_line_and_exit_4(run: Any, pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", broken="name = [")
    assert "broken.toml is not valid TOML" in error_line(run(recipe="broken.toml"))
    assert "unknown recipe 'embeded'. Did you mean 'embedded'?" in error_line(run(recipe="embeded"))


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", 3), ("4,7", [4, 7]), ("0,", [0]), (" 2 , 1 ", [2, 1])]
)
def test_the_grammar_of_seeds(text: str, seeds: Any) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "-1", "1.5", "0", "٣", "1;2"])
def test_what_is_no_list_of_seeds(text: str) -> None:
    with pytest.raises(OptionError, match="--peft-seeds"):
        parse_seeds(text)


def test_ids_and_default_selection(run: Any) -> None:
    result = run("--collect-only", "-q", recipe=None)
    result.stdout.fnmatch_lines(
        ["*::test_finetune[[]embedded-full]", "*::test_finetune[[]embedded-adapter_fusion]"]
    )
    assert result.parseoutcomes() == {"tests": 8} or "8 tests collected" in result.stdout.str()
    listed = run("--collect-only", "-q", "--peft-method=ia3,lora").stdout
    listed.fnmatch_lines(["*::test_finetune[[]tiny-lora]", "*::test_finetune[[]tiny-ia3]"])


def test_gpu_recipes_run_when_asked_for_and_skip_without_a_gpu(run: Any) -> None:
    result = run("-m", "gpu", "--peft-method=lora,ia3", recipe=None)
    assert result.ret == 0
    result.assert_outcomes(skipped=2, deselected=2)
    assert (
        "LoRA, IA3: skipped: recipe 'imdb_roberta' needs an NVIDIA GPU and none is visible"
        in result.stdout.str()
    )


def test_all_means_every_shipped_recipe(run: Any) -> None:
    listed = run("--collect-only", "-q", "--peft-method=full", recipe="all").stdout.str()
    assert set(re.findall(r"test_finetune\[(\w+)-full\]", listed)) == set(shipped_recipes())
    beside = run("--collect-only", "-q", "--peft-method=full", recipe="all,embedded").stdout.str()
    assert beside.count("[embedded-full]") == 1


def test_a_json_of_a_run_that_skipped_all_is_no_traceback(tmp_path: Path) -> None:
    """With this repository's own settings, where pytest-benchmark's warning would be an error."""
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


def test_a_gpu_recipe_in_a_precision_of_gpus_skips_without_one(run: Any) -> None:
    result = run("--peft-method=lora", "--peft-set=budget.precision=fp16", recipe="imdb_roberta")
    assert result.ret == 0
    result.assert_outcomes(skipped=1)


def test_a_run_with_every_budget_option_ends_early_and_says_so(run: Any) -> None:
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
    assert (
        "up to 9 epochs (early stopping after 1 without improvement), batch 8 × 2, "
        "max length 16, fp32, gradient checkpointing, fixed padding, " in out
    )
    assert "fixed padding, deterministic; seeds 0" in out
    assert (
        list(Path(".peft/results/checkpoints").iterdir()) == []
    )  # there were some, and the cell has ended
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
    assert record["cell"]["recipe"]["budget"]["early_stopping"] == 1


def test_a_gpu_recipe_beside_another_is_neither_prepared_nor_trained(
    run: Any, pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    big = tiny_recipe.read_text(encoding="utf-8").replace(
        'name = "tiny"', 'name = "big"\ngpu = true'
    )
    pytester.makefile(".toml", big=big)
    result = run("--peft-method=full,head_only", "--peft-seeds=1", recipe=f"{tiny_recipe},big.toml")
    result.assert_outcomes(passed=2, skipped=2)
    assert not list(Path(".peft/results/logs").glob("big*"))


def test_two_recipes_of_one_name_are_refused(
    run: Any, pytester: pytest.Pytester, tiny_recipe: Path
) -> None:
    pytester.makefile(".toml", copy=tiny_recipe.read_text(encoding="utf-8"))
    assert "two recipes are named 'tiny'" in error_line(run(recipe=f"{tiny_recipe},copy.toml"))


def test_a_model_that_cannot_be_kept_costs_no_figure(run: Any) -> None:
    folder = Path("models")
    (folder / "tiny-head_only-seed0" / "config.json").mkdir(parents=True)
    result = run("--peft-method=head_only", "--peft-seeds=1", "--peft-save-models=models")
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(r"Head only +\d", out)
    assert "head_only seed 0: its model could not be saved" in out


def test_an_untrained_source_fails_its_fusion(run: Any) -> None:
    result = run(
        "--peft-method=adapter_fusion",
        "--peft-seeds=1",
        "--peft-set=methods.adapter_fusion.source_learning_rate=1e-30",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert re.search(
        r"V202 error tiny\.source1-\S+-adapter-seed0: \d+ of \d+ trained tensors did not move",
        result.stdout.str(),
    )


def test_a_training_that_overflows_fails_with_its_reason_and_without_invented_figures(
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
        "V302 error tiny-lora-seed0: train_loss of epoch 1 is nan; its logits for the test rows are not finite"
        in out
    )
    assert "lower the learning rate, or take budget.precision=bf16 or fp32 if it is fp16" in out
    assert "V202" not in out  # what is no number now has moved
    assert "V301" not in out  # and there is no accuracy to compare
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


def test_a_text_too_long_for_the_model_is_said_before_training(run: Any) -> None:
    result = run("--peft-method=full", "--peft-set=data.max_length=65")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "this model reads 64 tokens at most: --peft-set data.max_length=64" in result.stdout.str()
    )


def test_a_run_from_command_to_json(run: Any, pytester: pytest.Pytester) -> None:
    result = run(
        "--peft-method=full,lora", "--benchmark-json=out.json", "--peft-markdown=t.md", "--peft-csv=t.csv",
        "--peft-save-models=models", "--benchmark-save=base", own_process=True,
    )  # fmt: skip
    assert result.ret == 0
    out = result.stdout.str()
    assert re.search(
        r"\[1/4, [^]]+ left\] tiny-\w+-seed\d: accuracy \d\.\d+, loss \d\.\d+, [\d.,]+/s, [\d.,]+ MiB, trained",
        out,
    )
    assert re.search(r"Full fine-tuning +\d", out)
    assert "seeds 0, 1" in out
    stored = json.loads(Path("out.json").read_text(encoding="utf-8"))
    for entry in stored["benchmarks"]:
        info = entry["extra_info"]
        assert info["schema_version"] == 1
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


def test_a_dry_run_trains_nothing(run: Any) -> None:
    result = run("--peft-dry-run", "--peft-method=lora,adapter_fusion")
    assert result.ret == 0
    out = result.stdout.str()
    assert "tiny-lora-seed0" in out
    assert re.search(
        r"4 runs, \d at a time, about .* in total, estimated from a timed forward pass on this "
        r"machine. Nothing was trained.",
        out,
    )
    assert not list(Path(".peft/results").glob("*.json"))


def test_bad_data_fails_with_its_line_and_exit_1(run: Any, tmp_path: Path) -> None:
    rows = make_rows(60)
    folder = write_csv(tmp_path / "d", train=rows, test=rows)
    result = run(f"--peft-data={folder}", "--peft-method=lora,full")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=2)
    out = result.stdout.str()
    assert "60 of 60 test texts (100.0%) stand in train too" in out
    assert "Traceback" not in out + result.stderr.str()
    assert "Full fine-tuning, LoRA: failed:" in out
    assert run(f"--peft-data={folder}", "--peft-dry-run").ret == pytest.ExitCode.TESTS_FAILED


def test_a_model_that_is_no_encoder_fails_with_its_line(run: Any, tmp_path: Path) -> None:
    import transformers

    transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9).save_pretrained(
        tmp_path / "gpt2"
    )
    result = run(f"--peft-model={tmp_path / 'gpt2'}", "--peft-method=lora")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "is a 'gpt2' model, which is no encoder" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_other_model_and_data_run_with_what_changed_said(run: Any, tmp_path: Path) -> None:
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
    assert "sizes as the recipe and --peft-set say (all/30/50)" in out
    assert "210 train / 30 validation / 50 test" in out


def test_an_unsupported_method_is_skipped_with_its_reason(run: Any, tmp_path: Path) -> None:
    import transformers

    from conftest import SIZES, TINY, VOCABULARY

    folder = tmp_path / "electra"
    transformers.ElectraModel(
        transformers.ElectraConfig(**TINY, **SIZES, embedding_size=32)
    ).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    result = run(f"--peft-model={folder}", "--peft-method=lora,full", "--peft-seeds=1")
    assert result.ret == 0, result.stdout.str()
    result.assert_outcomes(passed=1, skipped=1)
    assert "LoRA: skipped: LoRA needs a model whose parts are known (bert," in result.stdout.str()


def test_a_finding_fails_its_test_and_no_other(run: Any) -> None:
    result = run(
        "--peft-method=head_only,full",
        "--peft-set=expect.margin_over_majority=0.3",
        "--peft-set=methods.full.learning_rate=1e-9",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    assert "V301 error tiny-full-seed0: accuracy" in result.stdout.str()


def test_a_file_that_cannot_be_written_loses_nothing(run: Any) -> None:
    Path("full.md").symlink_to("/dev/full")
    result = run("--peft-method=head_only", "--peft-seeds=1", "--peft-markdown=full.md")
    assert result.ret == 0
    assert "full.md could not be written: No space left on device" in result.stdout.str()
    assert re.search(r"Head only +\d", result.stdout.str())


def test_fixtures_give_recipe_model_and_data(pytester: pytest.Pytester, tiny_recipe: Path) -> None:
    pytester.makepyfile(
        """
        def test_them(peft_recipe, peft_method, peft_model, peft_data):
            assert peft_recipe.name == "tiny"
            assert peft_method.name == "lora"
            assert peft_model.shape.hidden == 32
            assert (len(peft_data.train), len(peft_data.validation), len(peft_data.test)) == (160, 30, 50)
        """
    )
    result = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", f"--peft-recipe={tiny_recipe}", "--peft-method=lora"
    )
    result.assert_outcomes(passed=1)


def test_other_peoples_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = gpu: theirs")
    pytester.makepyfile(
        "import pytest\n@pytest.mark.gpu\ndef test_theirs(): pass\ndef test_plain(): pass"
    )
    result = pytester.runpytest_inprocess("-p", "peft_methods.plugin")
    result.assert_outcomes(passed=2)
    assert not Path(".peft").exists()


def test_a_source_that_is_not_there_fails_its_fusion_alone(run: Any) -> None:
    gone = '--peft-set=methods.adapter_fusion.sources=["/gone/a", "/gone/b"]'
    result = run("--peft-method=adapter_fusion,full", "--peft-seeds=1", gone)
    result.assert_outcomes(passed=1, failed=1)
    said = r"AdapterFusion: failed: its source tiny\.source\d-(a|b) failed: there is no folder /gone/\1\."
    assert re.search(said, result.stdout.str())


def config_alone(folder: Path) -> Path:
    """The smallest that random weights can be built from."""
    from conftest import CONFIGS

    CONFIGS["bert"]().save_pretrained(folder)
    return folder


def test_random_weights_from_a_config_alone_show_what_every_method_costs(
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
        f"tiny: {model} (random weights) on nobody/nothing (random tokens), 160 train / 30 validation / 50 test"
        in out
    )
    assert "V501 note" in out
    assert "every row 16 tokens long, the most there can be" in out
    assert re.search(r"AdapterFusion: its prerequisite runs were trained once, \d", out)
    assert "rates were tuned" not in out
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in Path(".peft/results").glob("*.json")
    ]
    assert len(records) == 8 + 2  # with the fusion's sources
    assert not list(Path(".peft/results").glob("*.npz"))
    for record in records:
        _shows_cost_alone(record)


def _shows_cost_alone(record: dict[str, Any]) -> None:
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


def test_random_weights_on_a_dry_run(run: Any, tmp_path: Path) -> None:
    result = run(
        f"--peft-model={config_alone(tmp_path)}",
        "--peft-weights=random",
        "--peft-dry-run",
        "--peft-method=lora,qlora",
    )
    assert result.ret == 0
    assert "4 runs" in result.stdout.str()
    assert not list(Path(".peft/results").glob("*.json"))


def test_a_shipped_gpu_recipe_without_texts_on_a_dry_run(run: Any, tmp_path: Path) -> None:
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
    untold = run(*here, "--peft-method=lora", recipe="trec_bert")
    assert untold.ret == pytest.ExitCode.TESTS_FAILED
    assert "Give a number: --peft-set data.train=N." in untold.stdout.str()


def test_random_weights_without_a_shape_fail_with_their_line(run: Any) -> None:
    result = run(
        "--peft-model=FacebookAI/roberta-bas", "--peft-weights=random", "--peft-method=lora"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    out = result.stdout.str()
    assert (
        "no known shape. Did you mean 'FacebookAI/roberta-base'? Shapes: bert-base-uncased," in out
    )
    assert "Traceback" not in out + result.stderr.str()


def test_fixtures_give_random_tokens_too(
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


@pytest.mark.parametrize("anew", [[], ["--peft-fresh"]])
def test_what_trains_is_imported_in_the_cells_processes_alone(
    run: Any, pytester: pytest.Pytester, anew: list[str]
) -> None:
    """In pytest's own process torch would take seconds, before the first cell is started."""
    pytester.makeconftest(
        "import sys\ndef pytest_runtest_teardown(): print('\\nimported here:', 'torch' in sys.modules)"
    )
    result = run(
        "--peft-method=head_only",
        "--peft-seeds=1",
        "--peft-set=budget.epochs=1",
        "-s",
        *anew,
        own_process=True,
    )
    result.stdout.fnmatch_lines(["*imported here: False*", "*Head only*"])
