"""What a completion's request says to vLLM and to a router before it."""

import itertools
import json

from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.engines.vllm.request import SessionHeaders, completion_body
from searchr1.trace_context import TRACE_HEADERS
from tests.engines.helpers import complete
from tests.engines.vllm.fake_vllm import MODEL, Answer, serve_fake_vllm

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_salt_and_a_priority_are_sent_where_they_are_wanted_alone() -> None:
    plain = json.loads(completion_body("m", (1, 2), SamplingParams(4), priority=None))
    assert not {"cache_salt", "priority", "seed", "logprobs", "stream_interval"} & plain.keys()
    salted = json.loads(completion_body("m", (1, 2), SamplingParams(4, cache_salt="abc"), priority=-2))
    assert (salted["cache_salt"], salted["priority"], salted["prompt"]) == ("abc", -2, [1, 2])


def test_ids_of_requests_differ_and_those_of_sessions_do_not() -> None:
    sessions = SessionHeaders()
    first, second = sessions.of("run-1"), sessions.of("run-1")
    assert first["X-Session-ID"] == second["X-Session-ID"] == "run-1"
    assert first["X-Request-Id"] != second["X-Request-Id"]
    assert not {"traceparent", "x-session-token"} & first.keys()


def test_a_token_goes_back_with_its_own_session() -> None:
    sessions = SessionHeaders()
    sessions.note("run-1", {"x-session-token": "cG9kLTE="})
    sessions.note("run-1", {})
    assert sessions.of("run-1")["x-session-token"] == "cG9kLTE="
    assert "x-session-token" not in sessions.of("run-2")
    sessions.note("run-1", {"x-session-token": "cG9kLTI="})
    assert sessions.of("run-1")["x-session-token"] == "cG9kLTI="


def test_a_token_that_no_header_should_hold_is_not_kept() -> None:
    sessions = SessionHeaders()
    for number, token in enumerate(("", "a\r\nb", "é", "x" * 5000)):
        sessions.note(f"run-{number}", {"x-session-token": token})
        assert "x-session-token" not in sessions.of(f"run-{number}")


def test_the_tokens_of_old_sessions_are_forgotten() -> None:
    sessions = SessionHeaders()
    for number in range(16_400):
        sessions.note(f"run-{number}", {"x-session-token": "t"})
    assert "x-session-token" not in sessions.of("run-0")
    assert "x-session-token" in sessions.of("run-16399")


async def test_all_of_it_reaches_the_server() -> None:
    body = b'data: {"choices":[{"text":"a","token_ids":[1],"finish_reason":"stop"}]}\n\n'
    async with serve_fake_vllm(itertools.repeat("a"), encode=len_of) as fake, VllmHttpEngine(fake.url, MODEL) as engine:
        fake.refusals = [Answer(body, headers={"x-session-token": "cG9kLTE="})]
        token = TRACE_HEADERS.set({"traceparent": TRACE})
        try:
            await complete(engine, SamplingParams(4, cache_salt="s"))
            await complete(engine, SamplingParams(4))
        finally:
            TRACE_HEADERS.reset(token)
        first, second = fake.headers
        assert "x-session-token" not in first
        assert second["x-session-token"] == "cG9kLTE="
        assert first["traceparent"] == second["traceparent"] == TRACE
        assert [body.get("cache_salt") for body in fake.bodies] == ["s", None]


def len_of(text: str) -> list[int]:
    return [len(text)]
