"""Seconds of steps and epochs from the operations of a step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.estimation.operations import Operation, StepProgram
from peft_methods.estimation.results import Interval
from peft_methods.estimation.time.devices import find_device
from peft_methods.estimation.time.rates import DeviceRates, from_datasheet
from peft_methods.estimation.time.steps import (
    batch_lengths,
    energy,
    epoch_seconds,
    spread,
    step_time,
    with_interval,
)

WIDTH = 768


def rates_of(name: str) -> DeviceRates:
    found = from_datasheet(find_device(name))
    assert found is not None
    return found


def product(part: str, m: int, n: int, k: int) -> Operation:
    sizes = ((m, k), (k, n))
    read, written = 2 * (m * k + k * n), 2 * m * n
    return Operation("aten.mm", part, 2 * m * n * k, read, written, torch.bfloat16, sizes)


def pointwise(part: str, name: str, tokens: int) -> Operation:
    size = tokens * WIDTH * 2
    return Operation(name, part, 0, size, size, torch.bfloat16, ((tokens, WIDTH),))


def cast(part: str, to: torch.dtype) -> Operation:
    size = WIDTH * WIDTH
    read, written = (4 * size, 2 * size) if part == "forward" else (2 * size, 4 * size)
    return Operation("aten._to_copy", part, 0, read, written, to, ((WIDTH, WIDTH),))


def program(tokens: int, layers: int = 12, *, trained: bool = False) -> StepProgram:
    """A step of linear layers whose weights are cast, with an activation and a norm each."""
    forward = [
        cast("forward", torch.bfloat16),
        product("forward", tokens, WIDTH, WIDTH),
        pointwise("forward", "aten.gelu", tokens),
        pointwise("forward", "aten.native_layer_norm", tokens),
    ]
    backward = [
        pointwise("backward", "aten.gelu_backward", tokens),
        product("backward", tokens, WIDTH, WIDTH),
    ]
    optimizer = []
    if trained:
        backward += [product("backward", WIDTH, WIDTH, tokens), cast("backward", torch.float32)]
        norm = Operation("aten.linalg_vector_norm", "optimizer", 0, 4 * WIDTH**2, 4, torch.float32)
        optimizer = [norm] * layers
    return StepProgram([*forward * layers, *backward * layers, *optimizer], 16, tokens)


def test_few_tokens_wait_for_the_host_and_many_for_the_device() -> None:
    rates = rates_of("H100")
    small, large = (step_time(program(n), rates, "trainer") for n in (64, 2**20))
    assert small.bound == "host"
    assert large.bound == "device"
    assert small.busy < 0.2
    assert 0.6 < large.busy <= 1


def test_graphs_are_faster_than_launching_each_operation() -> None:
    rates = rates_of("H100")
    for tokens in (64, 2**15):
        eager, graph = (
            step_time(program(tokens, 48), rates, engine) for engine in ("trainer", "cuda_graphs")
        )
        assert graph.seconds < eager.seconds
        assert graph.device < eager.device


def test_graphs_do_not_cast_frozen_weights() -> None:
    rates = rates_of("T4")
    whole = program(64, 48)
    without = replace(whole, operations=[o for o in whole.operations if "copy" not in o.name])
    graph = step_time(whole, rates, "cuda_graphs")
    assert graph == step_time(without, rates, "cuda_graphs")
    assert step_time(whole, rates, "trainer").device > step_time(without, rates, "trainer").device


def test_trained_weights_are_cast_and_updated() -> None:
    rates = rates_of("A100")
    frozen, trained = (
        step_time(program(64, trained=one), rates, "cuda_graphs").device for one in (False, True)
    )
    assert trained - frozen > 12 * WIDTH**2 * 46 / rates.bandwidth


def test_layers_in_four_bits_cost_the_host_more() -> None:
    rates, whole = rates_of("H200"), program(64)
    made = Operation("bitsandbytes.dequantize_4bit", "forward", 0, 10**5, 10**5, torch.bfloat16)
    plain = replace(made, name="aten.mul")
    four_bits, others = (
        step_time(replace(whole, operations=[*whole.operations, one] * 50), rates, "trainer")
        for one in (made, plain)
    )
    assert four_bits.seconds > others.seconds + 50 * rates.launch


def test_what_records_the_program_takes_no_time() -> None:
    rates, whole = rates_of("L4"), program(512)
    tool = Operation("prim.device", "forward", 0, 10**9, 0, None)
    more = replace(whole, operations=[*whole.operations, tool])
    assert step_time(more, rates, "trainer") == step_time(whole, rates, "trainer")


def test_a_host_computes_and_launches_nothing() -> None:
    host = replace(rates_of("T4"), launch=0.0)
    for engine in ("trainer", "cuda_graphs"):
        found = step_time(program(64), host, engine)
        assert found.seconds == found.device


@given(st.sampled_from(["T4", "L4", "A100", "H200"]), st.integers(5, 16))
def test_twice_the_tokens_take_at_most_twice_as_long_and_not_less(name: str, power: int) -> None:
    rates = rates_of(name)
    once, twice = (step_time(program(n), rates, "trainer") for n in (2**power, 2 ** (power + 1)))
    assert once.device <= twice.device <= 2.2 * once.device


def test_faster_devices_are_faster() -> None:
    order = ("T4", "L4", "A100", "H100", "B200")
    seconds = [step_time(program(2**16), rates_of(one), "trainer").seconds for one in order]
    assert seconds == sorted(seconds, reverse=True)


@given(st.floats(1e-6, 1e6), st.floats(1, 10))
def test_intervals_hold_what_is_expected(expected: float, width: float) -> None:
    found = spread(expected, width)
    assert expected in found
    assert found.high / found.expected == pytest.approx(found.expected / found.low)


def test_intervals_depend_on_the_basis_and_on_what_is_slower() -> None:
    rates = rates_of("H100")
    for tokens in (64, 2**17):
        time = step_time(program(tokens), rates, "trainer")
        datasheet, records = (with_interval(time, one) for one in ("datasheet", "records"))
        assert datasheet.high > records.high > time.seconds in records


LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=400)


@given(LENGTHS, st.integers(1, 64))
def test_every_row_is_in_a_batch_at_least_as_long(lengths: list[int], batch: int) -> None:
    padded, packed = (batch_lengths(lengths, batch, packed=one) for one in (False, True))
    assert len(padded) == len(packed) >= -(-len(lengths) // batch)
    assert sum(padded) * batch >= sum(lengths)
    assert all(a >= b for a, b in zip(padded, packed, strict=True))
    assert max(padded) == max(lengths)


@given(LENGTHS, st.integers(1, 64), st.floats(1e-4, 10), st.floats(0, 0.1))
def test_epochs_are_the_sum_of_their_steps(
    lengths: list[int], batch: int, base: float, slope: float
) -> None:
    """Of steps that take `base + slope * length` seconds, interpolated and extrapolated."""
    known = {n: spread(base + slope * n, 1.2) for n in (1, 100, 300)}
    found = epoch_seconds(known, lengths, batch)
    steps = batch_lengths(lengths, batch)
    assert found.expected == pytest.approx(base * len(steps) + slope * sum(steps))
    assert found.low <= found.expected <= found.high


def test_one_known_length_serves_all() -> None:
    assert epoch_seconds({64: Interval(1, 2, 3)}, [10, 500, 30, 40], 2) == Interval(2, 4, 6)


def test_epochs_without_steps_or_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one length"):
        epoch_seconds({}, [1], 1)
    with pytest.raises(ValueError, match="at least 1"):
        epoch_seconds({1: Interval(1, 1, 1)}, [1], 0)


def test_energy_is_between_waiting_and_computing() -> None:
    rates, seconds = rates_of("H200"), Interval(9, 10, 11)
    assert rates.idle_watts is not None
    assert rates.loaded_watts is not None
    idle, half, full = (energy(seconds, busy, rates) for busy in (0, 0.5, 1))
    assert idle is not None
    assert half is not None
    assert full is not None
    assert idle.expected == pytest.approx(10 * rates.idle_watts)
    assert full.expected == pytest.approx(10 * rates.loaded_watts)
    assert idle.expected < half.expected < full.expected <= 10 * 700
    assert energy(seconds, 1, replace(rates, idle_watts=None)) is None


def update(name: str) -> Operation:
    return Operation(f"bitsandbytes.{name}", "optimizer", 0, 0, 0, None, ((WIDTH, WIDTH),))


def test_updates_one_by_one_keep_the_host_waiting_and_widen_the_interval() -> None:
    plain, rates = program(16, trained=True), rates_of("H200")
    updates = [update("optimizer_update_8bit_blockwise")] * 12
    eight = replace(plain, operations=[*plain.operations, *updates])
    before, after = (step_time(one, rates, "trainer") for one in (plain, eight))
    assert before.assumed == 0.0
    assert after.assumed > 0.0
    assert after.seconds == pytest.approx(before.seconds + after.assumed, rel=0.05)
    usual, wide = with_interval(before, "datasheet"), with_interval(after, "datasheet")
    assert usual.high / usual.low == pytest.approx(1.45**2)
    assert wide.high / wide.low > 1.1 * usual.high / usual.low
    assert wide.low == pytest.approx(usual.low, rel=0.05)
    assert wide.expected == after.seconds


def test_a_processor_takes_long_for_moments_in_8_bits() -> None:
    rates = replace(rates_of("H200"), launch=0.0)
    one = update("optimizer_update_8bit_blockwise")
    plain = program(16, trained=True)
    eight = replace(plain, operations=[*plain.operations, one])
    before, after = (step_time(found, rates, "trainer") for found in (plain, eight))
    assert after.seconds - before.seconds == pytest.approx(33e-9 * WIDTH**2, rel=0.05)
