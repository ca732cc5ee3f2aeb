"""Seconds of products and moved bytes, by datasheets and by measured products."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.estimation.time.devices import devices, find_device
from peft_methods.estimation.time.rates import (
    DeviceRates,
    MeasuredProduct,
    Precision,
    from_datasheet,
)

SIZES = st.integers(1, 20000)
KNOWN = [from_datasheet(one) for one in devices().values()]
DEVICES = st.sampled_from(KNOWN)
PRECISIONS = st.sampled_from(["fp32", "tf32", "half", "int8"])


@given(DEVICES, SIZES, SIZES, SIZES, PRECISIONS)
def test_no_product_is_faster_than_the_device(
    rates: DeviceRates, m: int, n: int, k: int, precision: Precision
) -> None:
    found = rates.product_seconds(m, n, k, precision)
    assert found >= 2 * m * n * k / rates.rate(precision) * (1 - 1e-9)
    assert found >= rates.kernel


@given(DEVICES, SIZES, SIZES, st.integers(64, 20000), st.integers(2, 5))
def test_more_work_does_not_take_less_time(
    rates: DeviceRates, m: int, n: int, k: int, factor: int
) -> None:
    once = rates.product_seconds(m, n, k, "half")
    assert rates.product_seconds(m * factor, n, k, "half") >= once * 0.99
    assert rates.product_seconds(m, n, k, "half", factor) >= once * 0.99


def test_thin_products_reach_less_than_square_ones() -> None:
    rates = KNOWN[-1]

    def reached(m: int, n: int, k: int) -> float:
        return 2 * m * n * k / rates.product_seconds(m, n, k, "half") / rates.rate("half")

    assert reached(16384, 8192, 8192) > 0.85
    assert reached(4096, 16, 4096) < 0.2
    assert reached(128, 768, 768) < 0.2


def test_precisions_that_a_device_lacks_fall_back() -> None:
    t4 = from_datasheet(find_device("T4"))
    assert t4.rate("tf32") == t4.rate("fp32") < t4.rate("half") < t4.rate("int8")


@given(
    st.integers(64, 8192),
    st.integers(64, 8192),
    st.integers(64, 8192),
    st.floats(0.3, 4),
)
def test_measured_products_correct_the_model(m: int, n: int, k: int, factor: float) -> None:
    modelled = KNOWN[0].product_seconds(m, n, k, "half")
    measured = MeasuredProduct(m, n, k, "half", modelled * factor)
    far = MeasuredProduct(m * 50, n * 50, k * 50, "half", 1.0)
    probed = replace(KNOWN[0], basis="probe", products=(measured, far))
    assert probed.product_seconds(m, n, k, "half") == pytest.approx(modelled * factor, rel=0.05)
    assert probed.product_seconds(m, n, k, "fp32") == KNOWN[0].product_seconds(m, n, k, "fp32")


@given(DEVICES, st.floats(0, 1e11))
def test_moving_takes_a_kernel_and_the_bytes(rates: DeviceRates, size: float) -> None:
    found = rates.moving_seconds(size)
    assert found >= rates.kernel
    assert found == pytest.approx(rates.kernel + size / rates.bandwidth)
