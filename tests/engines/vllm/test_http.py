"""The HTTP client against a server that speaks vLLM's wire and can fail in every way that matters."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace

import pytest

from searchr1.engines.base import HEALTH_REASONS, EngineHealth, SamplingParams, Shaping
from searchr1.engines.vllm.http import HttpTimeouts, ServedModel, VllmHttpEngine
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from tests.engines.helpers import PROMPT, complete, ids_of, read_some, text_of
from tests.engines.vllm.fake_vllm import MODEL, Answer, FakeVllm, Fault, serve_fake_vllm

TURN: Sequence[str] = ("<think> é ", "</think>", "\n<search> q </sea", "rch>\n\n", "never read")
SHOWN = "<think> é </think>\n<search> q </search>"
PARAMS = SamplingParams(max_tokens=500, stop=("</search>", "</answer>"), temperature=0.0, seed=7)


def encode(text: str) -> list[int]:
    return list(text.encode())


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with serve_fake_vllm(itertools.repeat(TURN), encode=encode) as server:
        yield server


@pytest.fixture
async def engine(fake: FakeVllm) -> AsyncIterator[VllmHttpEngine]:
    timeouts = HttpTimeouts(health_kept_s=0.0)
    async with VllmHttpEngine(fake.url + "/", MODEL, api_key="secret", timeouts=timeouts) as client:
        yield client


async def test_streams_text_and_the_ids_of_whole_tokens(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    fake.num_cached_tokens = 64
    chunks = await complete(engine, PARAMS)
    assert text_of(chunks) == SHOWN
    assert ids_of(chunks) == tuple(encode("".join(TURN[:4])))
    assert [chunk.finish for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.num_cached_tokens for chunk in chunks] == [None] * (len(chunks) - 1) + [64]
    assert all(chunk.logprobs is None for chunk in chunks)


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_the_cuts_of_the_transport_do_not_matter(engine: VllmHttpEngine, fake: FakeVllm, size: int) -> None:
    whole = await complete(engine, PARAMS)
    fake.bytes_per_write = size
    cut = await complete(engine, PARAMS)
    assert text_of(cut) == text_of(whole)
    assert ids_of(cut) == ids_of(whole)
    assert cut[-1] == whole[-1]


async def test_asks_for_exactly_what_the_loop_needs(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    await complete(engine, PARAMS)
    assert fake.bodies == [
        {
            "model": MODEL,
            "prompt": list(PROMPT),
            "max_tokens": 500,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "stop": ["</search>", "</answer>"],
            "include_stop_str_in_output": True,
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": 7,
        }
    ]


async def test_passes_shaping_on(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    shaping = Shaping(top_k=20, min_p=0.1, repetition_penalty=1.1, frequency_penalty=-0.5, presence_penalty=1.5)
    await complete(engine, replace(PARAMS, shaping=shaping))
    assert asdict(shaping).items() <= fake.bodies[0].items()


async def test_turns_of_a_session_have_ids_of_their_own_on_one_connection(
    engine: VllmHttpEngine, fake: FakeVllm
) -> None:
    for _ in range(3):
        await complete(engine, PARAMS)
    assert [header["X-Session-ID"] for header in fake.headers] == ["test"] * 3
    assert len({header["X-Request-Id"] for header in fake.headers}) == 3
    assert {header["Authorization"] for header in fake.headers} == {"Bearer secret"}
    assert len(set(fake.ports)) == 1


@pytest.mark.parametrize("declared", [False, True])
async def test_sends_a_priority_only_to_a_priority_scheduler(fake: FakeVllm, declared: bool) -> None:
    async with VllmHttpEngine(fake.url, MODEL, priority_scheduling=declared) as engine:
        async for _ in engine.generate(PROMPT, PARAMS, session="s", priority=-2):
            pass
    assert fake.bodies[0].get("priority") == (-2 if declared else None)


async def test_the_token_limit_ends_a_completion_as_length(engine: VllmHttpEngine) -> None:
    chunks = await complete(engine, SamplingParams(max_tokens=len(encode(TURN[0])) + 3))
    assert len(ids_of(chunks)) == len(encode(TURN[0])) + 3
    assert chunks[-1].finish == "length"


async def test_gives_the_sampled_tokens_logprobs_when_asked(engine: VllmHttpEngine) -> None:
    chunks = await complete(engine, SamplingParams(max_tokens=500, logprobs=True))
    assert [chunk.logprobs for chunk in chunks] == [(-0.5,) * len(chunk.token_ids) for chunk in chunks]


async def test_a_server_that_does_not_tell_cached_tokens_leaves_them_unknown(
    engine: VllmHttpEngine, fake: FakeVllm
) -> None:
    fake.num_cached_tokens = None
    assert (await complete(engine, PARAMS))[-1].num_cached_tokens is None


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault.REFUSE_BUSY, EngineOverloadedError, "503: The engine is currently busy"),
        (Fault.REFUSE_RATE, EngineOverloadedError, "429: Too many requests"),
        (Fault.REFUSE_BROKEN, EngineUnavailableError, "500: EngineCore encountered"),
        (Fault.REFUSE_REQUEST, EngineError, "400: max_tokens must be at least 1"),
        (Fault.BUSY_IN_STREAM, EngineOverloadedError, "within its stream: The engine is currently busy"),
        (Fault.ERROR_IN_STREAM, EngineUnavailableError, "within its stream: EngineCore encountered"),
        (Fault.UNFINISHED, EngineUnavailableError, "ended before its completion"),
        (Fault.GARBAGE, EngineError, "can't be read"),
        (Fault.DROP, EngineUnavailableError, "http://127.0.0.1"),
    ],
)
async def test_every_fault_has_its_type_and_none_outlives_its_completion(
    engine: VllmHttpEngine, fake: FakeVllm, fault: Fault, kind: type[EngineError], message: str
) -> None:
    fake.fault = fault
    with pytest.raises(EngineError, match=message) as raised:
        await complete(engine, PARAMS)
    assert type(raised.value) is kind
    fake.fault = None
    assert text_of(await complete(engine, PARAMS)) == SHOWN


async def test_a_stream_that_stands_still_is_given_up(fake: FakeVllm) -> None:
    fake.fault = Fault.STALL
    async with VllmHttpEngine(fake.url, MODEL, timeouts=HttpTimeouts(read_s=0.3)) as hasty:
        with pytest.raises(EngineUnavailableError, match=r"[Tt]imeout"):
            await complete(hasty, PARAMS)
    await fake.idle.wait()


async def test_a_refused_connection_is_an_unavailable_engine() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with VllmHttpEngine(f"http://127.0.0.1:{closed.getsockname()[1]}", MODEL) as engine:
            with pytest.raises(EngineUnavailableError, match=r"http://127\.0\.0\.1"):
                await complete(engine, PARAMS)
            with pytest.raises(EngineUnavailableError):
                await engine.models()
            assert not (await engine.health()).ok


async def test_closing_the_iterator_closes_the_connection(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    fake.fault = Fault.STALL
    assert len(await read_some(engine, PARAMS, 1)) == 1
    await fake.idle.wait()
    assert fake.num_running == 0


async def test_cancelling_the_reader_closes_the_connection(fake: FakeVllm) -> None:
    fake.fault = Fault.STALL
    async with VllmHttpEngine(fake.url, MODEL) as engine:
        reading = asyncio.create_task(complete(engine, PARAMS))
        await fake.busy.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await fake.idle.wait()


async def test_tells_the_models_the_health_and_the_metrics(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    assert await engine.models() == [ServedModel(MODEL, 4096)]
    assert (await engine.health()).ok
    assert "vllm:num_requests_running" in await engine.metrics_text()
    fake.fault = Fault.REFUSE_BROKEN
    assert not (await engine.health()).ok


async def test_health_asks_the_server_once_for_many(fake: FakeVllm) -> None:
    async with VllmHttpEngine(fake.url, MODEL, timeouts=HttpTimeouts(health_kept_s=3600)) as engine:
        found = await asyncio.gather(*(engine.health() for _ in range(100)))
        found += [await engine.health() for _ in range(100)]
    assert set(found) == {EngineHealth(ok=True)}
    assert fake.num_probes == {"/health": 1, "/v1/models": 1}


async def test_health_looks_at_the_models_when_the_server_comes_up_again(
    engine: VllmHttpEngine, fake: FakeVllm
) -> None:
    for _ in range(3):
        assert (await engine.health()).ok
    assert fake.num_probes["/v1/models"] == 1
    fake.fault = Fault.REFUSE_BROKEN
    assert (await engine.health()).reason == "unhealthy"
    fake.fault, fake.max_model_len = None, 600
    assert (await engine.health()).ok
    assert fake.num_probes["/v1/models"] == 2


@pytest.mark.parametrize("name", ["other", "", MODEL.upper(), f"{MODEL} ", "\n"])
async def test_a_model_that_is_not_served_is_told(fake: FakeVllm, name: str) -> None:
    async with VllmHttpEngine(fake.url, name) as engine:
        health = await engine.health()
    assert (health.ok, health.reason) == (False, "model_not_served")
    assert MODEL in health.detail


@pytest.mark.parametrize(
    ("wanted", "served", "ok"),
    [
        (4596, 600, False),
        (4596, 4595, False),
        (4596, 4596, True),
        (4596, 32768, True),
        (None, 1, True),
        (9, None, True),
    ],
)
async def test_a_context_that_is_too_short_is_told(
    fake: FakeVllm, wanted: int | None, served: int | None, ok: bool
) -> None:
    fake.max_model_len = served
    async with VllmHttpEngine(fake.url, MODEL, max_model_len=wanted) as engine:
        health = await engine.health()
    assert (health.ok, health.reason) == (ok, "" if ok else "context_too_short")


PROBES = {
    "nothing at the path": ("/health", Answer(status=404), "unhealthy"),
    "a key that is refused": ("/health", Answer(status=401), "refused_key"),
    "a key that is refused later": ("/v1/models", Answer(b'{"error": "no"}', status=403), "refused_key"),
    "an engine that says it is dead": ("/health", Answer(status=503), "unhealthy"),
    "a redirect": ("/health", Answer(status=302, headers={"Location": "/elsewhere"}), "unhealthy"),
    "a redirect of the models": ("/v1/models", Answer(status=307, headers={"Location": "/elsewhere"}), "unhealthy"),
    "an endless body": ("/health", Answer(b"x" * 65_536, endless=True), "unhealthy"),
    "endless models": ("/v1/models", Answer(b"x" * 65_536, endless=True), "unhealthy"),
    "an endless error": ("/health", Answer(b"x" * 65_536, status=500, endless=True), "unhealthy"),
    "a page": ("/v1/models", Answer(b"<html>"), "unhealthy"),
    "no models": ("/v1/models", Answer(b'{"data": []}'), "model_not_served"),
    "models that are none": ("/v1/models", Answer(b'{"data": [{"id": 1}]}'), "unhealthy"),
    "deep models": ("/v1/models", Answer(b"[" * 100_000), "unhealthy"),
    "invalid UTF-8": ("/v1/models", Answer(b'{"data": [{"id": "\xff"}]}'), "unhealthy"),
    "packed bytes": ("/v1/models", Answer(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}), "unhealthy"),
    "a cut connection": ("/health", Answer(b"x", headers={"Content-Length": "9"}, then="cut"), "unreachable"),
    "silence": ("/v1/models", Answer(then="hang"), "unreachable"),
}


@pytest.mark.parametrize("name", PROBES)
async def test_health_takes_any_answer(fake: FakeVllm, name: str) -> None:
    path, answer, reason = PROBES[name]
    fake.answers[path] = answer
    async with VllmHttpEngine(fake.url, MODEL, timeouts=HttpTimeouts(probe_s=2.0)) as engine:
        health = await engine.health()
    assert (health.ok, health.reason) == (False, reason)
    assert health.reason in HEALTH_REASONS
    assert "127.0.0.1" not in health.reason
    assert fake.num_probes["/elsewhere"] == 0
    assert fake.num_bytes_sent < 64 * 2**20


async def test_a_closed_engine_says_so() -> None:
    async with VllmHttpEngine("http://127.0.0.1:9", MODEL) as engine:
        pass
    assert (await engine.health()).reason == "stopped"
    with pytest.raises(EngineUnavailableError, match="closed"):
        await complete(engine, PARAMS)


@pytest.mark.parametrize(
    "url",
    ["http://nobody.invalid", "http://" + "a" * 64 + ".b", "http://127.0.0.1:9", "http://user:word@127.0.0.1:9/v1"],
)
async def test_an_address_where_nobody_is_is_unreachable_and_its_password_stays_secret(url: str) -> None:
    async with VllmHttpEngine(url, MODEL) as engine:
        health = await engine.health()
        assert (health.ok, health.reason) == (False, "unreachable")
        with pytest.raises(EngineUnavailableError) as raised:
            await complete(engine, PARAMS)
    assert "word" not in f"{raised.value!r}{health!r}"


REFUSALS = {
    "a page": (Answer(b"<html>"), EngineError, False),
    "a redirect": (Answer(status=301, headers={"Location": "/elsewhere"}), EngineError, False),
    "another redirect": (Answer(status=307, headers={"Location": "/elsewhere"}), EngineError, False),
    "nothing": (Answer(status=204), EngineError, False),
    "a dead end": (Answer(status=404), EngineError, False),
    "a bad gateway": (Answer(status=502), EngineUnavailableError, True),
    "an endless refusal": (Answer(b"x" * 65_536, status=500, endless=True), EngineUnavailableError, True),
    "an endless line": (Answer(b"x" * 65_536, endless=True), EngineError, False),
    "endless lines": (Answer(b": x\n" * 4096, endless=True), EngineError, False),
    "a refusal that does not end": (Answer(b"x", status=503, then="hang"), EngineOverloadedError, True),
    "packed bytes": (Answer(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}), EngineError, False),
    "a body that is cut": (Answer(b"x", headers={"Content-Length": "9"}, then="cut"), EngineUnavailableError, True),
    "a head and no more": (Answer(b"", then="hang"), EngineUnavailableError, False),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_any_answer_ends_a_completion_with_a_type_and_in_bounded_memory(fake: FakeVllm, name: str) -> None:
    answer, kind, passing = REFUSALS[name]
    fake.answers["/v1/completions"] = answer
    timeouts = HttpTimeouts(read_s=2.0, probe_s=0.3)
    async with VllmHttpEngine(fake.url, MODEL, timeouts=timeouts) as engine:
        with pytest.raises(EngineError) as raised:
            await complete(engine, PARAMS)
    assert (type(raised.value), raised.value.passing) == (kind, passing)
    assert fake.num_probes["/elsewhere"] == 0
    assert fake.num_bytes_sent < 64 * 2**20
    await fake.idle.wait()


@pytest.mark.parametrize("said", [b"", b"\xff\xfe\x00" * 99, b"HTTP/1.1 x\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_what_does_not_speak_http_is_unavailable(said: bytes) -> None:
    async def talk(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        await reading.read(1)
        writing.write(said)
        writing.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with VllmHttpEngine(f"127.0.0.1:{port}", MODEL) as engine:
            with pytest.raises(EngineUnavailableError):
                await complete(engine, PARAMS)
            assert (await engine.health()).reason == "unreachable"


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None), ("99999999999", 86_400.0), (None, None)],
)
async def test_a_refusal_tells_how_long_to_wait(fake: FakeVllm, header: str | None, wait_s: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    fake.answers["/v1/completions"] = Answer(status=503, headers=headers)
    async with VllmHttpEngine(fake.url, MODEL) as engine:
        with pytest.raises(EngineOverloadedError) as raised:
            await complete(engine, PARAMS)
    assert raised.value.retry_after_s == wait_s


SILENT = {
    "before the head": Answer(delay_s=3600, then="hang"),
    "after the head": Answer(b": ping\n\n", then="hang"),
}


@pytest.mark.parametrize("where", SILENT)
async def test_a_silent_engine_fails_all_that_is_open_and_is_well_once_it_speaks(fake: FakeVllm, where: str) -> None:
    async with VllmHttpEngine(fake.url, MODEL, timeouts=HttpTimeouts(silence_s=0.3, probe_s=0.2)) as engine:
        fake.answers["/v1/completions"] = SILENT[where]
        ended = await asyncio.gather(*(complete(engine, PARAMS) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in ended] == [EngineUnavailableError] * 3
        assert (await engine.health()).reason == "stalled"
        with pytest.raises(EngineUnavailableError, match="does not move"):
            await complete(engine, PARAMS)
        fake.answers.clear()
        for _ in range(1000):
            if (await engine.health()).ok:
                break
            await asyncio.sleep(0.02)
        assert text_of(await complete(engine, PARAMS)) == SHOWN
    await fake.idle.wait()


async def test_a_completion_that_waits_in_a_busy_engine_is_not_failed(fake: FakeVllm) -> None:
    """The server's counters move, by the work that it does for others."""

    async def work() -> None:
        while True:
            fake.steps += 1
            await asyncio.sleep(0.01)

    others = asyncio.create_task(work())
    async with VllmHttpEngine(fake.url, MODEL, timeouts=HttpTimeouts(silence_s=0.3)) as engine:
        fake.answers["/v1/completions"] = SILENT["before the head"]
        waiting = asyncio.create_task(complete(engine, PARAMS))
        while fake.num_probes["/metrics"] < 12:
            assert not waiting.done()
            await asyncio.sleep(0.02)
        others.cancel()
        with pytest.raises(EngineUnavailableError, match="sent nothing"):
            await waiting


async def test_one_silent_completion_among_others_is_not_failed(fake: FakeVllm) -> None:
    async with VllmHttpEngine(fake.url, MODEL, timeouts=HttpTimeouts(silence_s=0.3)) as engine:
        fake.refusals.append(SILENT["before the head"])
        waiting = asyncio.create_task(complete(engine, PARAMS))
        await fake.busy.wait()
        for _ in range(60):
            await complete(engine, PARAMS)
            await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
