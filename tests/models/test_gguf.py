"""GGUF files: what is read from them agrees with the `gguf` package and with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_builders import PADDING, TOKENS, TYPES, make_llama, write_gguf
from peft_methods.models.gguf import parse_gguf
from peft_methods.models.gguf_conversion import convert_llama

STORED = (TYPES.F32, TYPES.F16, TYPES.Q8_0, TYPES.Q4_1)


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.name)
def test_values_are_those_of_the_gguf_package_to_the_bit(tmp_path: Path, kind: Any) -> None:
    found = parse_gguf(write_gguf(tmp_path / "m.gguf", make_llama(), kind))
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    assert [one.name for one in found.tensors] == [one.name for one in theirs.tensors]
    for ours, other in zip(found.tensors, theirs.tensors, strict=True):
        values = found.values(ours)
        expected = gguf.quants.dequantize(other.data, other.tensor_type)
        assert values.dtype == np.float32
        assert values.shape == tuple(reversed(other.shape.tolist()))
        assert np.array_equal(values, expected.reshape(values.shape))
    for name, entry in theirs.fields.items():
        if not name.startswith("GGUF."):
            assert found.metadata[name] == entry.contents(), name


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", make_llama(), TYPES.Q4_1)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_ends_early_is_refused(content: bytes, tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match=r"it ends at byte|does not begin"):
        convert_llama(content[: int(share * len(content))], tmp_path, padding=PADDING)


@pytest.mark.parametrize("tied", [True, False])
def test_converted_model_is_the_one_that_was_stored(tmp_path: Path, tied: bool) -> None:
    model = make_llama(tied=tied)
    convert_llama(write_gguf(tmp_path / "m.gguf", model), tmp_path, padding=PADDING)
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.dtype == torch.float32
    ids = torch.tensor([[1, 70, 80, 90, 100, 2]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.config.tie_word_embeddings is tied
    assert loaded.config.rms_norm_eps == model.config.rms_norm_eps
    assert loaded.generation_config.eos_token_id == loaded.config.eos_token_id == 2
    assert loaded.generation_config.pad_token_id == loaded.config.pad_token_id == 0


@pytest.fixture(scope="module")
def tokenizer(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The converted tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    convert_llama(content, folder, padding=PADDING)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_converted_tokenizer_splits_digits_and_knows_its_special_tokens(tokenizer: Any) -> None:
    assert tokenizer.tokenize("hello 12<|im_end|>") == ["hello", "Ġ", "1", "2", "<|im_end|>"]
    assert tokenizer("hello")["input_ids"] == [TOKENS.index("hello")]  # nothing is added
    special = tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token
    assert special == ("<|im_start|>", "<|im_end|>", PADDING)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert chat == "<|im_start|>user\nhello<|im_end|>\n"
    assert tokenizer.model_max_length == 128


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_converted_tokenizer_gives_every_text_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "llama-bpe"}, "its tokenizer is .*llama-bpe.*, not"),
        ({"architecture": "gemma"}, "it holds a 'gemma' model, not a Llama|it has no 'llama"),
        ({"tokens": TOKENS[1:]}, r"its vocabulary has no <\|endoftext\|>"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_llama(
            write_gguf(tmp_path / "m.gguf", make_llama(), **changes), tmp_path, padding=PADDING
        )


def test_types_that_are_not_read_are_named(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "m.gguf", make_llama(), TYPES.Q5_0)
    with pytest.raises(ValueError, match=r"has the type 6; read are F32, F16, Q4_1, Q8_0"):
        convert_llama(content, tmp_path, padding=PADDING)


def test_converting_twice_gives_the_same_bytes(tmp_path: Path, content: bytes) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        convert_llama(content, tmp_path / name, padding=PADDING)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
