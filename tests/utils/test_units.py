"""Numbers as written in tables are parsed as meant, or rejected with the text in the message."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.utils.units import (
    MISSING,
    SIGNED,
    UNITS,
    UnitError,
    format_bytes,
    parse,
    parse_series,
)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("124.6M", "count", 124.6e6), ("124,647,170", "count", 124_647_170),
        ("~1M", "count", 1e6), ("124M+", "count", 124e6), ("739K", "count", 739e3),
        ("67.13 min", "seconds", 4027.8), ("1.5 h", "seconds", 5400), ("428.9s", "seconds", 428.9),
        ("3.24 GB", "bytes", 3.24e9), ("512 MiB", "bytes", 2**29),
        ("93.3%", "share", 0.933), ("0.933", "share", 0.933), ("100 %", "share", 1.0),
        ("2e-5", "plain", 2e-5), ("2E−5", "plain", 2e-5),
        (".5", "plain", 0.5), ("  7 ", "plain", 7),
    ],
)  # fmt: skip
def test_parse_accepts_numbers_as_written(text: str, kind: str, value: float) -> None:
    quantity = parse(text, kind)
    assert quantity is not None
    assert quantity.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", sorted(MISSING))
def test_parse_returns_none_for_missing_values(text: str) -> None:
    assert parse(f" {text.upper()} ", "share") is None
    assert parse_series(text, "loss") == ()


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("-3", "count", "'-3' is below zero; a count cannot be"),
        ("−0.1", "share", "is below zero"),
        ("3 GBB", "bytes", "unknown unit 'gbb'. Did you mean 'gb'?"),
        ("3 MB", "seconds", "unknown unit 'mb'"),
        ("0,93", "share", "'0,93' is not a number"),
        ("1e999", "plain", "is too large"),
        ("3 and 4", "plain", "is not a number"),
        ("3 % ± 1 s", "share", "different units before and after ±"),
        ("e5", "plain", "is not a number"),
        ("٣", "plain", "is not a number"),
    ],
)
def test_parse_rejects_invalid_text(text: str, kind: str, expected: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, kind)
    assert expected in str(caught.value)
    assert repr(text) in str(caught.value)


def test_parse_returns_deviation_and_precision() -> None:
    shown = parse("93.3 ± 0.4 %", "share")
    assert shown is not None
    assert (shown.value, shown.spread) == (0.933, 0.004)
    limits = {
        text: (q.low, q.high)
        for text in ("656,642", "1.30M", "739K", "110M")
        if (q := parse(text, "count"))
    }
    assert limits == {
        "656,642": (656_642, 656_642),
        "1.30M": (1.295e6, 1.31e6),
        "739K": (738_500, 740_000),
        "110M": (105e6, 120e6),
    }


def test_parse_series_skips_missing_and_keeps_nan() -> None:
    assert [one.value for one in parse_series("0.31; 0.22;–;0.20", "loss")] == [0.31, 0.22, 0.20]
    first, *rest = [one.value for one in parse_series("nan;inf;0.5", "loss")]
    assert math.isnan(first)
    assert rest == [math.inf, 0.5]


numbers = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=3)
written = st.sampled_from(
    [(kind, unit, factor) for kind, units in UNITS.items() for unit, factor in units.items()]
)


@given(numbers, written, st.sampled_from(["", " "]), st.booleans())
def test_parse_converts_units_to_base_units(
    number: object, unit: tuple[str, str, float], gap: str, upper: bool
) -> None:
    kind, name, factor = unit
    quantity = parse(f"{number}{gap}{name.upper() if upper else name}", kind)
    assert quantity is not None
    assert quantity.value == pytest.approx(float(str(number)) * factor, rel=1e-9)
    assert quantity.low <= quantity.value <= quantity.high
    assert quantity.unit == name


@given(st.floats(0, 1e12), st.sampled_from(list(UNITS)))
def test_parse_restores_python_floats_exactly(value: float, kind: str) -> None:
    quantity = parse(repr(value), kind)
    assert quantity is not None
    assert (quantity.value, quantity.unit) == (value, "")


@given(st.integers(0, 10**12), st.booleans())
def test_parse_restores_counts_with_and_without_commas(count: int, commas: bool) -> None:
    quantity = parse(f"{count:,}" if commas else str(count), "count")
    assert quantity is not None
    assert quantity.value == count
    assert quantity.low <= count <= quantity.high


@given(st.text(max_size=12), st.sampled_from(list(UNITS)))
def test_any_text_is_parsed_missing_or_rejected(text: str, kind: str) -> None:
    try:
        quantity = parse(text, kind)
    except UnitError as error:
        assert repr(text) in str(error)
    else:
        assert quantity is None or (
            math.isfinite(quantity.value) and (quantity.value >= 0 or kind in SIGNED)
        )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_parse_series_restores_values(values: list[float]) -> None:
    assert [one.value for one in parse_series(";".join(map(repr, values)), "share")] == values


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (91_700_000, "92 MB"), (1.44e9, "1.4 GB")],
)
def test_format_bytes_uses_decimal_units(size: float, text: str) -> None:
    assert format_bytes(size) == text
