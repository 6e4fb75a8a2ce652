"""The question box: whatever is typed into it is asked by whatever presses its button."""

import re

import pytest
from playwright.async_api import Browser, expect

from tests.gateway.conftest import Stage, running_stage

from .browser import visit
from .conftest import QUESTION, PacedEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = "Which currency is used in the country where Timbuktu is, and since when? " * 3
QUESTIONS = ["And in Niger?\nI mean\nthe country.", LONG.strip(), "\n".join("abcdefghijk")]
"""Of three lines, of several by its length, and of more lines than the box shows."""


@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "touch"])
@pytest.mark.parametrize("width", [360, 390, 1280])
async def test_every_question_after_the_first_is_asked_by_one_press(
    stage: Stage, browser: Browser, width: int, touch: bool
) -> None:
    async with visit(browser, stage.url, width=width, height=740, touch=touch) as visited:
        page = visited.page
        box, button = page.get_by_label("Your question"), page.get_by_role("button", name="Ask", exact=True)
        for i, question in enumerate([QUESTION, *QUESTIONS]):
            await box.fill(question)
            await visited.press(button, touch=touch)
            await expect(page.locator(".asked")).to_have_count(i + 1)
            await expect(page.locator(".asked").last).to_have_text(question)
            await expect(page.locator(".actions")).to_have_count(i + 1)
            await expect(box).to_have_value("")
        assert not await visited.overflows()
        assert visited.complaints == []


async def test_nothing_moves_when_the_box_loses_the_focus(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url, width=360, height=640) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        box = page.get_by_label("Your question")
        for question in ["And in Niger?", *QUESTIONS]:
            await box.fill(question)
            parts = [box, page.locator("#ask-button"), page.locator("#dock"), page.locator(".asked")]
            before = [await part.bounding_box() for part in parts]
            await box.blur()
            assert [await part.bounding_box() for part in parts] == before, question


async def test_there_is_one_box_in_the_middle_and_then_at_the_foot(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        assert await page.locator("textarea").count() == 1
        dock = page.locator(".ask")
        middle = await dock.bounding_box()
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        foot = await dock.bounding_box()
        assert await page.locator("textarea").count() == 1
        assert middle is not None
        assert foot is not None
        assert 200 < middle["y"] < 600 < foot["y"]
        await page.get_by_role("button", name="New question").first.click()
        await expect(page.locator("#intro")).to_be_visible()
        await expect(page.locator(".run")).to_have_count(0)
        await expect(page.get_by_label("Your question")).to_be_focused()
        await expect(page).to_have_url(re.compile(r"/$"))
        await page.go_back()
        await expect(page.locator(".asked")).to_have_text(QUESTION)


async def test_while_a_run_goes_on_the_next_question_can_be_typed_but_not_asked(browser: Browser) -> None:
    engine = PacedEngine()
    async with running_stage(engine=engine) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.get_by_role("button", name="Stop")).to_be_visible()
        await visited.ask("And in Niger?")
        await visited.ask("  \n ")
        await visited.ask("And in Niger?")
        await expect(page.locator(".asked")).to_have_count(1)
        await expect(page.get_by_label("Your question")).to_have_value("And in Niger?")
        engine.go(1000)
        await expect(page.locator(".actions")).to_be_visible()
        await page.get_by_label("Your question").press("Enter")
        await expect(page.locator(".asked")).to_have_text([QUESTION, "And in Niger?"])


async def test_a_question_that_is_refused_comes_back_to_be_changed(browser: Browser) -> None:
    async with running_stage(max_question_chars=40) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask("Why? " * 20)
        await expect(page.locator(".note-problem")).to_be_visible()
        await expect(page.get_by_role("button", name="Retry")).to_have_count(0)
        await expect(page.get_by_label("Your question")).to_have_value(("Why? " * 20).strip())
        await visited.ask(QUESTION)
        await expect(page.locator(".answer-text")).to_be_visible()
