"""One run on the page, in a real browser: its steps, its sources, its figures, and what must stay inert."""

import json

import pytest
from playwright.async_api import Browser, expect

from searchr1.demo.bundle import ABOUT, EXAMPLES
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
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


async def test_a_run_shows_its_answer_its_sources_its_steps_and_its_figures(browser: Browser) -> None:
    retriever = StageRetriever(Found((MALI, MALI_AGAIN, NAMED_ONLY), cache="stale", age_s=7300, provider="tavily"))
    async with running_stage(retriever=retriever) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        summary = page.locator(".steps > summary")
        await expect(summary).to_contain_text("1 search, 3 passages read · ")
        await expect(page.locator(".steps")).not_to_have_attribute("open", "")
        parts = (".asked", ".answer", ".source.cited", ".steps")
        places = [await page.locator(part).bounding_box() for part in parts]
        tops = [place["y"] for place in places if place is not None]
        assert len(tops) == 4
        assert tops == sorted(tops)
        await summary.click()
        await expect(page.locator(".step h3")).to_have_text(["Thought", "Search", "Thought"])
        await expect(page.locator(".query")).to_have_text("currency of Mali")
        await expect(page.locator(".read .chip")).to_have_text(["1Mali", "2Niger"])
        await expect(page.locator(".figures")).to_be_hidden()
        await page.get_by_text("Details", exact=True).click()
        names, values = [await page.locator(f".figures {part}").all_inner_texts() for part in ("dt", "dd")]
        shown = dict(zip(names, values, strict=True))
        assert shown["Searches"] == "1"
        assert shown["First token"].endswith(("ms", "s"))
        assert shown["Search cost"] == "no prices set"
        facts = page.locator(".searches .facts")
        await expect(facts).to_contain_text("3 passages · tavily · from the cache, past its time, 2 h old")
        assert visited.complaints == []


OUTCOMES: list[tuple[SearchOutcome, str]] = [
    (Found((MALI,), cache="miss", provider="index"), "1 passage · index · "),
    (Found((MALI,), cache="hit", age_s=3, provider="tavily"), "1 passage · tavily · from the cache, 3 s old"),
    (Found((), cache="miss", provider="index"), "0 passages · index · "),
    (SearchFailed("timeout", "the provider took too long"), "failed · "),
]


async def test_a_search_says_where_its_passages_came_from_and_no_more(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        for i, (outcome, expected) in enumerate(OUTCOMES):
            stage.retriever.outcome = outcome
            await visited.ask(QUESTION)
            await expect(page.locator(".details > summary")).to_have_count(i + 1)
            await page.locator(".details > summary").last.click()
            await expect(page.locator(".searches .facts").last).to_contain_text(expected)
        assert "miss" not in await page.locator(".runs").inner_text()
        assert visited.complaints == []


async def test_sources_are_one_per_page_and_a_citation_leads_to_its_sentence(browser: Browser) -> None:
    retriever = StageRetriever(Found((NAMED_ONLY, MALI, MALI_AGAIN), provider="tavily"))
    async with running_stage(retriever=retriever) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        cite = page.locator(".cite")
        await expect(cite).to_have_text("2")
        await expect(page.locator(".source .title")).to_have_text(["Mali", "Niger"])  # The cited one first.
        await expect(page.locator(".source .host")).to_have_text("www.example.org")
        source, other = page.locator(".source").first, page.locator(".source").last
        await expect(page.locator(".others > summary")).to_have_text("1 more read, not cited")
        await expect(other).to_be_hidden()
        await expect(source.locator("mark")).to_have_text("It uses the West African CFA franc.")
        await expect(source.locator("mark b")).to_have_text(ANSWER)
        await expect(source.get_by_text("1 more passage from this source")).to_be_visible()
        link = source.get_by_role("link", name="Mali")
        await expect(link).to_have_attribute("href", MALI.url or "")
        await expect(link).to_have_attribute("rel", "noopener noreferrer")
        assert await other.locator("a").count() == 0
        await cite.hover()
        await expect(source).to_have_class("source cited lit")
        await cite.click()
        await expect(source).to_be_focused()
        await expect(source.locator("mark")).to_be_in_viewport()
        await page.locator(".steps > summary").click()
        await page.locator(".read .chip").first.click()
        await expect(other).to_be_focused()
        await expect(other.locator(".snippet")).to_be_visible()


async def test_no_passage_is_listed_twice(browser: Browser) -> None:
    retriever = StageRetriever(Found((MALI, MALI_AGAIN, NAMED_ONLY), provider="tavily"))
    engine = StageEngine([SEARCH_TURN, SEARCH_TURN, ANSWER_TURN])
    async with running_stage(engine=engine, retriever=retriever) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        for fold in await page.locator(".run details").all():
            await fold.evaluate("fold => { fold.open = true; }")
        text = await page.locator(".run").inner_text()
        for passage in (MALI, MALI_AGAIN, NAMED_ONLY):
            assert text.count(passage.text) == 1, passage


async def test_a_quoted_passage_is_shown_as_its_source_and_word_for_word_in_the_details(browser: Browser) -> None:
    quote = 'Doc 2(Title: "Niger") Niger lies in West Africa. Doc 3(Title: "Chad") is none of them.'
    engine = StageEngine([SEARCH_TURN, f"<think> {quote} </think>\n<answer> {ANSWER} </answer>"])
    retriever = StageRetriever(Found((MALI, NAMED_ONLY)))
    async with running_stage(engine=engine, retriever=retriever) as stage, visit(browser, stage.url) as visited:
        page = visited.page
        await visited.ask(QUESTION)
        await page.locator(".steps > summary").click()
        thought = page.locator(".thought").nth(1)
        await expect(thought).to_have_text('2Niger Niger lies in West Africa. Doc 3(Title: "Chad") is none of them.')
        await expect(thought.locator(".chip")).to_have_text("2Niger")
        await page.get_by_text("Details", exact=True).click()
        await expect(page.locator(".details pre").nth(1)).to_have_text(quote)


SCRIPT = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
HOSTILE = {
    "markup": SCRIPT,
    "svg": "<svg/onload=\"document.title='owned'\"><a xlink:href=javascript:alert(1)>x</a></svg>",
    "markdown": "[x](javascript:document.title='owned') ![y](http://evil.example/leak.png) <http://evil.example>",
    "quotes": "\"'><iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "template": "${document.title='owned'} {{constructor.constructor('document.title=1')()}} %3Cscript%3E",
    "entities": "&lt;script&gt;document.title='owned'&lt;/script&gt; &#60;img src=x&#62;",
    "directions": "\u202eevil\u202c \u2066<b>x</b>\u2069 \u200f\u0000\u0007\u001b[31m",
    "reference": 'Doc 1(Title: "<img src=x onerror=alert(1)>") <script>document.title=1</script>',
}
URLS = [
    "javascript:document.title='owned'",
    "JaVaScRiPt:document.title='owned'",
    " javascript:document.title='owned'",
    "java\nscript:document.title='owned'",
    "data:text/html,<script>document.title='owned'</script>",
    "vbscript:msgbox(1)",
    "blob:http://127.0.0.1/x",
    "file:///etc/passwd",
    "//evil.example/x",
    "http://[broken",
    "\u0001javascript:alert(1)",
]


async def test_hostile_text_stays_text_wherever_it_stands(browser: Browser) -> None:
    everything = " ".join(HOSTILE.values())
    evil = tuple(
        Passage(id=str(i), title=text, text=f"{text} {ANSWER}", url=url, score=1)
        for i, text in enumerate(HOSTILE.values())
        for url in (None, f"https://example.org/?{i}=<script>")
    )
    thought = f"<think> {everything} </think>"
    engine = StageEngine(
        [f"{thought}<search> {everything} </search>", f"{thought}\n<answer> {ANSWER} {everything} </answer>"]
    )
    async with (
        running_stage(
            engine=engine,
            retriever=StageRetriever(Found(evil, provider=everything)),
            page_about=everything[:500],
            page_examples=list(HOSTILE.values()),
            served_name=everything,
            top_k=20,
            max_top_k=20,
            max_completion_tokens=2000,
            max_run_tokens=10_000,
        ) as stage,
        visit(browser, stage.url) as visited,
    ):
        page = visited.page
        await expect(page.locator("#about")).to_be_visible()
        await visited.ask(f"{everything}?".replace("\0", ""))  # A question with it is refused.
        for _ in range(2):
            await expect(page.locator(".actions")).to_be_visible()
            for fold in await page.locator(".run details").all():
                await fold.evaluate("fold => { fold.open = true; }")
            for where in (".asked", ".answer", ".source .title", ".source .snippet", ".query", ".thread-title"):
                await expect(page.locator(where).first).to_be_attached()
            made = "script, img, iframe, svg, [onload], [onerror], [href^=javascript i]"
            assert await page.locator(f":is(.runs, #history, #about) :is({made})").count() == 0
            assert await page.title() != "owned"
            await page.reload()
        assert visited.complaints == []


async def test_only_web_addresses_become_links(browser: Browser) -> None:
    passages = tuple(
        Passage(id=str(i), title=f"T{i}", text=f"{i} {ANSWER}", url=url, score=1) for i, url in enumerate(URLS)
    )
    async with (
        running_stage(
            retriever=StageRetriever(Found(passages)), top_k=20, max_top_k=20, max_observation_tokens=3000
        ) as stage,
        visit(browser, stage.url) as visited,
    ):
        page = visited.page
        await visited.ask(QUESTION)
        await expect(page.locator(".source")).to_have_count(len(URLS))
        assert await page.locator(".source a").count() == 0
        assert await page.locator(".source .host").count() == 0
        assert visited.complaints == []


async def test_text_shows_as_it_comes_under_a_question_that_stays(browser: Browser) -> None:
    engine = PacedEngine(completions=[SEARCH_TURN, SEARCH_TURN, SEARCH_TURN, ANSWER_TURN])
    async with running_stage(engine=engine) as stage, visit(browser, stage.url, height=500) as visited:
        page = visited.page
        pulse, asked = page.locator(".pulse"), page.locator(".asked")
        await visited.ask(QUESTION)
        await expect(pulse).to_have_text("Thinking…")
        engine.go(3)  # "<think> I need"
        await expect(page.locator(".thought")).to_have_text("I need")
        engine.go(3 * len(SEARCH_TURN.split(" ")) - 3)
        await expect(page.locator(".read")).to_have_count(3)
        await expect(page.locator(".steps")).to_have_attribute("open", "")
        await expect(pulse).to_have_text("Reading…")
        for seen in (pulse, asked, page.get_by_role("button", name="Stop")):
            await expect(seen).to_be_in_viewport(ratio=1)
        engine.go(len(ANSWER_TURN.split(" ")))
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(pulse).to_be_hidden()
        for seen in (asked, page.locator(".answer-text")):
            await expect(seen).to_be_in_viewport(ratio=1)


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
        await expect(page.locator(".steps > summary")).to_contain_text("1 search (1 failed), 0 passages read")
        await expect(page.locator(".uncited")).to_be_visible()


async def test_steps_are_announced_and_tokens_are_not(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.evaluate(
            """() => { const said = globalThis.said = []; const line = document.getElementById("announcer");
            new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true }); }"""
        )
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
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
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.locator(".run")).to_have_count(1)
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        assert len(stage.engine.prompts) == 4


async def test_the_keyboard_is_enough(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        page = visited.page
        await page.keyboard.type(QUESTION)  # The box has the focus from the start.
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("Quickly.")
        await page.keyboard.press("Enter")
        await expect(page.locator(".asked")).to_have_text(f"{QUESTION}\nQuickly.")
        await expect(page.locator(".actions")).to_be_visible()
        await expect(page.get_by_label("Your question")).to_be_focused()
        reached: list[str] = []
        wanted = ["1", "Copy answer", "Copy link", "Save JSON", "Ask again", "Details", "New question", "Delete all"]
        for _ in range(40):
            await page.keyboard.press("Shift+Tab")
            reached.append(await page.evaluate("document.activeElement.textContent.trim()"))
            if await page.evaluate("document.activeElement.className === 'cite'"):
                await page.keyboard.press("Enter")
                await expect(page.locator(".source")).to_be_focused()
                await page.locator(".cite").focus()
        assert set(wanted) <= set(reached)


async def test_what_the_server_says_of_itself_stands_under_the_box(stage: Stage, browser: Browser) -> None:
    async with visit(browser, stage.url) as visited:
        await expect(visited.page.locator("#model")).to_have_text("test-model")
        await expect(visited.page.locator("#about")).to_be_hidden()
    async with (
        running_stage(page_about=ABOUT, page_examples=EXAMPLES) as demo,
        visit(browser, demo.url) as visited,
    ):
        page = visited.page
        await expect(page.get_by_text(ABOUT)).to_be_visible()
        await page.get_by_role("button", name=EXAMPLES[0]).click()
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        await expect(page.get_by_text(ABOUT)).to_be_visible()
        await expect(page.get_by_role("button", name=EXAMPLES[1])).to_be_hidden()
        await page.get_by_text("Examples", exact=True).click()
        await page.get_by_role("button", name=EXAMPLES[1]).click()
        await expect(page.locator(".asked")).to_have_text(EXAMPLES[1])  # Not as a follow-up.
        await expect(page.locator(".answer-text")).to_have_text(ANSWER)
        assert await page.evaluate("new URLSearchParams(location.search).getAll('run').length") == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(browser: Browser, theme: Theme) -> None:
    retriever = StageRetriever(Found((MALI, NAMED_ONLY), cache="hit", age_s=3, provider="tavily"))
    engine = StageEngine([SEARCH_TURN, "<think> Hm. </think> no action", ANSWER_TURN])
    async with (
        running_stage(engine=engine, retriever=retriever, page_about=ABOUT, page_examples=EXAMPLES) as stage,
        visit(browser, stage.url, theme=theme) as visited,
    ):
        page = visited.page
        await expect(page.locator("#about")).to_be_visible()
        assert await visited.axe() == []
        await visited.ask(QUESTION)
        await expect(page.locator(".actions")).to_be_visible()
        for fold in await page.locator("main details").all():
            await fold.evaluate("fold => { fold.open = true; }")
        assert await visited.axe() == []


WORDS = {
    "long": "Why" * 150,
    "arabic": "ما هي العملة المستخدمة في مالي؟ " * 4,
    "hebrew and latin": "מהי הבירה של Mali והאם Bamako גדולה? " * 4,
    "chinese": "马里使用什么货币" * 30,
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
async def test_a_narrow_window_is_wide_enough(browser: Browser, words: str) -> None:
    long = Passage(id="1", title=words, text=f"{words} {ANSWER}", url=f"https://{'long.' * 40}example/", score=1)
    async with (
        running_stage(
            retriever=StageRetriever(Found((long, NAMED_ONLY), provider="p" * 80)),
            served_name="m" * 60,
            page_about=f"About {words}"[:500],
            page_examples=[words],
        ) as stage,
        visit(browser, stage.url, width=320, height=568) as visited,
    ):
        page = visited.page
        await expect(page.locator("#about")).to_be_visible()
        assert not await visited.overflows()
        await visited.ask(words)
        await expect(page.locator(".actions")).to_be_visible()
        for fold in await page.locator(".run details").all():
            await fold.evaluate("fold => { fold.open = true; }")
        for width in (320, 360, 1280):
            await page.set_viewport_size({"width": width, "height": 568})
            assert not await visited.overflows()
        await page.set_viewport_size({"width": 320, "height": 568})
        assert await visited.axe() == []
        await page.get_by_role("button", name="History and settings").click()
        await expect(page.locator(".thread-title")).to_be_in_viewport()
        assert not await visited.overflows()
