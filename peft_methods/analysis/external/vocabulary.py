"""Words for models and data sets in the names of methods: "DistilBERT LoRA", "SST-2 Full FT"."""

from __future__ import annotations

import re

# Families of models. "LLaMA-Adapter" is a method.
FAMILIES = (
    r"(?:distil|tiny|mobile|camem|al|modern|ro|xlm-ro)?bert(?:a)?|xlm-r|(?:m)?deberta|distilgpt-?2"
    r"|electra|mpnet|minilm|gpt[-_ ]?(?:2|j|neox?)|opt|bloomz?|(?:tiny|code)?llama(?![-_ ]adapter)"
    r"|mistral|mixtral|qwen|gemma|phi|falcon|smollm|(?:flan[-_ ]?|m|by)?t5|bart|vit|clip|whisper"
    r"|pythia|deepseek|starcoder|yi"
)
SIZE = r"v?\d+(?:\.\d+)*(?:[bm])?|base|large|small|mini|tiny|medium|xxl|xl|uncased|cased"
MODEL = re.compile(rf"(?<![a-z0-9])(?:{FAMILIES})(?:[-_ ]?(?:{SIZE})(?![a-z]))*(?![a-z])")
DATA = re.compile(
    r"(?<![a-z0-9])(?:sst[-_ ]?[25]|mrpc|qnli|rte|cola|mnli|qqp|sts[-_ ]?b|wnli|imdb|ag[-_ ]?news"
    r"|squad(?:[-_ ]?v?[12](?:\.[01])?)?|gsm8k|alpaca|samsum|xsum|cnn(?:[-_/ ]?dm|[-_/ ]?dailymail)"
    r"|banking[-_ ]?77|trec|yelp|dolly|oasst1?|wikitext(?:[-_]?\d+)?|e2e|conll(?:[-_ ]?\d+)?|boolq"
    r"|piqa|hellaswag|winogrande|arc[-_ ]?[ce]|openbookqa|mmlu|cifar[-_ ]?100?|emotion|dbpedia"
    r"|20[-_ ]?newsgroups|mimic|pubmedqa)(?![a-z0-9])"
)


def model_in(name: str) -> str:
    """Return the model that a method's name mentions; empty if it mentions none or several.

    A family beside one of its models is no second one: "BERT baseline (bert-base-uncased)".
    """
    return _only(MODEL, name)


def data_in(name: str) -> str:
    """Return the data set that a method's name mentions; empty if it mentions none or several."""
    return _only(DATA, name)


def _only(pattern: re.Pattern[str], name: str) -> str:
    found = {one.group().strip() for one in pattern.finditer(name.casefold())}
    whole = [
        one
        for one in found
        if not any(re.match(rf"{re.escape(one)}[-_ ]", other) for other in found)
    ]
    return whole[0] if len(whole) == 1 else ""


def without_words(name: str) -> str:
    """Return a method's name without the words for models, data sets and seeds.

    "SST-2 LoRA, seed 42" is "lora": equal for rows of one method on different data.
    """
    words = DATA.sub(" ", MODEL.sub(" ", name.casefold()))
    words = re.sub(r"(?<![a-z])(?:seed|run|trial)\s*[#=:_-]?\s*\d+", " ", words)
    words = re.sub(r"\(\s*\)|\[\s*\]", " ", words)
    return " ".join(words.split()).strip(" ,;:-–—/|")


def key_of(text: str) -> str:
    """Return a model's or data set's name for comparison: 'SST-2' and 'sst2' are equal."""
    return re.sub(r"[\s_.-]+", "", text.casefold().rpartition("/")[2])
