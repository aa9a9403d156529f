"""The page in a browser that has no network: Debian's Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Route, sync_playwright

from raypool.report import gather, render
from raypool.setbacks import Setback
from tests.report.ledgers import START, TAG, asked, ended, failed, fill

Scheme: TypeAlias = Literal["light", "dark"]

HELP = "no chromium here: apt-get install chromium, or brew install chromium"
IS_DRAWN = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
IS_DRAWN += ".data.some(value => value)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path is not None, HELP
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 40 tasks, whose texts are HTML that would call `alert`."""
    directory = tmp_path_factory.mktemp("report")
    numbers = range(1, 41)
    ledger = fill(
        directory / "run.db",
        [asked(n, TAG.format("prompt"), f"row-{n} {TAG.format('id')}") for n in numbers],
        [
            failed(n, TAG.format("type"), TAG.format("message"), duration_ms=None)
            if n % 10 == 0
            else ended(n, duration_ms=n * 37.0, model=TAG.format("m"), text=TAG.format("answer"))
            for n in numbers
        ],
        [Setback(START + 10_000 * n, "refused", TAG.format("429"), n) for n in range(5)],
        roles=[TAG.format("role")],
    )
    page = directory / "report.html"
    page.write_bytes(render(gather(ledger, content=True)))
    return page


class Visit:
    """A page that is looked at.

    Attributes:
        page: the browser's.
        asked: what the browser asked anybody for, but the page itself.
        said: errors, warnings and dialogs.
    """

    def __init__(self, context: BrowserContext, report: Path) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self._url = report.as_uri()
        context.route("**/*", self._answer)
        context.set_offline(True)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.goto(self._url)

    def rows(self) -> int:
        return self.page.locator(".listing tbody:visible").count()

    def _dismiss(self, dialog: Dialog) -> None:
        self.said.append("dialog")
        dialog.dismiss()

    def _answer(self, route: Route) -> None:
        if route.request.url == self._url:
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()


def visit(browser: Browser, report: Path, width: int = 1280, scheme: Scheme = "light") -> Visit:
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    return Visit(context, report)


def brightness(page: Page, name: str) -> int:
    """The red of a colour of the page's body, of 255."""
    colour: str = page.evaluate(f"getComputedStyle(document.body).{name}")
    return int(colour.removeprefix("rgb(").split(",")[0])


def test_page_draws_every_chart_asks_nobody_and_runs_nothing_of_others(
    browser: Browser, report: Path
) -> None:
    seen = visit(browser, report)

    canvases = seen.page.locator("canvas")
    assert [one.evaluate(IS_DRAWN) for one in canvases.all()] == [True] * 5
    assert seen.asked == []
    assert seen.said == []
    assert "<script>alert('answer')" in seen.page.inner_text("body")


def test_policy_stops_what_would_get_past_the_escaping(browser: Browser, report: Path) -> None:
    leak = b"<script>alert(1)</script><img src='http://127.0.0.1:9/x'><script src='x.js'></script>"
    leaky = report.with_name("leaky.html")
    leaky.write_bytes(report.read_bytes().replace(b"<main>", b"<main>" + leak))

    seen = visit(browser, leaky)

    assert seen.asked == []
    assert "dialog" not in seen.said
    assert len(seen.said) == 3
    assert all("Content Security Policy" in one for one in seen.said)


def test_rows_are_found_by_the_keyboard_alone(browser: Browser, report: Path) -> None:
    seen = visit(browser, report)
    everything = seen.rows()

    seen.page.keyboard.press("/")
    seen.page.keyboard.type("ROW-40 failed")

    assert everything == 40
    assert seen.rows() == 1
    assert seen.page.inner_text("#found") == "1 of 40 rows"
    seen.page.keyboard.press("Escape")
    assert seen.rows() == everything


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_shows_the_whole_width_in_light_and_in_dark(
    browser: Browser, report: Path, scheme: Scheme, tmp_path: Path
) -> None:
    seen = visit(browser, report, 400, scheme)

    assert seen.page.evaluate("document.documentElement.scrollWidth") == 400
    ground, ink = (brightness(seen.page, name) for name in ("backgroundColor", "color"))
    assert abs(ground - ink) > 150
    assert (ground > ink) == (scheme == "light")
    assert seen.page.screenshot(path=tmp_path / "phone.png", full_page=True)[:4] == b"\x89PNG"


def test_printed_page_is_light_and_draws_its_charts_again(browser: Browser, report: Path) -> None:
    seen = visit(browser, report, scheme="dark")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert seen.page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 33, 48)"
    assert seen.page.locator("canvas").count() == 5
    assert seen.page.pdf()[:5] == b"%PDF-"
    assert seen.said == []
