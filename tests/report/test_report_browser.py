"""The report in a real Chromium: sorting, printing, narrow screens, no errors, no web requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import (
    SCRIPT,
    evaluated_record,
    report_html,
    unregistered,
    with_settings,
    write_results,
)
from peft_methods.analysis.comparison import Comparison
from peft_methods.cli.command_text import pytest_command
from peft_methods.report.html.page import build_report, write_report

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three methods, with charts."""
    root = tmp_path_factory.mktemp("report")
    run = write_results(root / "run")
    report_html(root / "out", run, charts="few")
    return root / "out" / "report.html"


@pytest.fixture
def opened(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that opens a file. Fails on any console message, error, dialog or web request."""
    events: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            events.append(request.url) if not request.url.startswith(("file:", "data:")) else None
        ),
    )

    def open_page(path: Path) -> Any:
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert events == []


def column(page: Any, number: int) -> list[str]:
    """Text of a column of the comparison table; column 1 has the methods."""
    found: list[str] = (
        page.locator("#embedded-1-comparison table")
        .first.locator(f"tbody tr > :nth-child({number})")
        .all_inner_texts()
    )
    return [text.split("\n")[0].strip() for text in found]


def test_table_sorts_by_raw_values_on_click_and_key_press(opened: Any, page_file: Path) -> None:
    page = opened(page_file)
    table = page.locator("#embedded-1-comparison table").first
    heading = table.get_by_role("columnheader", name="Accuracy")
    initial = column(page, 1)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    raw = [
        float(value)
        for value in table.locator("tbody tr > :nth-child(2)").evaluate_all(
            "cells => cells.map(cell => cell.dataset.sort)"
        )
    ]
    assert raw == sorted(raw)
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, 1) == ["IA3", "LoRA", "Full fine-tuning"]
    method = table.get_by_role("columnheader", name="Method")
    method.get_by_role("button").press("Space")
    assert column(page, 1) == sorted(initial)
    assert heading.get_attribute("aria-sort") is None


def test_table_sorts_missing_values_last_in_both_orders(opened: Any, tmp_path: Path) -> None:
    (first, one), (second, two) = evaluated_record("full", 0, 0.9), evaluated_record("lora", 0, 0.7)
    lost, _ = evaluated_record(
        "ia3", 0, 0.5, status="failed", metrics={}, environment={}, message="no"
    )
    records = (first, second, lost)
    made = build_report(
        Comparison(records, predictions={first.fingerprint: one, second.fingerprint: two}), {}
    )
    write_report(replace(made, charts="none"), tmp_path, pytest_command)
    page = opened(tmp_path / "report.html")
    button = page.locator("#embedded-1-comparison table").first.get_by_role(
        "button", name="Accuracy"
    )
    for _ in range(2):
        button.click()
        assert column(page, 2)[-1] == "–"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_window_and_text_has_enough_contrast(
    opened: Any, page_file: Path, width: int, scheme: str
) -> None:
    page = opened(page_file)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for selector in ("body", ".muted", "thead th", ".severity", "figure svg text", "a"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


CONTRAST = """selector => {
  const channels = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (color) => channels(color).map(linear)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const page = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll(selector)].map((one) => {
    const ink = light(getComputedStyle(one).color);
    return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  }));
}"""


def test_page_unfolds_all_details_for_printing(opened: Any, page_file: Path) -> None:
    page = opened(page_file)
    folded = page.locator("details:not([open])").count()
    assert folded > 3
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == folded
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0


def test_page_shows_untrusted_text_as_text(opened: Any, tmp_path: Path) -> None:
    record, predictions = evaluated_record("lora", 0, 0.9, label=SCRIPT, message=SCRIPT)
    source = ("data.source", f"<img src=x onerror=alert(1)>{SCRIPT}")
    run = unregistered(SCRIPT, with_settings(record.spec, source))
    foreign = replace(record, spec=run)
    write_report(
        build_report(Comparison((foreign,), predictions={record.fingerprint: predictions}), {}),
        tmp_path,
        pytest_command,
    )
    page = opened(tmp_path / "report.html")
    assert column(page, 1) == [SCRIPT]
    assert SCRIPT in page.locator("#embedded-1 > p").first.inner_text()
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0
