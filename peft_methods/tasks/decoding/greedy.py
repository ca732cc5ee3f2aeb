"""Greedy decoding of many prompts in a fixed number of slots, refilled as texts end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peft_methods.models.ranks import unwrapped
from peft_methods.tasks.decoding.graphs import Replayed
from peft_methods.tasks.decoding.half_weights import half_weights
from peft_methods.tasks.decoding.slots import SlotCache, attending_to_slots
from peft_methods.tasks.decoding.state import SlotState
from peft_methods.tasks.decoding.support import text_config

REFILL = 4  # prompts are read once a quarter of the slots is free
STEPS = 8  # between two looks of the host at a GPU, which it makes wait
ALIGNED = 16  # places, in multiples of which attention kernels need no copy of the mask
WINDOW = 256  # the shortest stretch of the cache that a captured step attends to


@dataclass(frozen=True)
class Prompt:
    """A prompt's tokens, and the most new tokens that may follow it (at least 1)."""

    ids: Sequence[int]
    limit: int

    @property
    def length(self) -> int:
        """The most tokens of its text, with the new ones."""
        return len(self.ids) + self.limit


def decode(
    model: nn.Module, prompts: Sequence[Prompt], ends: Sequence[int], slots: int
) -> list[list[int]]:
    """Return the new tokens of each prompt: at each place the one with the highest logit.

    A text ends with the first of the `ends`, or at its limit. At most `slots` texts are written at
    the same time. Prompts are read in their order: similar lengths should be together.
    """
    if not prompts:
        return []
    device = next(model.parameters()).device
    with _autocast_without_cache(device), half_weights(model, device), torch.inference_mode():
        decoder = GreedyDecoder(model, prompts, ends, min(slots, len(prompts)), device)
        with decoder.closing(), attending_to_slots(text_config(model)):
            return decoder.run()


def _autocast_without_cache(device: torch.device) -> AbstractContextManager[Any]:
    """Return the present autocast context without its cache of weights, which no graph may keep."""
    kind = device.type
    return torch.autocast(
        kind,
        torch.get_autocast_dtype(kind),
        enabled=torch.is_autocast_enabled(kind),
        cache_enabled=False,
    )


class GreedyDecoder:
    """Slots of a model, and what is written in them."""

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Prompt],
        ends: Sequence[int],
        slots: int,
        device: torch.device,
    ) -> None:
        self.model, self.prompts, self.slots, self.device = model, prompts, slots, device
        longest = max(prompt.length for prompt in prompts)
        self.length = -(-longest // ALIGNED) * ALIGNED
        self.cache = SlotCache(text_config(model).num_hidden_layers, slots, self.length)
        self.state = SlotState.empty(slots, max(one.limit for one in prompts), ends, device)
        self.steps = Replayed(device)
        self.texts: list[list[int]] = [[] for _ in prompts]
        self._waiting = deque(range(len(prompts)))
        self._in_slots: list[int | None] = []  # the prompt of each slot; None once it is done
        self._places: list[int] = []  # the place that each slot writes next

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Context manager: free the memory of the cache, the state and the graphs at the end."""
        try:
            yield
        finally:
            del self.cache, self.state
            self.steps.close()

    def run(self) -> list[list[int]]:
        """Write all texts."""
        while self._waiting or self._active():
            self._refill()
            self._write()
            self._look()
        return self.texts

    def _refill(self) -> None:
        """Read prompts if enough slots are free. Without any left, give up free slots on a CPU."""
        active = self._active()
        free = self.slots - len(active)
        if self._waiting and (REFILL * free >= self.slots or not active):
            self._keep(active)
            taken = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self.read(taken)
        elif not self.steps.captures and REFILL * (len(self._in_slots) - len(active)) >= self.slots:
            self._keep(active)

    def _active(self) -> list[int]:
        """Return the slots with texts that go on."""
        return [slot for slot, one in enumerate(self._in_slots) if one is not None]

    def _keep(self, active: list[int]) -> None:
        """Move the texts of these slots to the first slots."""
        if active != list(range(len(self._in_slots))):
            if active:
                self.cache.move(active, max(self._places[slot] for slot in active))
            self.state.move(active)
            self._in_slots = [self._in_slots[slot] for slot in active]
            self._places = [self._places[slot] for slot in active]

    def read(self, taken: list[int]) -> Tensor:
        """Read prompts into the slots after those in use, and write their first new tokens.

        Return the logits (prompts, vocabulary) after them.
        """
        prompts, first = [self.prompts[one] for one in taken], len(self._in_slots)
        self.cache.write_prompts(first)
        lengths = torch.tensor([len(one.ids) for one in prompts], device=self.device)
        limits = torch.tensor([one.limit for one in prompts], device=self.device)
        ids = torch.zeros(len(prompts), max(len(one.ids) for one in prompts), dtype=torch.long)
        for row, one in enumerate(prompts):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
        logits = self._logits_after(ids.to(self.device), lengths)
        self.state.begin(first, lengths, limits, logits)
        self._in_slots += taken
        self._places += [len(one.ids) for one in prompts]
        return logits

    def _logits_after(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits (rows, vocabulary) after prompts that are padded at their ends.

        No token attends to the padding, since it comes later, and tokens that are written later
        replace it. Only the last states reach the projection to the vocabulary.
        """
        rows = torch.arange(len(ids), device=self.device)

        def last(states: Tensor) -> Tensor:
            return states[rows, lengths - 1][:, None]

        inner: Any = unwrapped(self.model)
        head, done = inner.get_output_embeddings(), []

        def choose(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            done.append(True)
            return (last(given[0]), *given[1:])

        hook = None if head is None else head.register_forward_pre_hook(choose)
        positions = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
        try:
            logits = self._forward(ids, positions, torch.ones_like(ids))  # no mask is made of it
        finally:
            if hook is not None:
                hook.remove()
        return (logits if done else last(logits))[:, 0]

    def _write(self) -> None:
        """Write some tokens in each slot in use."""
        times = STEPS if self.steps.captures else 1
        needed = min(self.length, max(self._places[slot] for slot in self._active()) + times)
        if self.steps.captures:
            self.steps.call(self.step, self._window(needed), times)
        else:
            self.steps.call(self.step, needed, times)
        self._places = [place + times for place in self._places]

    def _window(self, needed: int) -> int:
        """Return a length of the cache to attend to, one of a few: each needs a graph."""
        window = WINDOW
        while window < needed:
            window *= 2
        return min(window, self.length)

    def step(self, window: int) -> Tensor:
        """Write one token in each slot in use; texts are at most `window` tokens long.

        Return the logits (slots, vocabulary) before it. Captured steps are for all slots.
        """
        rows = self.slots if self.steps.captures else len(self._in_slots)
        positions = self.state.positions[:rows]
        places = torch.arange(window, device=self.device)
        mask = (places <= positions[:, None])[:, None, None]
        self.cache.write_tokens(positions, window)
        logits = self._forward(self.state.tokens[:rows, None], positions[:, None], mask)[:, -1]
        self.state.advance(rows, logits)
        return logits

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        return logits

    def _look(self) -> None:
        """Take the texts that are done from their slots."""
        done, counts = self.state.progress(len(self._in_slots))
        ended = [slot for slot in self._active() if done[slot]]
        if not ended:
            return
        texts = self.state.texts(ended, [counts[slot] for slot in ended])
        for slot, text in zip(ended, texts, strict=True):
            prompt = self._in_slots[slot]
            assert prompt is not None
            self.texts[prompt], self._in_slots[slot] = text, None
