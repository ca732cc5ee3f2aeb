"""Models, data sets and archives execute no code and write nothing outside their folder.

Records reveal nothing private.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders import BENCHMARK, TASK, ReplayRecords, make_model, make_record, with_settings
from peft_methods.analysis.comparison import Comparison
from peft_methods.data.token_rows import TokenRows
from peft_methods.methods.selection import chosen_methods
from peft_methods.models import loading
from peft_methods.recipes.loading import find_recipe, load_recipe
from peft_methods.recipes.schema import ModelSpec
from peft_methods.report.text.comparison import markdown_table, terminal_table
from peft_methods.report.text.csv_table import csv_table
from peft_methods.runs.export import load_trained
from peft_methods.runs.plan import run_groups
from peft_methods.runs.spec import run_specs
from peft_methods.runs.store import Store, StoreError
from peft_methods.tasks.class_predictions import ClassPredictions
from peft_methods.utils import pinned_files, sanitize
from peft_methods.utils.errors import DataError, ModelError, OptionError

LABELS = ("no", "yes")


class Planted:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A path that exists only after foreign code was executed."""
    return tmp_path / "ran"


def test_planted_pickle_runs_when_unpickled(mark: Path) -> None:
    pickle.loads(pickle.dumps(Planted(mark)))
    assert mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_load_refuses_pickled_weights_by_name_without_reading_them(
    tmp_path: Path, mark: Path, name: str
) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(
        ModelError,
        match=rf"{name}, a pickle, which can execute any code .* convert it once: python -c",
    ) as caught:
        loading.load(ModelSpec(str(folder)), TASK.head, LABELS)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_load_ignores_a_pickle_next_to_safetensors(tmp_path: Path, mark: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(mark)))
    loading.load(ModelSpec(str(folder)), TASK.head, LABELS)
    assert not mark.exists()


@pytest.mark.parametrize(
    "read", [TokenRows.read, lambda path: Store(path.parent).read_predictions(make_record())]
)
def test_npz_readers_refuse_object_arrays(
    tmp_path: Path, mark: Path, read: Callable[[Path], Any]
) -> None:
    path = tmp_path / "lora0.npz"
    planted = np.asarray([Planted(mark)], dtype=object)
    np.savez(path, logits=planted, labels=planted, lengths=planted)
    with pytest.raises((ValueError, StoreError), match=r"allow_pickle|lora0\.npz"):
        read(path)
    assert not mark.exists()


CODE = """
import os
from transformers import BertConfig, BertForSequenceClassification

os.makedirs({mark!r}, exist_ok=True)


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder whose config names its own code, which creates the folder `mark`."""
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = make_model(tmp_path / "owncode")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "own",
        "auto_map": {
            "AutoConfig": "code_of.OwnConfig",
            "AutoModelForSequenceClassification": "code_of.OwnModel",
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code_of.py").write_text(CODE.format(mark=str(mark)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_load_does_not_execute_a_models_own_code(own_code: Path, mark: Path, weights: Any) -> None:
    with pytest.raises(
        ModelError,
        match=r"needs its own Python code, which is not executed.*trust_remote_code = true",
    ) as caught:
        loading.load(ModelSpec(str(own_code), weights), TASK.head, LABELS)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_load_executes_a_models_own_code_if_trusted(own_code: Path, mark: Path) -> None:
    base = loading.load(ModelSpec(str(own_code), trust_remote_code=True), TASK.head, LABELS)
    assert type(base.model).__name__ == "OwnModel"
    assert mark.exists()


def test_tasks_of_needs_trust_by_both_recipe_and_user() -> None:
    plain = load_recipe("embedded")
    requesting = load_recipe("embedded", ["model.trust_remote_code=true"])
    with pytest.raises(
        OptionError, match=r"recipe 'embedded' would execute Python code .*trust_remote_code = true"
    ):
        run_groups([requesting], ["lora"], "cpu")
    with pytest.raises(
        OptionError, match=r"no recipe requests a model's own code.*model.trust_remote_code = true"
    ):
        run_groups([plain], ["lora"], "cpu", trust_remote_code=True)
    [trusting], [careful] = (
        run_groups([requesting], ["lora"], "cpu", trust_remote_code=True),
        run_groups([plain], ["lora"], "cpu"),
    )
    assert trusting.runs[0].key != careful.runs[0].key


def test_load_recipe_with_another_model_drops_trust(tmp_path: Path) -> None:
    text = (find_recipe("embedded")).read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace("[model]", "[model]\ntrust_remote_code = true"), encoding="utf-8")
    assert load_recipe(str(path)).model.trust_remote_code
    assert not load_recipe(str(path), model="someone/else").model.trust_remote_code


def test_command_line_needs_trust_by_both_recipe_and_user(pytester: pytest.Pytester) -> None:
    for arguments in (["--peft-trust-remote-code"], ["--peft-set=model.trust_remote_code=true"]):
        done = pytester.runpytest_inprocess(
            "-p", "peft_methods.plugin", "-p", "no:cacheprovider", *arguments
        )
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        assert any("trust" in line for line in done.errlines)


def test_load_trained_does_not_trust_the_saved_model(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    saved = {"method": "adapter", "settings": {"learning_rate": 0.1}, "label_names": ["a", "b"]}
    (tmp_path / "method.json").write_text(
        json.dumps(saved | {"model": {"source": "x/y", "trust_remote_code": True}}),
        encoding="utf-8",
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "trained.safetensors")
    with pytest.raises(ModelError, match="Change it with trust_remote_code=True"):
        load_trained(tmp_path)


def packed(path: Path, name: str, content: bytes, **more: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = more.get("mode", 0o644) << 16
        archive.writestr(info, content, compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr("../../escaped.txt", "out")
        archive.writestr("/tmp/escaped-absolute.txt", "out")
    return path


def unpacked(wheel: Path, tmp_path: Path, sha256: str = "0" * 64) -> Path:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    package = pinned_files.Package(
        "tiny==1.0", "", "tiny", {"words.txt": ("tiny/words.txt", sha256)}
    )
    pinned_files._unpack(package, wheel, tmp_path / "scratch", tmp_path / "a" / "b")
    return tmp_path / "a" / "b"


def test_unpack_skips_members_that_point_outside_the_folder(tmp_path: Path) -> None:
    import hashlib

    folder = unpacked(
        packed(tmp_path / "w.whl", "tiny/words.txt", b"hello"),
        tmp_path,
        hashlib.sha256(b"hello").hexdigest(),
    )
    assert [path.name for path in folder.iterdir()] == ["words.txt"]
    assert not list(tmp_path.rglob("escaped*"))
    assert not Path("/tmp/escaped-absolute.txt").exists()


@pytest.mark.parametrize(
    "case",
    [
        (
            "tiny/words.txt",
            b"/etc/passwd",
            0o120777,
            "differs from the pinned file",
        ),  # a link
        ("../tiny/words.txt", b"hello", 0o644, "cannot be read"),
        ("tiny/words.txt", bytes(3 * 2**20), 0o644, "unpacks to more than 2 MiB"),
    ],
)
def test_unpack_refuses_hostile_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, bytes, int, str]
) -> None:
    name, content, mode, expected = case
    monkeypatch.setattr(pinned_files, "MAX_FILE_BYTES", 2**21)
    with pytest.raises(DataError, match=expected):
        unpacked(packed(tmp_path / "w.whl", name, content, mode=mode), tmp_path)
    assert not list((tmp_path / "a" / "b").iterdir())


def test_ensure_refuses_a_file_that_is_not_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "w.whl", "w") as archive:
        archive.addfile(tarfile.TarInfo("tiny/words.txt"), io.BytesIO())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pinned_files, "_download", lambda package, scratch: tmp_path / "w.whl")
    with pytest.raises(DataError, match="could not be stored"):
        pinned_files.ensure(
            pinned_files.Package(
                "tiny==1.0", "", "tiny", {"words.txt": ("tiny/words.txt", "0" * 64)}
            )
        )


HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J", "\r\x1b[1A gone", "a\nb | c", "=cmd|' /C calc'!A0", "@SUM(A1)",
    "+1+1", "\t=1",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))", "\u202egnihton", "zero\u200bwidth",
    "`code` **bold** ~~gone~~ &lt;", "\ud800", "\x85\u2028",
)  # fmt: skip


@given(st.text() | st.sampled_from(HOSTILE))
@example("\x1b[31m")
def test_visible_returns_one_line_of_visible_characters(text: str) -> None:
    """Oracle: one encodable line, idempotent.

    It has no characters of the categories C (except unassigned and private use) or Z (except
    spaces).
    """
    shown = sanitize.visible(text)
    assert shown.splitlines() == [shown] * bool(shown)
    assert sanitize.visible(shown) == shown
    assert not {"\x1b", "\r", "\n", "\u202e", "\u200b"} & set(shown)
    shown.encode()
    if text.isprintable():
        assert shown == text


@given(st.text() | st.sampled_from(HOSTILE))
def test_csv_cell_returns_no_formula(text: str) -> None:
    run = sanitize.csv_cell(text)
    assert (
        not run.lstrip(" ").startswith(sanitize.FORMULA)
        or float(run.rstrip("%").replace(",", "")) is not None
    )


@pytest.mark.parametrize("number", ["-1", "-0.5", "+3", "-1e-5", "-1,234", "-3%"])
def test_csv_cell_keeps_signed_numbers(number: str) -> None:
    assert sanitize.csv_cell(number) == number


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_escape_foreign_texts(text: str) -> None:
    """No label or class name, model, note or message reaches a table unescaped."""
    record = make_record()
    sources = (("model.source", text), ("data.source", text))
    spec = with_settings(record.spec, *sources)
    ok = make_record(
        spec=spec,
        message=text,
        data={**record.data, "label_names": [text]},
        environment={**record.environment, "device_name": text},
    )
    failed = make_record(
        "full",
        spec=with_settings(make_record("full").spec, *sources),
        status="failed",
        message=text,
        metrics={},
    )
    comparison = Comparison((ok, failed), notes=(text,))
    invisible = [character for character in text if sanitize.visible(character) != character]
    for table in (terminal_table(comparison), markdown_table(comparison), csv_table(comparison)):
        assert not set(invisible) - {"\n"} & set(table)
        table.encode()
    columns = {
        len(line.replace("\\|", "").split("|"))
        for line in markdown_table(comparison).splitlines()
        if line.startswith("|")
    }
    assert len(columns) <= 2  # those of the table and of the ranking
    assert "<img" not in markdown_table(comparison).replace("\\<", "")


SECRET = "s3cr3t-value-of-mine"
TOKENS = (
    f"hf_{'aB3' * 8}",
    f"ghp_{'x' * 36}",
    "Bearer abc.def.ghi",
    "https://me:pass@host/simple",
    SECRET,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary home folder, and a secret in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    monkeypatch.setenv("MY_API_TOKEN", SECRET)
    return Path.home()


@pytest.mark.parametrize("token", TOKENS)
def test_records_contain_no_home_and_no_secret(home: Path, tmp_path: Path, token: str) -> None:
    recipe = load_recipe("embedded", model=str(home / "model"), data=str(home / "data"))
    run = run_specs(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0]
    message = f"OSError: {home}/cache/x is not there ({token}); its output is in {home}/logs/a.log"
    facts = {**make_record().data, "source": str(home / "data"), "label_names": [token]}
    record = make_record(spec=run, message=message, data=facts, status="failed")
    written = Store(tmp_path).write(record).read_text(encoding="utf-8")
    texts = [
        written,
        terminal_table(Comparison((record,))),
        csv_table(Comparison((record,))),
        json.dumps(record.to_json()),
        repr(record),
    ]
    for text in texts:
        assert str(home) not in text
        assert token.removeprefix("Bearer ") not in text
        assert "me:pass" not in text
    source = record.spec.recipe.model.source
    assert source == "~/model"
    assert Path(source).expanduser() == home / "model"
    assert record.key == run.key
    assert replace(record) == record


@pytest.mark.usefixtures("home")
def test_without_secrets_hides_cached_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with sanitize.secrets_known():
        monkeypatch.setenv("LATER_TOKEN", "another-s3cr3t")  # set after the secrets were read
        assert (
            sanitize.without_secrets(f"with {SECRET}, another-s3cr3t")
            == f"with {sanitize.REMOVED}, another-s3cr3t"
        )
    assert sanitize.without_secrets("with another-s3cr3t") == f"with {sanitize.REMOVED}"


def test_session_outputs_contain_no_home_and_no_secret(
    pytester: pytest.Pytester, home: Path
) -> None:
    """Checks baseline, CSV, Markdown and terminal output, of a successful and of a failed run."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    path = pytester.path / "own.toml"
    text = find_recipe("embedded").read_text(encoding="utf-8")
    path.write_text(text.replace('"bundled:minilm"', f'"{home}/model"'), encoding="utf-8")
    recipe = load_recipe(str(path), ["budget.seeds=1"])
    spec = {
        name: run_specs(recipe, chosen_methods(recipe, [name])[0], "cpu")[0]
        for name in ("lora", "ia3")
    }
    message = f"FileNotFoundError: {home}/x, asked with {SECRET}"
    good = make_record(spec=spec["lora"], message=message)
    for one in (
        good,
        make_record("ia3", spec=spec["ia3"], status="failed", message=message, metrics={}),
    ):
        places = (f"--peft-csv={one.method_name}.csv", "--peft-markdown=table.md")
        arguments = (
            "--peft-recipe=own.toml",
            "--peft-seeds=1",
            f"--peft-method={one.method_name}",
            "--peft-save-baseline=base.json",
            *places,
        )
        done = pytester.runpytest_inprocess(
            "-p",
            "peft_methods.plugin",
            "-p",
            "no:cacheprovider",
            *arguments,
            plugins=[ReplayRecords([one])],
        )
        assert done.ret == (one is not good)
        shown = (
            done.stdout.str()
            .partition("short test summary")[0]
            .partition("fine-tuning methods compared")[2]
        )
        texts = [
            shown,
            *(
                file.read_text(encoding="utf-8")
                for file in pytester.path.iterdir()
                if file.suffix in {".json", ".csv", ".md"}
            ),
        ]
        assert all(SECRET not in text and str(home) not in text for text in texts)
    written = [file.name for file in pytester.path.iterdir()]
    assert {"lora.csv", "base.json", "table.md"} <= set(written)
    # pytest-benchmark writes this text to its JSON
    assert str(home) not in repr(run_groups([recipe], ["lora"], "cpu"))


def test_private_keeps_paths_that_only_resemble_the_home_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/root")
    text = "/root/a /mnt/root/b /rooted /root-2 x=/root"
    assert sanitize.private(text) == "~/a /mnt/root/b /rooted /root-2 x=~"
    # a plain word is not redacted as a secret: ordinary names would disappear
    monkeypatch.setenv("ANY_TOKEN", "embedded")
    assert sanitize.private("embedded") == "embedded"


def test_store_refuses_a_fingerprint_that_is_a_path(tmp_path: Path) -> None:
    path = Store(tmp_path).write(make_record())
    values = json.loads(path.read_text(encoding="utf-8")) | {"fingerprint": "../../etc/passwd"}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(StoreError, match="is not a valid record"):
        Store(tmp_path).read(path)


def test_message_is_limited_in_length() -> None:
    message = str(DataError(f"the value {'x' * 100_000} is too long; cut it"))
    assert len(message) < 5000
    assert message.endswith("is too long; cut it")


@given(st.binary(max_size=200) | st.just(b"PK\x03\x04"))
def test_read_predictions_refuses_an_invalid_file_by_name(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "predictions"
    folder.mkdir(exist_ok=True)
    (folder / "lora0.npz").write_bytes(content)
    with pytest.raises(StoreError, match=r"lora0\.npz"):
        Store(folder).read_predictions(make_record())


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((3, 2), np.float32), np.zeros(2, np.int64)),
        (np.zeros(3, np.float32), np.zeros(3, np.int64)),
        (np.zeros((3, 2), np.float32), np.zeros((3, 1), np.int64)),
        (np.zeros((3, 2), np.float32), np.asarray(["a", "b", "c"])),
        (np.zeros((3, 2), np.float32), np.asarray([0, 1, 2])),
        (np.zeros((3, 2), np.complex64), np.zeros(3, np.int64)),
    ],
)
def test_read_predictions_refuses_arrays_of_a_wrong_shape(
    tmp_path: Path, logits: Any, labels: Any
) -> None:
    np.savez(tmp_path / "lora0.npz", logits=logits, labels=labels)
    with pytest.raises(StoreError, match=r"lora0\.npz"):
        Store(tmp_path).read_predictions(make_record())


def test_read_predictions_reads_valid_predictions(tmp_path: Path) -> None:
    Store(tmp_path).write(
        make_record(), ClassPredictions(np.zeros((3, 2), np.float32), np.asarray([0, 1, 1]))
    )
    assert Store(tmp_path).read_predictions(make_record()) is not None
