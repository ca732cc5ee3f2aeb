"""A trial of the decoder: its logits beside those of the model on whole texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from peft_methods.tasks.decoding.greedy import GreedyDecoder, Prompt
from peft_methods.tasks.decoding.slots import attending_to_slots
from peft_methods.tasks.decoding.support import text_config

LENGTHS = (12, 7)  # the most tokens of the two texts, which are read together
# Of the spread of the logits: rounding of fp32, and of less precise products.
TOLERANCE, ROUGH_TOLERANCE = 1e-3, 5e-2


def differs(model: nn.Module, tokens: Sequence[int]) -> str:
    """Return why the decoder does not fit the model, or ''. It is tried on two texts of `tokens`.

    They are of different lengths, so that wrong positions, masks or states of earlier tokens show.
    The precision is fp32, whatever the caller's is, so that rounding does not hide them.
    """
    texts = [tokens[: LENGTHS[0]], tokens[-LENGTHS[1] :][: len(tokens) // 2 + 1]]
    device = next(model.parameters()).device
    with torch.autocast(device.type, enabled=False), torch.inference_mode():
        found, first = _decoded(model, texts, device)
        right = _whole(
            model, [[*text, new] for text, new in zip(texts, first, strict=True)], device
        )
    is_rough = torch.get_float32_matmul_precision() != "highest" or any(
        parameter.dtype != torch.float32 for parameter in model.parameters()
    )
    allowed = ROUGH_TOLERANCE if is_rough else TOLERANCE
    spread = right - right.mean(-1, keepdim=True)
    fits = bool((found - right).norm() <= allowed * spread.norm())
    return "" if fits else "its logits differ when it is decoded with slots"


def _decoded(
    model: nn.Module, texts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, list[int]]:
    """Return the logits (texts, 2, vocabulary) before and after a new token, and these tokens."""
    decoder = GreedyDecoder(model, [Prompt(text, 2) for text in texts], (), len(texts), device)
    with decoder.closing(), attending_to_slots(text_config(model)):
        before = decoder.read(list(range(len(texts))))
        first = decoder.state.tokens.tolist()
        return torch.stack([before, decoder.step(decoder.length)], dim=1).float(), first


def _whole(model: nn.Module, texts: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return the logits (texts, 2, vocabulary) after all but the last token, and after all."""
    lengths = torch.tensor([len(text) for text in texts], device=device)
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long, device=device)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, device=device)
    mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    rows = torch.arange(len(texts), device=device)
    return torch.stack([logits[rows, lengths - 2], logits[rows, lengths - 1]], dim=1).float()
