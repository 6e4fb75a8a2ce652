"""The page on the demo: a real model, real searches, a real browser."""

import asyncio

import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.engines.helpers import metric
from tests.support.demo_server import Demo

from .browser import Theme, visit

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

TIMBUKTU = "Which currency is used in the country where Timbuktu is?"


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_question_is_answered_with_its_sources(demo: Demo, browser: Browser, theme: Theme) -> None:
    async with visit(browser, demo.url, theme=theme) as visited:
        page = visited.page
        await visited.ask(TIMBUKTU)
        await expect(page.locator(".answer-text")).to_have_text("West African CFA franc")
        assert await page.locator(".step-search").count() >= 2
        await expect(page.locator("#about")).to_contain_text("only countries and cities")
        await expect(page.locator(".cite").first).to_be_visible()
        await page.locator(".cite").first.click()
        await expect(page.locator("mark").first).to_contain_text("West African CFA franc", ignore_case=True)
        assert await visited.axe() == []
        assert visited.complaints == []


async def test_stop_frees_the_engine(demo: Demo, browser: Browser) -> None:
    async with visit(browser, demo.url) as visited, httpx.AsyncClient(base_url=demo.url, timeout=30) as client:
        await visited.ask("What is the capital of " + "the neighbour of " * 30 + "Mali?")
        # The button takes a click this soon for the second one of a double click.
        await visited.page.keyboard.press("Escape")
        await expect(visited.page.locator(".run .note")).to_have_text("The run was stopped.")
        for _ in range(100):
            text = (await client.get("/metrics")).text
            if metric(text, "vllm:num_requests_running") == metric(text, "searchr1_runs_running") == 0:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the engine still works on a run that was stopped")
