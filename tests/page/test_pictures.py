"""The page from its start to its answer, as it looks in a window and on a phone, light and dark.

The engine repeats what the demo's model said. With ``SEARCHR1_SCREENSHOTS=docs/images`` the tests also write the
guide's pictures there.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from searchr1.demo.bundle import ABOUT, EXAMPLES
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from tests.gateway.conftest import StageRetriever, running_stage

from .browser import Theme, visit
from .conftest import PacedEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAID = [
    "<think> I need the currency of the country of Timbuktu. First: the country of Timbuktu. </think>\n"
    "<search> country of Timbuktu </search>",
    '<think> Doc 1(Title: "Timbuktu") On the map of Mali one finds Timbuktu. So Timbuktu is in Mali. '
    "Now I need the currency of Mali. </think>\n<search> currency of Mali </search>",
    '<think> Doc 1(Title: "Mali") The currency of Mali is the West African CFA franc (XOF). '
    "So the currency of Mali is West African CFA franc. This is the answer. </think>\n"
    "<answer> West African CFA franc </answer>",
]
PASSAGES = {
    "country of Timbuktu": [
        ("Timbuktu", "On the map of Mali one finds Timbuktu. The time zone there is Africa/Bamako."),
        ("Lesotho", "Lesotho is a country on the continent of Africa. A bordering country is South Africa."),
        ("Niue", "Niue is a country on the continent of Oceania. No other country borders it."),
    ],
    "currency of Mali": [
        ("Mali", "The currency of Mali is the West African CFA franc (XOF). Other means of payment may be accepted."),
        ("Mali", "In Mali the main languages are French and Bambara. This list need not be complete."),
        ("Mali", "Statistics give Mali a population of 19,077,690. Visitors are not counted."),
    ],
}


class Atlas(StageRetriever):
    """Gives what the demo's index gives for the two queries."""

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Answer from the table."""
        found = [Passage(id=query, title=f'"{title}"', text=text, score=1) for title, text in PASSAGES[query]]
        return Found(tuple(found), provider="index")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height"), [("page", 1280, 760), ("page-phone", 360, 720)])
async def test_the_demo_from_its_start_to_its_answer(
    browser: Browser, theme: Theme, name: str, width: int, height: int
) -> None:
    engine = PacedEngine(completions=SAID)
    settings: dict[str, Any] = {"served_name": "searchr1-atlas", "page_about": ABOUT, "page_examples": EXAMPLES}
    async with (
        running_stage(engine=engine, retriever=Atlas(), **settings) as stage,
        visit(browser, stage.url, theme=theme, width=width, height=height) as visited,
    ):
        page = visited.page
        await expect(page.locator("#about")).to_be_visible()
        assert not await visited.overflows()
        await visited.ask(EXAMPLES[0])
        engine.go(len(SAID[0].split(" ")) + 12)
        await expect(page.locator(".thought").nth(1)).to_contain_text("1Timbuktu On the map of Mali")
        await expect(page.locator(".pulse")).to_be_in_viewport(ratio=1)
        assert not await visited.overflows()
        engine.go(1000)
        await expect(page.locator(".steps > summary")).to_contain_text("2 searches, 6 passages read")
        await expect(page.locator(".cite")).to_have_text("4")
        for part in (".asked", ".answer", ".source.cited", "#question", "#about-text"):
            await expect(page.locator(part)).to_be_in_viewport()
        assert not await visited.overflows()
        assert visited.complaints == []
        if folder := os.environ.get("SEARCHR1_SCREENSHOTS"):
            await page.screenshot(path=Path(folder) / f"{name}-{theme}.png")
