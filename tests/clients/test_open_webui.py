"""Open WebUI with its defaults in a real browser, on the demo: a question, a follow-up, a refusal, and what is shown.

Where ``scripts/setup-open-webui`` was not run, the test is skipped. With ``SEARCHR1_SCREENSHOTS=docs/images`` it also
writes the guide's picture there.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from loadtests.processes import free_port, running
from tests.page.browser import open_browser, visit
from tests.support.demo_server import Demo

from .clients import ROOT

pytestmark = [
    *(pytest.mark.vllm, pytest.mark.browser, pytest.mark.slow),
    pytest.mark.timeout(1800),
]

VENV = ROOT / ".venv-open-webui"
QUESTION = "Which currency is used in the country where Timbuktu is?"
FOLLOW_UP = "And its capital?"
STARTS_S = 600.0
"""Its first start makes a database, step by step."""
PATIENCE_MS = 120_000
"""For the hundreds of files of its page, and for an answer while the same processor writes titles."""


@pytest.fixture(scope="session", autouse=True)
def environments() -> None:
    """In place of the other clients' environments, of which nothing is needed here."""
    if not (VENV / ".setup").exists():
        pytest.skip("Open WebUI is not installed (scripts/setup-open-webui)")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")


@pytest.fixture
def open_webui(demo: Demo, tmp_path: Path) -> Iterator[str]:
    """A new Open WebUI that knows the demo's address, and nothing else of it."""
    port = free_port()
    command = [str(VENV / "bin" / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "OPENAI_API_BASE_URL": f"{demo.url}/v1",
        "OPENAI_API_KEY": "none",
        "DATA_DIR": str(tmp_path / "data"),
        "WEBUI_SECRET_KEY": "of-a-test",  # It writes one into the working directory otherwise.
        "HF_HUB_OFFLINE": "1",
    }
    log = tmp_path / "log"
    with running(command, port, ready="/health", log=log, timeout_s=STARTS_S, environment=environment) as server:
        yield server.url


async def test_it_shows_the_answer_the_reasoning_and_the_sources(demo: Demo, open_webui: str) -> None:
    async with open_browser() as browser, visit(browser, open_webui, height=1000, patience_ms=PATIENCE_MS) as visited:
        expect.set_options(timeout=PATIENCE_MS)
        page = visited.page
        await _sign_up(page)
        first = await _ask(page, QUESTION, 0)
        await _shows(first, "West African CFA franc", ["country of Timbuktu", "currency of Mali"], ["Mali"])
        second = await _ask(page, FOLLOW_UP, 1)
        await _shows(second, "Bamako", ["capital of Mali"], ["Mali", "Bamako"])
        # It asks the model for a title, too, gets no answer, and takes the question.
        await expect(page.locator("nav").get_by_text(QUESTION)).to_be_visible()
        await expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
        if folder := os.environ.get("SEARCHR1_SCREENSHOTS"):
            await page.mouse.move(640, 20)
            await page.screenshot(path=Path(folder) / "open-webui.png")
        await _ask(page, "x" * 9000, 2)
        await expect(
            page.get_by_text("The question has 9000 characters; at most 8000 are taken.").first
        ).to_be_visible()
    async with httpx.AsyncClient(base_url=demo.url, timeout=60) as client:
        assert 'searchr1_ignored_fields_total{field="tools"}' in (await client.get("/metrics")).text


async def _sign_up(page: Page) -> None:
    await page.get_by_text("Get started").click()
    await page.get_by_placeholder("Enter Your Full Name").fill("Ada")
    await page.get_by_placeholder("Enter Your Email").fill("ada@example.com")
    await page.get_by_placeholder("Enter Your Password").fill("a-long-password")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Okay, Let's Go!").click()


async def _ask(page: Page, question: str, number: int) -> Locator:
    """Ask and return the message that answers."""
    await page.locator("#chat-input").click()
    await page.keyboard.insert_text(question)
    await page.keyboard.press("Enter")
    return page.locator(".chat-assistant").nth(number)


async def _shows(message: Locator, answer: str, queries: list[str], sources: list[str]) -> None:
    """Unfold what is folded, and check that all is there."""
    number = f"{len(sources)} Source" + "s" * (len(sources) > 1)
    await expect(message.get_by_text(number, exact=True)).to_be_visible()
    await expect(message.locator("p", has_text=answer).last).to_have_text(answer)
    await message.get_by_text("Thought for").click()
    for query in queries:
        await expect(message).to_contain_text(f"[search] {query}")
    await message.get_by_text(number, exact=True).click()
    listed = message.get_by_role("button", name="View source")
    await expect(listed).to_have_text([f"{i} {title}" for i, title in enumerate(sources, start=1)])
