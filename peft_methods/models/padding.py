"""The padding token of a model and its tokenizer, and tokenizers that do not fit their model.

Decoders often come without a padding token. Classifiers of transformers take the last token that is
not padding for the end of a text, so tokenizer and config have to agree on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_methods.models.families import family_of
from peft_methods.models.layer_parts import size_in
from peft_methods.utils.errors import ModelError
from peft_methods.utils.words import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that no text has, in order of preference.
MADE_FOR_PADDING = (
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|finetune_right_pad_id|>",
    "<|finetune_right_pad|>",
)
NAMED = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")


def set_padding(tokenizer: PreTrainedTokenizerBase, config: Any, source: str) -> tuple[str, ...]:
    """Give tokenizer and config the same padding token. Return remarks on what was chosen.

    It is an existing token: the tokenizer's own, else that of the config, else one that is made for
    padding, else the unknown token, else the end of sequence. Embeddings are never resized. Rows
    are padded on the right: decoders with learned positions count them from the first token of the
    batch, and a tokenizer that pads on the left would shift them. The classifiers of
    encoder-decoders need as many end-of-sequence tokens in every row: a text that spells one is
    split into ordinary tokens. Only encoders know token types (GPT-2 would add their embeddings).
    Raises `ModelError`.
    """
    notes = []
    if tokenizer.pad_token_id is None:
        token = _choose(tokenizer, config)
        if token is None:
            raise ModelError(
                f"the tokenizer of {source!r} has no padding token, nor an unknown or "
                f"end-of-sequence token to use instead. Set its pad_token in "
                f"tokenizer_config.json to one of its tokens, or set model.source to another "
                f"model.",
                setting="model.source",
            )
        tokenizer.pad_token = token
        notes.append(
            f"the tokenizer has no padding token: its token {token!r} "
            f"(id {tokenizer.pad_token_id}) is used, and saved as such with the model"
        )
    if (family := family_of(config)) != "encoder":
        tokenizer.padding_side = "right"
        names = [one for one in tokenizer.model_input_names if one != "token_type_ids"]
        tokenizer.model_input_names = names
    if family == "encoder_decoder":
        tokenizer.split_special_tokens = True
    return tuple(notes)


def write_padding(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Write the tokenizer's padding token into the config of a decoder.

    Encoders keep theirs: their position ids may be counted from it. So do encoder-decoders, which
    start decoding with it.
    """
    if family_of(config) != "decoder":
        return
    for one in {id(part): part for part in (config, config.get_text_config())}.values():
        one.pad_token_id = tokenizer.pad_token_id


def _choose(tokenizer: PreTrainedTokenizerBase, config: Any) -> str | None:
    """Return an existing token to pad with, or None."""
    vocabulary, rows = tokenizer.get_vocab(), embedding_rows(config)
    own = getattr(config.get_text_config(), "pad_token_id", None)
    if isinstance(own, int) and 0 <= own < min(len(tokenizer), rows):
        return str(tokenizer.convert_ids_to_tokens(own))
    candidates = (*MADE_FOR_PADDING, tokenizer.unk_token, tokenizer.eos_token)
    fitting = (
        one for one in candidates if one is not None and vocabulary.get(str(one), rows) < rows
    )
    return next(map(str, fitting), None)


def embedding_rows(config: Any) -> int:
    """Return the number of tokens that the model has embeddings for; 0 for one without a table."""
    return size_in(config.get_text_config(), "vocab_size")


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: Any, source: str) -> None:
    """Raise `ModelError` if the tokenizer has words that the model has no embeddings for.

    Special tokens that no text contains are no words: Gemma 3's tokenizer has one for images, also
    where the model reads texts alone.
    """
    rows = embedding_rows(config)
    if not rows or len(tokenizer) <= rows:
        return
    special = {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    } - {getattr(tokenizer, f"{name}_token_id", None) for name in NAMED}
    beyond = {
        number: word
        for word, number in tokenizer.get_vocab().items()
        if number >= rows and number not in special
    }
    if not beyond:
        return
    first = min(beyond)
    raise ModelError(
        f"the tokenizer of {source!r} has {counted(len(beyond), 'token')} that the model has no "
        f"embeddings for: the model has {rows:,} and the first of them is {beyond[first]!r} "
        f"(id {first:,}). Set model.source to a model whose tokenizer belongs to it, or remove "
        f"them from the tokenizer's files.",
        setting="model.source",
    )
