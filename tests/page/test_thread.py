"""Follow-ups, shared addresses, keys: more than one run, or one that was asked elsewhere."""

import re

import pytest
from playwright.async_api import Browser, expect

from tests.gateway.conftest import SEARCH_TURN, Stage, StageEngine, running_stage

from .browser import visit
from .conftest import QUESTION, PacedEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = "West African CFA franc"


async def ask(stage: Stage, **options: object) -> str:
    response = await stage.client.post("/v1/research", json={"question": QUESTION, **options})
    assert response.status_code == 200, response.text
    return response.headers["x-run-id"]


async def test_a_shared_address_shows_the_run_again_without_running_it(stage: Stage, browser: Browser) -> None:
    run_id = await ask(stage)
    num_prompts = len(stage.engine.prompts)
    async with visit(browser, stage.url, path=f"/?run={run_id}") as visited:
        page = visited.page
        await expect(page.locator(".asked")).to_have_text(QUESTION)
        await expect(page.locator(".step h3")).to_have_text(["Thought", "Search", "Thought"])
        await expect(page.locator(".cite")).to_have_text("1")
        await expect(page.get_by_role("button", name="Copy link")).to_be_visible()
        assert len(stage.engine.prompts) == num_prompts
        assert visited.complaints == []


async def test_a_run_is_named_by_the_address_and_followed_again_after_a_reload(browser: Browser) -> None:
    engine = PacedEngine()
    async with running_stage(engine=engine) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        engine.go(12)
        await expect(page.locator(".read")).to_be_visible()
        await expect(page).to_have_url(re.compile(r"\?run=run_[0-9a-f]{32}$"))
        await page.reload()
        await expect(page.locator(".read")).to_be_visible()
        await expect(page.get_by_role("button", name="Stop")).to_be_visible()
        engine.go(100)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        assert len(engine.prompts) == 2
        await page.get_by_role("button", name="Copy link").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert await page.evaluate("navigator.clipboard.readText()") == page.url


async def test_a_follow_up_is_asked_after_the_run_before_it_and_shared_with_it(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url, height=500) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        await visited.ask("And in Niger?")
        await expect(page.locator(".asked")).to_have_text([QUESTION, "And in Niger?"])
        await expect(page.locator(".answer-text")).to_have_text([ANSWER, ANSWER])
        first, _, after_it, _ = stage.engine.prompts
        assert len(after_it) > len(first) + len(ANSWER)  # A token a byte: the earlier question and answer are in it.
        for copy in await page.get_by_role("button", name="Copy link").all():
            await copy.click()
            await expect(page.get_by_role("button", name="Copied")).to_be_visible()
            shared = await page.evaluate("navigator.clipboard.readText()")
            assert shared == page.url
            assert shared.count("run=") == 2
            await expect(page.get_by_role("button", name="Copied")).to_have_count(0)
        await page.reload()
        await expect(page.locator(".answer-text")).to_have_text([ANSWER, ANSWER])
        await expect(page.locator(".asked").last).to_be_in_viewport()
        await expect(page.locator(".answer-text").last).to_be_in_viewport()
        await expect(page).to_have_title(f"{QUESTION} · Search-R1 Serve")
        assert len(stage.engine.prompts) == 4
        await page.go_back()
        await expect(page.locator(".answer-text")).to_have_text([ANSWER])


async def test_asking_again_in_a_shared_thread_asks_in_the_same_place(stage: Stage, browser: Browser) -> None:
    first = await ask(stage)
    second = await ask(stage, previous_run_id=first)
    prompts = stage.engine.prompts
    async with visit(browser, stage.url, path=f"/?run={first}&run={second}") as visited:
        page = visited.page
        await expect(page.locator(".actions")).to_have_count(2)
        await page.get_by_role("button", name="Ask again").last.click()
        await expect(page.locator(".actions")).to_have_count(2)
        await expect(page).to_have_url(re.compile(rf"\?run={first}&run=run_(?!{second[4:]})"))
        assert prompts[4] == prompts[2]


async def test_a_run_without_sources_stands_in_the_one_column(browser: Browser) -> None:
    engine = StageEngine(["<think> Hm. </think> nothing"])
    async with running_stage(engine=engine) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await page.get_by_text("Details", exact=True).click()
        note, figures = await page.locator(".run .note").bounding_box(), await page.locator(".figures").bounding_box()
        assert note is not None
        assert figures is not None
        assert (note["x"], note["width"]) == (figures["x"], figures["width"])
        assert note["y"] < figures["y"]
        await expect(page.locator(".sources")).to_be_hidden()


async def test_an_empty_answer_says_so(browser: Browser) -> None:
    engine = StageEngine([SEARCH_TURN, "<think> Hm. </think>\n<answer>  </answer>"])
    async with running_stage(engine=engine) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".answer")).to_have_text("The model gave an empty answer.")
        await expect(page.locator(".uncited")).to_be_hidden()
        await expect(page.get_by_role("button", name="Copy answer")).to_have_count(0)


async def test_a_device_without_a_network_says_so(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.context.set_offline(True)
        await expect(page.locator("#offline")).to_be_visible()
        await visited.ask(QUESTION)
        await expect(page.locator(".note-problem")).to_contain_text("The server can't be reached.")
        await page.context.set_offline(False)
        await expect(page.locator("#offline")).to_be_hidden()
        await page.get_by_role("button", name="Retry").click()
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)


async def test_an_unknown_run_says_so(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url, path="/?run=run_none") as visited:
        await expect(visited.page.locator(".run .note")).to_contain_text("The server no longer has this run")
        await visited.ask(QUESTION)
        await expect(visited.page.locator(".answer-text")).to_have_text(ANSWER)


async def test_a_key_is_asked_for_and_the_question_goes_on(browser: Browser) -> None:
    async with running_stage(api_keys=["secret"]) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await expect(page.locator("#key-reason")).to_have_text("This server needs an API key.")  # Before any question.
        await visited.ask(QUESTION)
        await expect(page.locator("#key-reason")).to_have_text("This server needs an API key.")
        await page.get_by_label("API key", exact=True).fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key-reason")).to_have_text("The API key is not one of this server's keys.")
        assert await visited.axe() == []
        await page.get_by_label("API key", exact=True).fill("secret")
        await page.keyboard.press("Enter")
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await page.reload()
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
