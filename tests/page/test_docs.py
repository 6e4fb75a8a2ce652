"""The API's documentation in a browser: whole, from the server's own document, and from nowhere else."""

import pytest
from playwright.async_api import Browser, expect

from tests.gateway.conftest import MODEL, Stage, running_stage

from .browser import Theme, visit

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 360)])
async def test_every_operation_is_shown(stage: Stage, browser: Browser, theme: Theme, width: int) -> None:
    document = (await stage.client.get("/openapi.json")).json()
    operations = [f"{method.upper()}{path}" for path, one in document["paths"].items() for method in one]
    async with visit(browser, stage.url, path="/docs", theme=theme, width=width) as visited:
        page = visited.page
        await expect(page.locator(".operation")).to_have_count(len(operations))
        assert sorted(await page.locator(".operation h3").all_text_contents()) == sorted(operations)
        ask = page.locator("#post-v1-research")
        await expect(ask.locator(".example")).to_contain_text('{"question":"Which currency is used in Mali?"}')
        await expect(ask.locator("dt", has_text="previous_run_id")).to_contain_text("string or null")
        answer = ask.locator("details.response").first
        await answer.locator("summary").first.click()
        await answer.get_by_text("Usage", exact=True).last.click()
        await expect(answer.get_by_text("cached_tokens")).to_be_visible()
        assert await visited.axe() == []
        assert not await visited.overflows()
        assert visited.complaints == []


@pytest.mark.parametrize("ops_port", [None, 9])
async def test_the_page_links_to_it_where_it_is_served(browser: Browser, ops_port: int | None) -> None:
    async with running_stage(ops_port=ops_port) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await expect(page.locator("#model")).to_have_text(MODEL)
        await expect(page.get_by_role("link", name="API documentation")).to_have_count(0 if ops_port else 1)
        assert visited.complaints == []


async def test_an_address_leads_to_its_operation(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url, path="/docs#post-v1-responses") as visited:
        await expect(visited.page.locator("#post-v1-responses h3")).to_be_in_viewport()


async def test_a_document_that_does_not_come_is_said_to_be_missing(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.route("**/openapi.json", lambda route: route.fulfill(status=503, body="{}"))
        await page.goto(f"{stage.url}/docs")
        await expect(page.locator(".note-problem")).to_contain_text("can't be read just now")
