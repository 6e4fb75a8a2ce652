"""One run on the page, in a real browser: its steps, its sources, its figures, and what must stay inert."""

import json

import pytest
from playwright.async_api import Browser, expect

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed
from tests.gateway.conftest import ANSWER_TURN, SEARCH_TURN, Stage, StageEngine, StageRetriever, running_stage

from .browser import Theme, visit
from .conftest import QUESTION, PacedEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

MALI = Passage(
    id="1",
    title='"Mali"',
    text="Mali lies in West Africa. It uses the West African CFA franc. Its capital is Bamako.",
    url="https://www.example.org/wiki/Mali#Economy",
    score=2.5,
)
MALI_AGAIN = Passage(
    id="2", title="Mali", text="Bamako is the capital.", url="https://www.example.org/wiki/Mali", score=2
)
NAMED_ONLY = Passage(id="3", title="Niger", text="Niger lies in West Africa.", score=1)
ANSWER = "West African CFA franc"


async def test_a_run_shows_its_steps_its_answer_and_its_figures(browser: Browser) -> None:
    retriever = StageRetriever(Found((MALI, MALI_AGAIN, NAMED_ONLY), cache="stale", age_s=7300, provider="tavily"))
    async with running_stage(retriever=retriever) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        heads = page.locator(".step h3")
        await expect(heads).to_have_text(["Think", "Search", "Read", "Think", "Answer"])
        for took in await page.locator(".step .took").all():
            assert (await took.inner_text()).endswith((" ms", " s"))
        await expect(page.locator(".query")).to_have_text("currency of Mali")
        await expect(page.locator(".step-search .facts")).to_have_text("cache stale2 h oldtavily")
        await expect(page.locator(".read-item .index")).to_have_text(["1", "1", "2"])
        shown = dict(
            zip(*[await page.locator(f".figures {part}").all_inner_texts() for part in ("dt", "dd")], strict=True)
        )
        assert shown["Searches"] == "1"
        assert shown["First token"].endswith("ms")
        assert shown["Search cost"] == "no prices set"
        assert visited.complaints == []


async def test_sources_are_one_per_page_and_a_citation_leads_to_its_sentence(browser: Browser) -> None:
    retriever = StageRetriever(Found((NAMED_ONLY, MALI, MALI_AGAIN), provider="tavily"))
    async with running_stage(retriever=retriever) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        cite = page.locator(".cite")
        await expect(cite).to_have_text("[2]")
        await expect(page.locator(".source .title")).to_have_text(["Niger", "Mali"])
        await expect(page.locator(".source .domain")).to_have_text(["tavily", "www.example.org"])
        source = page.locator(".source").nth(1)
        await source.locator("summary").click()
        await expect(source.locator("details")).not_to_have_attribute("open", "")
        await cite.click()
        await expect(source.locator("summary")).to_be_focused()
        await expect(source.locator("mark")).to_have_text("It uses the West African CFA franc.")
        await expect(source.locator("mark")).to_be_in_viewport()
        await expect(source.locator("mark b")).to_have_text(ANSWER)
        await expect(source.locator("a")).to_have_attribute("href", MALI.url or "")


async def test_markup_and_scripts_in_a_source_stay_inert(browser: Browser) -> None:
    script = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    evil = Passage(id="1", title=script, text=f"{script} {ANSWER}", url="javascript:document.title='owned'", score=1)
    engine = StageEngine([f"<think> {script} </think><search> {script} </search>", ANSWER_TURN])
    retriever = StageRetriever(Found((evil,), provider=script))
    async with (
        running_stage(engine=engine, retriever=retriever) as stage,
        visit(browser, stage.url) as visited,
    ):
        page = visited.page
        await visited.ask(f"{script}?")
        await expect(page.locator(".cite")).to_have_text("[1]")
        for where in (".asked", ".thought", ".query", ".source .title", ".source .domain", ".source .snippet"):
            await expect(page.locator(where).first).to_contain_text("<script>document.title = 'owned'</script>")
        assert await page.locator(".runs script, .runs img, [href^=javascript]").count() == 0
        assert await page.title() == "Search-R1 Serve"
        assert visited.complaints == []


async def test_text_shows_as_it_comes(browser: Browser) -> None:
    engine = PacedEngine()
    async with running_stage(engine=engine) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".waiting")).to_have_text("Thinking…")
        engine.go(3)  # "<think> I need"
        await expect(page.locator(".thought")).to_have_text("I need")
        engine.go(len(SEARCH_TURN.split(" ")) - 3)
        await expect(page.locator(".step-read")).to_contain_text("1 passage")
        await expect(page.locator(".step-read .spinner")).to_be_visible()
        await expect(page.get_by_role("button", name="Stop")).to_be_in_viewport()
        engine.go(len(ANSWER_TURN.split(" ")))
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.locator(".spinner")).to_have_count(0)


async def test_a_failed_search_and_an_invalid_action_say_so(browser: Browser) -> None:
    engine = StageEngine([SEARCH_TURN, "<think> Hm. </think> no action", ANSWER_TURN])
    retriever = StageRetriever(SearchFailed("timeout", "the provider took too long"))
    async with (
        running_stage(engine=engine, retriever=retriever) as stage,
        visit(browser, stage.url) as visited,
    ):
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.locator(".step-search.bad .complaint")).to_contain_text("took too long")
        await expect(page.locator(".step-invalid .complaint")).to_have_text("The model gave no action; retrying.")
        await expect(page.locator(".uncited")).to_be_visible()


async def test_steps_are_announced_and_tokens_are_not(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.evaluate(
            """() => { const said = globalThis.said = []; const line = document.getElementById("announcer");
            new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true }); }"""
        )
        await visited.ask(QUESTION)
        await expect(page.locator(".figures")).to_be_visible()
        said = await page.evaluate("globalThis.said")
        assert said[-1] == f"Answer: {ANSWER}"
        assert [text for text in said if "I need" in text or "Found it" in text] == []
        assert await page.locator("[aria-live]").count() == 1


async def test_what_can_be_done_with_a_run(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await page.get_by_role("button", name="Copy answer").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert await page.evaluate("navigator.clipboard.readText()") == ANSWER
        async with page.expect_download() as saving:
            await page.get_by_role("button", name="Save JSON").click()
        saved = await saving.value
        run = json.loads((await saved.path()).read_text("utf-8"))
        assert saved.suggested_filename == f"{run['id']}.json"
        assert run["trajectory"]["searches"][0]["query"] == "currency of Mali"
        thoughts = page.locator(".thought")
        await expect(thoughts.first).to_be_visible()
        await page.get_by_role("button", name="Hide reasoning").click()
        await expect(thoughts.first).to_be_hidden()
        await page.locator(".step-think summary").first.click()
        await expect(thoughts.first).to_be_visible()
        await expect(thoughts.nth(1)).to_be_hidden()
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.locator(".run")).to_have_count(1)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        assert len(stage.engine.prompts) == 4


async def test_the_keyboard_is_enough(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.keyboard.type(QUESTION)  # The box has the focus from the start.
        await page.keyboard.press("Enter")
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.get_by_label("Follow-up question")).to_be_visible()
        reached: list[str] = []
        wanted = ["[1]", "Copy answer", "Copy link", "Save JSON", "Ask again", "Hide reasoning"]
        for _ in range(30):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.textContent.trim()"))
            if await page.evaluate("document.activeElement.className === 'cite'"):
                await page.keyboard.press("Enter")
                await expect(page.locator(".source summary")).to_be_focused()
                await page.locator(".cite").focus()
        assert set(wanted) <= set(reached)
        assert "" in reached  # The follow-up box, which is empty.


async def test_without_prices_known_examples_or_a_known_model_nothing_is_made_up(
    stage: Stage, browser: Browser
) -> None:
    async with visit(browser, stage.url) as visited:
        await expect(visited.page.locator("#model")).to_have_text("test-model")
        await expect(visited.page.locator("#examples")).to_be_hidden()
    async with (
        running_stage(served_name="searchr1-atlas") as demo,
        visit(browser, demo.url) as visited,
    ):
        await visited.page.get_by_role("button", name="Which currency").click()
        await expect(visited.page.locator(".answer-text")).to_have_text(ANSWER)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(browser: Browser, theme: Theme) -> None:
    retriever = StageRetriever(Found((MALI, NAMED_ONLY), cache="hit", age_s=3, provider="tavily"))
    engine = StageEngine([SEARCH_TURN, "<think> Hm. </think> no action", ANSWER_TURN])
    async with (
        running_stage(engine=engine, retriever=retriever, served_name="searchr1-atlas") as stage,
        visit(browser, stage.url, theme=theme) as visited,
    ):
        await expect(visited.page.locator("#examples")).to_be_visible()
        assert await visited.axe() == []
        await visited.ask(QUESTION)
        await expect(visited.page.get_by_label("Follow-up question")).to_be_visible()
        assert await visited.axe() == []


async def test_360_pixels_are_wide_enough(browser: Browser) -> None:
    long = Passage(
        id="1", title="T" * 300, text="x" * 900 + f" {ANSWER}", url=f"https://{'long.' * 40}example/", score=1
    )
    async with (
        running_stage(retriever=StageRetriever(Found((long, NAMED_ONLY), provider="p" * 80))) as stage,
        visit(browser, stage.url, width=360, height=640) as visited,
    ):
        page = visited.page
        assert not await visited.overflows()
        await visited.ask("Why" * 150)
        await expect(page.get_by_label("Follow-up question")).to_be_visible()
        for summary in await page.locator(".source summary").all():
            await summary.scroll_into_view_if_needed()
        assert not await visited.overflows()
