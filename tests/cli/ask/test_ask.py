"""``ask`` against a server on a real port: what reaches which stream, and the exit code."""

import io
import json
import re
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from searchr1.cli.ask.asking import Ask, ask
from searchr1.cli.ask.exit_codes import ExitCode, UsageError
from searchr1.cli.ask.subject import Subject, SubjectKind
from searchr1.cli.ask.views import OutputFormat
from searchr1_client import RunOptions
from searchr1_client.events import Run, parse_event
from tests.evaluation.gateway.fake_gateway import FakeGateway, Handler, refusal, unused_url

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


def called(url: str, **changes: Any) -> Ask:
    return Ask(Subject(SubjectKind.QUESTION, QUESTION), url, **changes)


def run(handler: Handler, *, terminal: bool = False, **changes: Any) -> tuple[int, str, str, FakeGateway]:
    stdout, stderr = io.StringIO(), Terminal() if terminal else io.StringIO()
    with FakeGateway(handler).serve() as gateway:
        code = ask(called(gateway.url, **changes), stdout=stdout, stderr=stderr)
    return code, stdout.getvalue(), stderr.getvalue(), gateway


def test_the_answer_alone_goes_to_stdout_and_the_steps_to_stderr() -> None:
    code, stdout, stderr, gateway = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED))
    assert (code, stdout) == (0, "CFA franc\n")
    assert stderr == (
        "asking demo · r\n"
        "search: country of Timbuktu\n"
        "  [1] Timbuktu\n"
        "  [2] Mali\n"
        "  2 found, 4 ms\n"
        "source [2] Mali\n"
        "completed · 2 turns · 1 search · tokens: 11 prompt, 22 generated, 33 observed, 0 cached · 0.00 s\n"
    )
    assert gateway.bodies == [{"question": QUESTION, "stream": True}]
    assert "authorization" not in gateway.headers[0]


def test_thinking_is_shown_when_asked_for() -> None:
    _, stdout, stderr, _ = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED), show_thinking=True)
    assert stdout == "CFA franc\n"
    assert stderr.startswith("asking demo · r\nI need the country.\nsearch: country of Timbuktu\n")


def test_a_terminal_has_a_status_that_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    _, stdout, stderr, _ = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED), terminal=True)
    assert stdout == "CFA franc\n"
    assert stderr.count("\x1b[?25l") == stderr.count("\x1b[?25h") > 0
    assert "I need" not in stderr
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED), terminal=True)[2]


def test_quiet_prints_the_answer_alone() -> None:
    answered = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED), terminal=True, format=OutputFormat.QUIET)
    assert answered[:3] == (0, "CFA franc\n", "")


def test_ndjson_prints_every_event() -> None:
    future = {"type": "answer.judged", "turn": 2, "verdict": "f\x9bine"}
    events = [STARTED, *SEARCH, future, *ANSWER, COMPLETED]
    code, stdout, stderr, _ = run(streaming(*events), terminal=True, format=OutputFormat.NDJSON)
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert [parse_event(line).seq for line in lines] == list(range(len(events)))
    assert [json.loads(line)["type"] for line in lines] == [event["type"] for event in events]
    assert json.loads(lines[5])["verdict"] == "f\x9bine"
    assert "\x9b" not in stdout


def test_json_prints_the_run() -> None:
    code, stdout, stderr, _ = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED), format=OutputFormat.JSON)
    assert (code, stderr, stdout.count("\n")) == (0, "", 1)
    told = Run.model_validate_json(stdout)
    assert (told.id, told.status, told.answer) == ("r", "completed", "CFA franc")
    assert told.steps[0].reasoning == "I need the country."
    error = {"code": "engine_error", "message": "the engine died"}
    failed = {"type": "run.failed", "turn": 1, "error": error, "usage": USAGE}
    code, stdout, stderr, _ = run(streaming(STARTED, failed), format=OutputFormat.JSON)
    assert (code, stderr) == (5, "error: the engine died\n")
    assert Run.model_validate_json(stdout).status == "failed"


def test_json_is_laid_out_for_a_person() -> None:
    stdout = Terminal()
    with FakeGateway(streaming(STARTED, *ANSWER, COMPLETED)).serve() as gateway:
        ask(called(gateway.url, format=OutputFormat.JSON), stdout=stdout, stderr=io.StringIO())
    assert '\n  "answer": "CFA franc",\n' in stdout.getvalue()


def test_options_and_the_key_are_sent() -> None:
    options = RunOptions(temperature=0.5, max_searches=0, model="demo", deadline_s=9.0, previous_run_id="run_1")
    _, _, _, gateway = run(streaming(STARTED, COMPLETED), api_key="k", options=options)
    assert gateway.headers[0]["authorization"] == "Bearer k"
    assert gateway.bodies[0] == {"question": QUESTION, "stream": True, **options}


@pytest.mark.parametrize(
    ("terminal", "environ", "colored"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": ""}, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_color(terminal: bool, environ: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stderr = run(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED), terminal=terminal)[2]
    codes = set(re.findall(r"\x1b\[[0-9;?]*[A-Za-z]", stderr))
    assert any(code.endswith("m") for code in codes) == colored
    assert terminal or all(code.endswith("m") for code in codes)


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x9b2Jx\u202e\nsource [9] a lie"
    passage = {"index": 1, "title": evil, "snippet": "", "url": f"https://e/{evil}"}
    found = SEARCH[3] | {"query": evil, "passages": [passage]}
    answer = ANSWER[2] | {"text": evil, "citations": [CITATION | {"index": 1, "title": evil}]}
    thought = SEARCH[0] | {"text": evil}
    events = streaming(STARTED, thought, SEARCH[2] | {"query": evil}, found, answer, COMPLETED)
    code, stdout, stderr, _ = run(events, show_thinking=True)
    assert code == 0
    assert not set("\x1b\x07\x9b\u202e") & set(stdout + stderr)
    assert stdout == "]0;title2Jx\nsource [9] a lie\n"
    assert "\nsource [9]" not in stderr.partition("search:")[2]


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


def test_a_failed_run_exits_5() -> None:
    error = {"code": "engine_error", "message": "the engine died"}
    failed = {"type": "run.failed", "turn": 1, "error": error, "usage": USAGE}
    code, stdout, stderr, _ = run(streaming(STARTED, failed))
    assert (code, stdout) == (5, "")
    assert "error: the engine died" in stderr


@pytest.mark.parametrize("status", ["exhausted", "truncated", "deadline", "cancelled"])
def test_a_run_without_an_answer_says_why_and_exits_1(status: str) -> None:
    for shown in OutputFormat:
        code, _, stderr, _ = run(streaming(STARTED, COMPLETED | {"status": status}), format=shown)
        assert code == 1
        assert stderr.splitlines()[-1].startswith("error: no answer: ")


def test_a_stream_that_ends_early_exits_3_and_says_how_to_go_on() -> None:
    code, _, stderr, _ = run(streaming(STARTED, *SEARCH), options=RunOptions(store=False))
    assert code == 3
    assert "lost before the run ended" in stderr
    assert "searchr1 ask --resume r" in stderr


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, 4), (401, 4), (403, 4), (404, 4), (413, 4), (422, 4), (429, 4), (500, 5), (502, 5), (503, 5)],
)
def test_refusals_exit_4_and_failures_exit_5_with_the_servers_message(status: int, expected: int) -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return refusal(status, "Say it otherwise.")

    code, stdout, stderr, _ = run(handler)
    hint = " Here: --api-key-file FILE, or SEARCHR1_API_KEY" if status == 401 else ""
    assert (code, stdout, stderr) == (expected, "", f"error: Say it otherwise.{hint}\n")


def test_what_is_not_an_event_stream_exits_3() -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return JSONResponse({"hello": "there"})

    assert run(handler)[0] == 3


def test_no_server_exits_3() -> None:
    stderr = io.StringIO()
    with unused_url() as url:
        assert ask(called(url), stdout=io.StringIO(), stderr=stderr) == 3
        assert f"No server answers at {url}" in stderr.getvalue()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://host:port", ""])
def test_a_bad_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="is not a server's address"):
        ask(called(url), stdout=io.StringIO(), stderr=io.StringIO())


def test_a_key_that_cannot_be_sent_is_a_usage_error() -> None:
    with unused_url() as url, pytest.raises(UsageError, match="can't be sent"):
        ask(called(url, api_key="schlüssel"), stdout=io.StringIO(), stderr=io.StringIO())


@pytest.mark.parametrize(
    ("kind", "run_id", "options", "says"),
    [
        (SubjectKind.RESUMED, "run_1", RunOptions(seed=1, top_k=2), "leave out seed, top_k"),
        (SubjectKind.RESUMED, "../models", RunOptions(), "not a run's id"),
        (SubjectKind.REPLAYED, "run_1", RunOptions(previous_run_id="run_0"), "previous_run_id"),
    ],
)
def test_what_does_not_fit_a_stored_run_is_a_usage_error(
    kind: SubjectKind, run_id: str, options: RunOptions, says: str
) -> None:
    with unused_url() as url, pytest.raises(UsageError, match=says):
        ask(Ask(Subject(kind, run_id), url, options=options), stdout=io.StringIO(), stderr=io.StringIO())


class Full(io.StringIO):
    """A file on a full disk, or a pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_an_answer_that_cannot_be_written_exits_141() -> None:
    stderr = io.StringIO()
    with FakeGateway(streaming(STARTED, *ANSWER, COMPLETED)).serve() as gateway:
        code = ask(called(gateway.url), stdout=Full(), stderr=stderr)
    assert code == ExitCode.BROKEN_OUTPUT
    assert "error: standard output can't be written: No space left on device" in stderr.getvalue()


def test_steps_that_cannot_be_written_are_no_obstacle() -> None:
    stdout = io.StringIO()
    with FakeGateway(streaming(STARTED, *SEARCH, *ANSWER, COMPLETED)).serve() as gateway:
        assert ask(called(gateway.url), stdout=stdout, stderr=Full()) == 0
    assert stdout.getvalue() == "CFA franc\n"


def test_what_stdout_cannot_spell_is_still_printed() -> None:
    events = streaming(STARTED, ANSWER[2] | {"text": "São Tomé 𝄞"}, COMPLETED)
    for shown, expected in (
        (OutputFormat.QUIET, b"S?o Tom? ?\n"),
        (OutputFormat.JSON, b"S\\u00e3o Tom\\u00e9 \\ud834"),
    ):
        raw = io.BytesIO()
        stdout = io.TextIOWrapper(raw, encoding="ascii")
        with FakeGateway(events).serve() as gateway:
            assert ask(called(gateway.url, format=shown), stdout=stdout, stderr=io.StringIO()) == 0
        assert expected in raw.getvalue()
        if shown is OutputFormat.JSON:
            assert json.loads(raw.getvalue())["answer"] == "São Tomé 𝄞"
