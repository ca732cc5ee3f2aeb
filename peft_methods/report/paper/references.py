"""The citations of methods, models, data sets, libraries and statistics.

The bibliography entries are in references.bib.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from peft_methods.methods.registry import METHODS
from peft_methods.report.paper.typst import escaped

BIBLIOGRAPHY = Path(__file__).parent / "references.bib"
OF_MODEL_TYPES = {  # by `model_type` of the config; a type without an entry is not cited
    "albert": ("lan2020albert",),
    "bert": ("devlin2019bert",),
    "camembert": ("martin2020camembert",),
    "deberta": ("he2021deberta",),
    "distilbert": ("sanh2019distilbert",),
    "electra": ("clark2020electra",),
    "mpnet": ("song2020mpnet",),
    "roberta": ("liu2019roberta",),
}
# Published models by the last part of their source: the type, and the papers if they differ from
# those of the type. Records of earlier versions do not hold the type.
MINILM = ("wang2020minilm", "reimers2019sbert")
SMOLLM2 = ("allal2025smollm2",)
LLAMA3 = ("grattafiori2024llama3",)
KNOWN_MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bundled:minilm": ("bert", MINILM),
    "bundled:smollm2": ("llama", SMOLLM2),
    "smollm2-135m": ("llama", SMOLLM2),
    "smollm2-135m-instruct": ("llama", SMOLLM2),
    "gpt2-medium": ("gpt2", ("radford2019gpt2",)),
    "llama-3.2-1b": ("llama", LLAMA3),
    "llama-3.2-3b": ("llama", LLAMA3),
    "all-minilm-l6-v2": ("bert", MINILM),
    "all-minilm-l12-v2": ("bert", MINILM),
    "minilm-l12-h384-uncased": ("bert", ("wang2020minilm",)),
    "all-mpnet-base-v2": ("mpnet", ("song2020mpnet", "reimers2019sbert")),
    "mpnet-base": ("mpnet", ()),
    "bert-base-cased": ("bert", ()),
    "bert-base-uncased": ("bert", ()),
    "bert-large-cased": ("bert", ()),
    "bert-large-uncased": ("bert", ()),
    "distilbert-base-cased": ("distilbert", ()),
    "distilbert-base-uncased": ("distilbert", ()),
    "roberta-base": ("roberta", ()),
    "roberta-large": ("roberta", ()),
}
NAMES_OF_MODELS = {
    "bundled:minilm": "all-MiniLM-L6-v2",
    "bundled:smollm2": "SmolLM2-135M-Instruct",
}
NAMES_OF_DATA = {
    "bundled:movie_reviews": "rated movie-review sentences",
    "bundled:product_reviews": "rated product-review sentences",
    "bundled:editorials": "rated editorial sentences",
    "bundled:tweets": "rated tweets",
    "stanfordnlp/imdb": "the IMDb reviews",
    "stanfordnlp/sst2": "the Stanford Sentiment Treebank (SST-2)",
    "CogComp/trec": "the TREC questions",
    "leondz/wnut_17": "the emerging entities of WNUT-17",
    "nyu-mll/glue": "GLUE",
    "google-research-datasets/go_emotions": "GoEmotions",
    "openai/gsm8k": "the math problems of GSM8K",
    "meta-math/MetaMathQA": "MetaMathQA",
    "tuetschek/e2e_nlg": "the restaurant descriptions of the E2E challenge",
    "fancyzhx/yelp_polarity": "Yelp reviews",
    "fancyzhx/ag_news": "AG News",
    "dair-ai/emotion": "tweets labelled with emotions",
}
OF_DATA = {
    "bundled": ("hutto2014vader",),
    "stanfordnlp/imdb": ("maas2011imdb",),
    "stanfordnlp/sst2": ("socher2013sst",),
    "CogComp/trec": ("li2002trec",),
    "leondz/wnut_17": ("derczynski2017wnut",),
    "nyu-mll/glue": ("wang2019glue", "cer2017stsb"),
    "google-research-datasets/go_emotions": ("demszky2020goemotions",),
    "openai/gsm8k": ("cobbe2021gsm8k",),
    "meta-math/MetaMathQA": ("yu2024metamath",),
    "tuetschek/e2e_nlg": ("novikova2017e2e",),
    "fancyzhx/yelp_polarity": ("zhang2015charcnn",),
    "fancyzhx/ag_news": ("zhang2015charcnn",),
    "dair-ai/emotion": ("saravia2018carer",),
}
OF_LIBRARIES = {
    "torch": ("PyTorch", "paszke2019pytorch"),
    "transformers": ("Transformers", "wolf2020transformers"),
    "peft": ("PEFT", "mangrulkar2022peft"),
    "bitsandbytes": ("bitsandbytes", "dettmers2022eightbit"),
    "scikit-learn": ("scikit-learn", "pedregosa2011sklearn"),
}


def cited(*keys: str) -> str:
    """Return markup that cites these entries after a word: '~[1], [2]'."""
    return "~" + ", ".join(f"@{key}" for key in keys) if keys else ""


def data_name(source: str) -> str:
    """Return a data set's name within a sentence, as markup."""
    return NAMES_OF_DATA.get(source, f"the data set “{escaped(source)}”")


def model_name(source: str) -> str:
    """Return a model's name, as markup."""
    return escaped(NAMES_OF_MODELS.get(source, source.rstrip("/").rpartition("/")[2]))


def of_method(method: str) -> tuple[str, ...]:
    """The keys of a method's entries; without any, of the entry made of its `paper`."""
    info = METHODS.info(method)
    keys = [_key(one) for one in info.citations] if info else []
    return tuple(keys) or (made_key(method),)


def _key(citation: str) -> str:
    """The key of a citation, which is a key itself or a whole BibTeX entry."""
    found = re.match(r"\s*@\w+\{([^,]+),", citation)
    return found[1].strip() if found else citation


def _own_entries(methods: Iterable[str]) -> dict[str, str]:
    """The BibTeX entries that stand in the methods' own files, and those made of `paper`."""
    found: dict[str, str] = {}
    for method in methods:
        info = METHODS[method].info
        own = [one for one in info.citations if one.lstrip().startswith("@")]
        found |= {_key(one): one for one in own} or {made_key(method): _made(method)}
    return found


def made_key(method: str) -> str:
    """Return the key of an entry made from a method's `paper`."""
    return "method-" + "".join(c if c.isascii() and c.isalnum() else "-" for c in method)


def of_model(source: str, model_type: str = "") -> tuple[str, ...]:
    """Return the keys of a model's entries by its type; none for an unknown one.

    Without a type, as in records of earlier versions, only published models are known.
    """
    name = source.rstrip("/").rpartition("/")[2].lower()
    known_type, keys = KNOWN_MODELS.get(name, ("", ()))
    if keys and model_type in {"", known_type}:
        return keys
    return OF_MODEL_TYPES.get(model_type or known_type, ())


def cited_model(source: str, model_type: str) -> str:
    """Return markup with a model's name and its papers.

    The papers of a model that only its type tells are cited for the type.
    """
    keys = cited(*of_model(source, model_type))
    published = source.rstrip("/").rpartition("/")[2].lower() in KNOWN_MODELS
    if published or not keys:
        return f"{model_name(source)}{keys}"
    return f"{model_name(source)} (model type “{escaped(model_type)}”{keys})"


def of_data(source: str) -> tuple[str, ...]:
    """Return the keys of a data set's entries by its source; none for an unknown one."""
    return OF_DATA.get(source.partition(":")[0] if source.startswith("bundled:") else source, ())


def bibliography(markup: str, methods: Iterable[str]) -> str:
    """Return the BibTeX of every entry that the markup cites.

    `methods` are the methods that may need an entry made from `paper` in their registry.
    """
    stored = BIBLIOGRAPHY.read_text(encoding="utf-8").split("\n\n")
    entries = {_key(entry): entry for entry in stored}
    entries |= _own_entries(methods)
    return (
        "\n\n".join(
            entry.strip()
            for key, entry in entries.items()
            if re.search(rf"@{re.escape(key)}(?![\w-])", markup)
        )
        + "\n"
    )


def _made(method: str) -> str:
    """An entry whose title is all that the registry says of the paper."""
    note = re.sub(r"[{}\\@%$&#_^~]", " ", METHODS[method].info.paper)
    return f"@misc{{{made_key(method)}, title = {{{{{note}}}}}}}"
