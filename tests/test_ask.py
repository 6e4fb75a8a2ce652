"""``ask`` against a server on a real port: what reaches which stream, and the exit code."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from searchr1.ask import ask
from tests.evaluation.fake_gateway import FakeGateway, Handler, refusal, unused_url

QUESTION = "Which currency is used in the country where Timbuktu is?"
PASSAGES = [
    {"index": 1, "title": '"Timbuktu"', "snippet": "Timbuktu is in Mali.", "url": "https://example.org/t"},
    {"index": 2, "title": "Mali", "snippet": "The currency of Mali is the CFA franc."},
]
CITATION = {"index": 2, "title": "Mali", "start": 27, "end": 36}
USAGE = {"prompt_tokens": 11, "completion_tokens": 22, "observation_tokens": 33, "turns": 2, "searches": 1}
STARTED = {"type": "run.started", "turn": 0, "model": "demo", "question": QUESTION}
SEARCH = [
    {"type": "think.delta", "turn": 1, "text": "I need "},
    {"type": "think.delta", "turn": 1, "text": "the country."},
    {"type": "search.started", "turn": 1, "query": "country of Timbuktu"},
    {
        "type": "search.completed",
        "turn": 1,
        "query": "country of Timbuktu",
        "passages": PASSAGES,
        "cache": "miss",
        "duration_ms": 4.2,
    },
]
ANSWER = [
    {"type": "answer.delta", "turn": 2, "text": "CFA "},
    {"type": "answer.delta", "turn": 2, "text": "franc"},
    {"type": "answer.completed", "turn": 2, "text": "CFA franc", "citations": [CITATION, CITATION]},
]
COMPLETED = {"type": "run.completed", "turn": 2, "status": "completed", "usage": USAGE}


def streaming(*events: dict[str, Any]) -> Handler:
    async def handler(_: dict[str, Any]) -> Response:
        lines = [
            f"event: {event['type']}\ndata: {json.dumps({'seq': i, 'run_id': 'r', 't_ms': 0.0, **event})}\n\n"
            for i, event in enumerate(events)
        ]
        return StreamingResponse(iter([": ping\n", *lines]), media_type="text/event-stream")

    return handler


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(handler: Handler, *, terminal: bool = False, **options: Any) -> tuple[int, str, str, FakeGateway]:
    stdout, stderr = io.StringIO(), Terminal() if terminal else io.StringIO()
    with FakeGateway(handler).serve() as gateway:
        code = ask(QUESTION, url=gateway.url, stdout=stdout, stderr=stderr, **options)
    return code, stdout.getvalue(), stderr.getvalue(), gateway


def test_the_answer_alone_goes_to_stdout_and_the_steps_to_stderr() -> None:
    code, stdout, stderr, gateway = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED))
    assert (code, stdout) == (0, "CFA franc\n")
    assert stderr == (
        "asking demo\n"
        "I need the country.\n"
        "search: country of Timbuktu\n"
        "  [1] Timbuktu\n"
        "  [2] Mali\n"
        "  2 found, cache miss, 4 ms\n"
        "source [2] Mali\n"
        "completed · 2 turns · 1 search · tokens: 11 prompt, 22 generated, 33 observed, 0 cached · 0.00 s\n"
    )
    assert gateway.bodies == [{"question": QUESTION, "stream": True}]
    assert "authorization" not in gateway.headers[0]


def test_options_and_the_key_are_sent() -> None:
    events = streaming(STARTED, COMPLETED)
    _, _, _, gateway = run(events, api_key="k", temperature=0.5, max_searches=0, model="demo", deadline_s=9.0)
    assert gateway.headers[0]["authorization"] == "Bearer k"
    assert gateway.bodies[0] == {
        "question": QUESTION,
        "stream": True,
        "temperature": 0.5,
        "max_searches": 0,
        "model": "demo",
        "deadline_s": 9.0,
    }


def test_a_terminal_gets_colour_and_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    events = streaming(STARTED, *SEARCH, *ANSWER, COMPLETED)
    assert "\x1b[" in run(events, terminal=True)[2]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run(events, terminal=True)[2]


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x9b2Jx"
    passage = {"index": 1, "title": evil, "snippet": "", "url": f"https://e/{evil}"}
    found = SEARCH[3] | {"query": evil, "passages": [passage]}
    answer = ANSWER[2] | {"text": evil, "citations": [CITATION | {"index": 1, "title": evil}]}
    thought = SEARCH[0] | {"text": evil}
    code, stdout, stderr, _ = run(streaming(STARTED, thought, SEARCH[2] | {"query": evil}, found, answer, COMPLETED))
    assert code == 0
    assert not set("\x1b\x07\x9b") & set(stdout + stderr)
    assert stdout == "]0;title2Jx\n"


def test_a_void_answer_never_reaches_stdout() -> None:
    invalid = {"type": "action.invalid", "turn": 2, "reason": "no_action"}
    exhausted = COMPLETED | {"status": "exhausted"}
    code, stdout, stderr, _ = run(streaming(STARTED, ANSWER[0], invalid, exhausted))
    assert (code, stdout) == (1, "")
    assert "neither a search nor an answer" in stderr
    assert "exhausted" in stderr


def test_failed_searches_and_events_from_the_future_are_no_obstacle() -> None:
    error = {"code": "timeout", "message": "too slow"}
    failed = {"type": "search.failed", "turn": 1, "query": "q", "error": error, "duration_ms": 1.0}
    future = {"type": "answer.judged", "turn": 2, "verdict": "fine"}
    code, stdout, stderr, _ = run(streaming(STARTED, SEARCH[2], failed, future, ANSWER[2], COMPLETED))
    assert (code, stdout) == (0, "CFA franc\n")
    assert "the search failed: too slow" in stderr


def test_a_failed_run_exits_3() -> None:
    error = {"code": "engine_error", "message": "the engine died"}
    failed = {"type": "run.failed", "turn": 1, "error": error, "usage": USAGE}
    code, stdout, stderr, _ = run(streaming(STARTED, failed))
    assert (code, stdout) == (3, "")
    assert "error: the engine died" in stderr


def test_a_stream_that_ends_early_exits_3() -> None:
    code, _, stderr, _ = run(streaming(STARTED, *SEARCH))
    assert code == 3
    assert "lost before the run ended" in stderr


@pytest.mark.parametrize(
    ("status", "expected"), [(400, 2), (401, 2), (404, 2), (413, 2), (429, 3), (500, 3), (502, 3), (503, 3)]
)
def test_refusals_exit_2_and_failures_exit_3_with_the_servers_message(status: int, expected: int) -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return refusal(status, "Say it otherwise.")

    code, stdout, stderr, _ = run(handler)
    assert (code, stdout, stderr) == (expected, "", "error: Say it otherwise.\n")


def test_what_is_not_an_event_stream_exits_3() -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return JSONResponse({"hello": "there"})

    assert run(handler)[0] == 3


def test_no_server_exits_3() -> None:
    stderr = io.StringIO()
    with unused_url() as url:
        assert ask(QUESTION, url=url, stdout=io.StringIO(), stderr=stderr) == 3
        assert f"No server answers at {url}" in stderr.getvalue()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://host:port", ""])
def test_a_bad_address_exits_2(url: str) -> None:
    stderr = io.StringIO()
    assert ask(QUESTION, url=url, stdout=io.StringIO(), stderr=stderr) == 2
    assert "is not a server's address" in stderr.getvalue()


@pytest.mark.parametrize(("question", "api_key"), [("half \ud800", None), ("fine", "schlüssel")])
def test_what_cannot_be_sent_exits_2(question: str, api_key: str | None) -> None:
    stderr = io.StringIO()
    with unused_url() as url:
        assert ask(question, url=url, api_key=api_key, stdout=io.StringIO(), stderr=stderr) == 2
    assert "cannot be sent" in stderr.getvalue()


def test_ctrl_c_closes_the_stream_and_exits_130() -> None:
    closed = asyncio.Event()

    class Interrupting(io.StringIO):
        interrupted = False

        def write(self, text: str) -> int:
            if "search:" in text and not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt
            return super().write(text)

    async def endless() -> AsyncIterator[str]:
        try:
            for seq, event in enumerate([STARTED, SEARCH[2]]):
                yield f"data: {json.dumps({'seq': seq, 'run_id': 'r', 't_ms': 0.0, **event})}\n\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def handler(_: dict[str, Any]) -> Response:
        return StreamingResponse(endless(), media_type="text/event-stream")

    stderr = Interrupting()
    with FakeGateway(handler).serve() as gateway:
        assert ask(QUESTION, url=gateway.url, stdout=io.StringIO(), stderr=stderr) == 130
    assert closed.is_set()  # the server's shutdown waits for open streams, so it saw this one close
    assert stderr.getvalue().endswith("cancelled\n")


def test_an_answer_that_stdout_cannot_spell_is_still_printed() -> None:
    raw = io.BytesIO()
    stdout = io.TextIOWrapper(raw, encoding="ascii")
    with FakeGateway(streaming(STARTED, ANSWER[2] | {"text": "São Tomé"}, COMPLETED)).serve() as gateway:
        assert ask(QUESTION, url=gateway.url, stdout=stdout, stderr=io.StringIO()) == 0
    assert raw.getvalue() == b"S?o Tom?\n"
