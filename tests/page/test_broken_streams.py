"""Connections that break, and runs that are stopped."""

import asyncio

import pytest
from playwright.async_api import Browser, expect

from tests.gateway.conftest import ANSWER_TURN, SEARCH_TURN, StageEngine, eventually, running_stage

from .browser import visit
from .conftest import QUESTION, PacedEngine
from .proxy import cutting_proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = "West African CFA franc"
NUM_WORDS = len(SEARCH_TURN.split(" "))


async def test_a_cut_stream_is_resumed_where_it_broke(browser: Browser) -> None:
    engine = PacedEngine()
    async with (
        running_stage(engine=engine, resume_grace_s=60) as stage,
        cutting_proxy(int(stage.url.rsplit(":", 1)[1])) as (proxy, url),
        visit(browser, url) as visited,
    ):
        page = visited.page
        resumed_after: list[str | None] = []
        page.on("request", lambda one: resumed_after.append(one.headers.get("last-event-id")))
        await visited.ask(QUESTION)
        engine.go(NUM_WORDS + 2)
        await expect(page.locator(".thought").nth(1)).to_have_text("Found")
        proxy.cut()
        await expect(page.locator(".connection")).to_have_text("Connection lost. Reconnecting…")
        engine.go(1)  # The run goes on while nobody reads.
        proxy.mend()
        await expect(page.locator(".connection")).to_have_count(0)
        engine.go(len(ANSWER_TURN.split(" ")))
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.locator(".thought")).to_have_text(["I need Mali.", "Found it."])
        await expect(page.locator(".step h3")).to_have_text(["Thought", "Search", "Thought"])
        assert any(after is not None and int(after) > 3 for after in resumed_after)
        assert len(engine.prompts) == 2


async def test_a_server_that_stays_away_is_given_up_and_can_be_tried_again(browser: Browser) -> None:
    engine = PacedEngine()
    async with (
        running_stage(engine=engine, resume_grace_s=60) as stage,
        cutting_proxy(int(stage.url.rsplit(":", 1)[1])) as (proxy, url),
        visit(browser, url) as visited,
    ):
        page = visited.page
        await page.add_init_script("Math.random = () => 0")
        await page.clock.install()
        await visited.ask(QUESTION)
        engine.go(NUM_WORDS)
        await expect(page.locator(".read")).to_be_visible()
        proxy.cut()
        reconnect = page.get_by_role("button", name="Reconnect")
        await expect(page.locator(".connection")).to_be_visible()
        for _ in range(12):
            await page.clock.run_for(7000)
            if await reconnect.is_visible():
                break
        await expect(reconnect).to_be_visible()
        proxy.mend()
        engine.go(len(ANSWER_TURN.split(" ")))
        await reconnect.click()
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.locator(".run")).to_have_count(1)
        assert len(engine.prompts) == 2


@pytest.mark.parametrize("how", ["button", "escape"])
async def test_stop_reaches_the_engine(browser: Browser, how: str) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine, resume_grace_s=600) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".thought")).to_be_visible()
        assert engine.num_open == 1
        if how == "escape":
            await page.keyboard.press("Escape")
        else:
            await page.wait_for_timeout(450)  # Sooner, a click counts as the second one of a double click.
            await page.get_by_role("button", name="Stop").click()
        await expect(page.locator(".run .note")).to_have_text("The run was stopped.")
        await eventually(lambda: engine.num_open == 0)
        await expect(page.locator("#ask-button")).to_have_text("Ask")
        await expect(page.get_by_text("Details", exact=True)).to_be_visible()
        await expect(page.locator(".pulse")).to_be_hidden()
        await expect(page.locator(".thought").first).to_be_visible()  # What there is of it stays open.
        await expect(page.get_by_role("button", name="Ask again")).to_be_enabled()


async def test_a_refusal_is_shown_and_can_be_retried(browser: Browser) -> None:
    ask = {"question": QUESTION, "stream": True}
    async with (
        running_stage(max_concurrent_runs=1, engine=(held := StageEngine(hold=asyncio.Event()))) as stage,
        stage.client.stream("POST", "/v1/research", json=ask) as first,
        visit(browser, stage.url) as visited,
    ):
        assert first.status_code == 200
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".note-problem")).to_be_visible()
        assert held.hold is not None
        held.hold.set()
        held.hold = None
        await first.aread()
        await page.get_by_role("button", name="Retry").click()
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
