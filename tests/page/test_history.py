"""The list of earlier threads, which is this browser's own, and the theme that it keeps."""

import json
import re

import pytest
from playwright.async_api import Browser, expect

from tests.gateway.conftest import Stage, running_stage

from .browser import visit
from .conftest import QUESTION

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = "West African CFA franc"
STORE = "value => localStorage.setItem('searchr1.history', value)"


def thread(i: int) -> dict[str, object]:
    """One thread as the page keeps it."""
    return {"asked_at": 1_700_000_000_000 + i, "runs": [{"id": f"run_{i:032x}", "question": f"Question {i}?"}]}


async def test_threads_are_listed_reopened_and_deleted(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        titles = page.locator(".thread-title")
        await expect(page.locator("#history-empty")).to_be_visible()
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        await visited.ask("And in Niger?")
        await expect(page.locator(".actions")).to_have_count(2)
        await expect(titles).to_have_text([QUESTION])
        await page.get_by_role("button", name="New question").first.click()
        await visited.ask("Where is Mali?")
        await expect(page.locator(".actions")).to_be_visible()
        await expect(titles).to_have_text(["Where is Mali?", QUESTION])
        await page.reload()
        await expect(titles).to_have_text(["Where is Mali?", QUESTION])
        await expect(page.locator("[aria-current] .thread-title")).to_have_text("Where is Mali?")
        await titles.last.click()
        await expect(page.locator(".asked")).to_have_text([QUESTION, "And in Niger?"])
        await expect(page.locator(".answer-text")).to_have_text([ANSWER, ANSWER])
        await expect(page).to_have_title(re.compile(re.escape(QUESTION)))
        await page.get_by_role("button", name="Delete “Where is Mali?”").click()
        await expect(titles).to_have_text([QUESTION])
        clear = page.locator("#history-clear")
        await clear.click()
        await expect(titles).to_have_count(1)  # Asked once more: it can't be undone.
        await expect(clear).to_have_text("Really delete all?")
        await clear.click()
        await expect(titles).to_have_count(0)
        await page.reload()
        await expect(page.locator("#history-empty")).to_be_visible()
        assert visited.complaints == []


async def test_a_run_that_the_server_no_longer_has_is_said_to_be_gone(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        await visited.ask("And in Niger?")
        await expect(page.locator(".actions")).to_have_count(2)
        first = await page.evaluate("new URLSearchParams(location.search).getAll('run')[0]")
        assert (await stage.client.delete(f"/v1/research/{first}")).status_code == 200
        await page.reload()
        await expect(page.locator(".asked")).to_have_text([QUESTION, "And in Niger?"])
        note = page.locator(".run .note")
        await expect(note).to_contain_text("The server no longer has this run")
        await expect(note).to_contain_text("It keeps runs for 1 day.")
        await expect(page.locator(".answer-text")).to_have_text([ANSWER])  # What is left is shown.
        await note.get_by_role("button", name="Ask again").click()
        await expect(page.locator(".asked")).to_have_text([QUESTION])
        await expect(page.locator(".answer-text")).to_have_text([ANSWER])


async def test_the_history_is_bounded(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.evaluate(STORE, json.dumps([thread(i) for i in range(50)]))
        await page.reload()
        await expect(page.locator(".thread-title")).to_have_count(50)
        await visited.ask("x" * 1000)
        await expect(page.locator(".actions")).to_be_visible()
        stored = json.loads(await page.evaluate("localStorage.getItem('searchr1.history')"))
        assert len(stored) == 50
        assert stored[0]["runs"][0]["question"] == "x" * 300
        assert stored[-1]["runs"][0]["question"] == "Question 48?"


BROKEN = [
    "{not json",
    "null",
    '"text"',
    "{}",
    "[1, null, {}]",
    '[{"asked_at": "soon", "runs": []}]',
    '[{"asked_at": 1, "runs": [{"id": 1, "question": null}]}]',
    '[{"asked_at": 1e400, "runs": [{"id": "run_1", "question": "Q"}]}]',
    '[{"asked_at": 1e300, "runs": [{"id": "run_1", "question": "Q"}]}]',
]


async def test_a_broken_history_is_an_empty_one(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        for stored in BROKEN:
            await page.evaluate(STORE, stored)
            await page.reload()
            await expect(page.locator("#history-empty")).to_be_visible()
        await visited.ask(QUESTION)
        await expect(page.locator(".thread-title")).to_have_text([QUESTION])
        assert visited.complaints == []


async def test_without_storage_the_page_still_works(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        refuse = "Object.defineProperty(globalThis, 'localStorage', { get() { throw new DOMException('no'); } })"
        await page.add_init_script(refuse)
        await page.reload()
        await visited.ask(QUESTION)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.locator(".thread-title")).to_have_text([QUESTION])
        assert visited.complaints == []


async def test_the_theme_is_the_browsers_until_one_is_chosen(stage: Stage, browser: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    async with visit(browser, stage.url, theme="dark") as visited:
        page = visited.page
        dark = await page.evaluate(paper)
        await page.get_by_label("Theme").select_option("Light")
        light = await page.evaluate(paper)
        assert light != dark
        await page.goto(f"{stage.url}/docs")
        assert await page.evaluate(paper) == light
        await expect(page.get_by_label("Theme")).to_have_value("light")
        await page.get_by_label("Theme").select_option("Auto")
        assert await page.evaluate(paper) == dark


async def test_a_drawer_holds_the_history_on_a_phone(browser: Browser) -> None:
    async with running_stage() as stage, visit(browser, stage.url, width=360, height=640, touch=True) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        title = page.locator(".thread-title")
        await expect(title).to_be_hidden()
        await page.get_by_role("button", name="History and settings").tap()
        await expect(title).to_be_in_viewport()
        assert await visited.axe() == []
        await page.keyboard.press("Escape")
        await expect(title).to_be_hidden()
        await page.get_by_role("button", name="History and settings").tap()
        await page.get_by_role("button", name="New question").first.tap()
        await expect(page.locator("#intro")).to_be_visible()
        await expect(title).to_be_hidden()
