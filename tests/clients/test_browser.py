"""OpenAI's JavaScript SDK in a page of another origin, in a real Chromium: CORS lets it through where allowed."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.gateway.conftest import MODEL, Stage, StageEngine, eventually, running_stage
from tests.page.browser import open_browser

from .browser import other_origin
from .stages import ANSWER, QUESTION, THOUGHTS, URL, retriever

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
KEY = "key-of-the-page"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    """The page, with the SDK loaded."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    with other_origin() as origin:
        async with open_browser() as browser:
            opened = await browser.new_page()
            await opened.goto(origin)
            await opened.wait_for_function("window.sdk !== undefined")
            yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    """A gateway that any page may call that has a key."""
    async with running_stage(retriever=retriever(), cors_origins="*", api_keys=KEY) as running:
        yield running


async def run(page: Page, stage: Stage, script: str, *, key: str = KEY) -> Any:
    """Run ``script`` with a ``client``, the ``question`` as a request of each kind, and the ``sdk``."""
    begin = """async ([url, key, model, question]) => {
        const client = new sdk.OpenAI({
            baseURL: `${url}/v1`, apiKey: key, dangerouslyAllowBrowser: true, maxRetries: 0,
            defaultHeaders: {'X-Title': 'A page', 'HTTP-Referer': location.href},
        });
        const chat = {model, messages: [{role: 'user', content: question}]};
        const response = {model, input: question};
    """
    return await page.evaluate(begin + script + "}", [stage.url, key, MODEL, QUESTION])


async def test_models_and_a_whole_answer(page: Page, stage: Stage) -> None:
    script = """
        const models = await client.models.list();
        const {data, response: answer} = await client.chat.completions.create(
            {...chat, tools: [{type: 'function', function: {name: 'clock'}}]}, {idempotencyKey: 'a-key'},
        ).withResponse();
        const shown = ['x-request-id', 'x-searchr1-ignored'].map((name) => answer.headers.get(name));
        return [models.data[0].id, data, data._request_id, shown];
    """
    model, completion, request_id, shown = await run(page, stage, script)
    message = completion["choices"][0]["message"]
    assert (model, message["content"]) == (MODEL, ANSWER)
    assert all(thought in message["reasoning"] for thought in THOUGHTS)
    assert message["annotations"][0]["url_citation"]["url"] == URL
    assert request_id
    assert shown == [request_id, "tools"]


async def test_streams(page: Page, stage: Stage) -> None:
    script = """
        const shown = {reasoning: '', deltas: 0, text: ''};
        for await (const {choices: [{delta}]} of await client.chat.completions.create({...chat, stream: true})) {
            if (delta.reasoning) { shown.reasoning += delta.reasoning; shown.deltas += 1; }
            shown.text += delta.content ?? '';
        }
        const thoughts = [];
        const stream = client.responses.stream(response);
        stream.on('response.reasoning_text.delta', ({delta}) => thoughts.push(delta));
        return [shown, thoughts.length, (await stream.finalResponse()).output_text, thoughts.length];
    """
    shown, before, text, thoughts = await run(page, stage, script)
    assert (shown["text"], text, before) == (ANSWER, ANSWER, 0)
    assert shown["deltas"] > 1
    assert thoughts > 1


async def test_stored_responses_are_fetched_followed_and_deleted(page: Page, stage: Stage) -> None:
    script = """
        const {id} = await client.responses.create(response);
        const again = await client.responses.create({...response, previous_response_id: id});
        const fetched = await client.responses.retrieve(id);
        const events = [];
        for await (const {type} of await client.responses.retrieve(id, {stream: true})) events.push(type);
        await client.responses.delete(id);
        const gone = await client.responses.retrieve(id).catch((error) => error.status);
        return [again.output_text, fetched.output_text, events.at(-1), gone];
    """
    assert await run(page, stage, script) == [ANSWER, ANSWER, "response.completed", 404]


async def test_errors_are_read_with_their_status_message_and_request(page: Page, stage: Stage) -> None:
    script = """
        const errors = [];
        for (const asked of [{...chat, messages: [{role: 'user', content: ' '}]}, {...chat, model: 'other'}]) {
            await client.chat.completions.create(asked).catch((error) => errors.push(error));
        }
        return errors.map(({constructor, status, message, requestID}) =>
            [constructor === sdk.BadRequestError || constructor === sdk.NotFoundError, status, message, !!requestID]);
    """
    empty, unknown = await run(page, stage, script)
    assert empty == [True, 400, "400 The question is empty; send some text.", True]
    assert (unknown[0], unknown[1], unknown[3]) == (True, 404, True)
    script = "return client.models.list().catch((error) => [error instanceof sdk.AuthenticationError, error.status]);"
    assert await run(page, stage, script, key="no key") == [True, 401]


async def test_a_body_over_the_limit_is_refused_readably(page: Page, stage: Stage) -> None:
    script = """
        const large = {...chat, user: 'x'.repeat(2_000_000)};
        return client.chat.completions.create(large).catch(({status, code}) => [status, code]);
    """
    assert await run(page, stage, script) == [413, "request_too_large"]


async def test_leaving_frees_the_engine(page: Page) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine, retriever=retriever(), cors_origins="*") as endless:
        script = """
            const stream = await client.chat.completions.create({...chat, stream: true});
            for await (const {choices: [{delta}]} of stream) {
                if (delta.reasoning) { stream.controller.abort(); break; }
            }
            return 'left';
        """
        assert await run(page, endless, script) == "left"
        await eventually(lambda: engine.num_open == 0)
        assert len(engine.prompts) == 1


@pytest.mark.parametrize("allowed", ["", "https://app.example"])
async def test_other_origins_are_kept_out_and_cost_no_run(page: Page, allowed: str) -> None:
    async with running_stage(retriever=retriever(), cors_origins=allowed) as closed:
        script = """
            return client.chat.completions.create(chat).catch((error) => error instanceof sdk.APIConnectionError);
        """
        assert await run(page, closed, script) is True
        assert closed.engine.prompts == []
