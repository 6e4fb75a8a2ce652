"""A gateway in front of several vLLMs: what they are told of runs and tenants, and what is told of them."""

import itertools
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from searchr1.engines.base import Chunk, SamplingParams, ServedEngine
from searchr1.engines.factory import open_engine
from searchr1.settings import Settings
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, Fault, serve_fake_vllm
from tests.gateway.conftest import Stage, byte_tokenizer, eventually, running_stage, sse_payloads

TURNS = ("<search> Mali </search>", "<answer> Bamako </answer>")
KEYS = {"acme": ("key-of-acme-1", "key-of-acme-2"), "umbrella": ("key-of-umbrella",)}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def settings(*urls: str, **given: object) -> Settings:
    return Settings.model_validate({"model": MODEL, "retriever": "index:none", "engine_url": ",".join(urls), **given})


@asynccontextmanager
async def served(**given: Any) -> AsyncIterator[tuple[Stage, list[FakeVllm]]]:
    """A gateway with two servers behind it, each of which searches at its first turn and then answers."""
    async with (
        serve_fake_vllm(itertools.cycle(TURNS), encode=lambda text: list(text.encode())) as one,
        serve_fake_vllm(itertools.cycle(TURNS), encode=lambda text: list(text.encode())) as two,
        open_engine(settings(one.url, two.url).engine_config()) as engine,
        running_stage(engine=cast(Any, engine), **given) as stage,
    ):
        yield stage, [one, two]


async def ask(stage: Stage, key: str | None = None, **headers: str) -> dict[str, Any]:
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    answer = await stage.client.post("/v1/research", json={"question": "Mali?"}, headers=headers)
    assert answer.is_success, answer.text
    return cast(dict[str, Any], answer.json())


def test_how_many_addresses_there_are_chooses_the_kind() -> None:
    kinds = {
        "http://a:1": "vllm-http",
        "http://a:1,http://b:1": "vllm-pool",
        "dns+http://name:8000": "vllm-pool",
        "k8s://default/vllm:8000": "vllm-pool",
    }
    assert {url: settings(url).engine_config().kind for url in kinds} == kinds
    assert settings("http://a:1", engine="vllm-pool").engine_config().kind == "vllm-pool"
    assert settings("http://a:1,http://b:1").engine_config().urls == ("http://a:1", "http://b:1")


async def test_a_run_stays_on_its_server_and_each_turn_has_an_id_of_its_own() -> None:
    async with served() as (stage, fakes):
        runs = [await ask(stage) for _ in range(2)]
        sessions = [{headers["X-Session-ID"] for headers in fake.headers} for fake in fakes]
        assert [len(found) for found in sessions] == [1, 1]
        assert [len(fake.bodies) for fake in fakes] == [2, 2]
        requests = [headers["X-Request-Id"] for fake in fakes for headers in fake.headers]
        assert len(set(requests)) == 4
        told = json.dumps([dict(headers) for fake in fakes for headers in fake.headers])
        assert not [run["id"] for run in runs if run["id"] in told]


@pytest.mark.parametrize(("given", "num_salts"), [({}, 2), ({"engine_cache_salt": False}, 0)])
async def test_tenants_share_no_prefixes_unless_it_is_turned_off(given: dict[str, object], num_salts: int) -> None:
    async with served(tenant_keys=KEYS, **given) as (stage, fakes):
        for key in ("key-of-acme-1", "key-of-acme-2", "key-of-umbrella"):
            await ask(stage, key)
        salts = [body.get("cache_salt") for fake in fakes for body in fake.bodies]
        assert len(set(salts) - {None}) == num_salts
        assert all(salt is None or re.fullmatch(r"[0-9a-f]{1,128}", salt) for salt in salts)
        told = json.dumps([fake.bodies for fake in fakes]) + str([fake.headers for fake in fakes])
        assert "acme" not in told
        assert "umbrella" not in told


async def test_without_tenants_prefixes_are_shared_unless_it_is_turned_on() -> None:
    async with served() as (stage, fakes):
        await ask(stage)
        assert {body.get("cache_salt") for fake in fakes for body in fake.bodies} == {None}
    async with served(engine_cache_salt=True) as (stage, fakes):
        await ask(stage)
        assert None not in {body.get("cache_salt") for fake in fakes for body in fake.bodies}


@pytest.mark.parametrize(("sent", "arrives"), [(TRACE, TRACE), ("nonsense", None), ("", None)])
async def test_a_trace_goes_on_to_the_engine(sent: str, arrives: str | None) -> None:
    async with served() as (stage, fakes):
        await ask(stage, traceparent=sent)
        assert {headers.get("traceparent") for fake in fakes for headers in fake.headers} == {arrives}


async def test_readiness_and_metrics_tell_of_the_replicas() -> None:
    async with served() as (stage, fakes):
        await ask(stage)
        assert (await stage.client.get("/readyz")).json()["replicas"] == "2 of 2 ready"
        pool: Any = cast(ServedEngine, stage.engine)
        await pool.drain(fakes[0].url)
        assert (await stage.client.get("/readyz")).json()["replicas"] == "1 of 1 ready"
        text = (await stage.client.get("/metrics")).text
        assert 'searchr1_engine_replicas{model="test-model",state="ready"} 1.0' in text
        assert 'searchr1_engine_replicas{model="test-model",state="gone"} 1.0' in text
        assert 'searchr1_engine_failovers_total{model="test-model"} 0.0' in text
        assert fakes[1].url not in text


ANSWER = "Bamako, 日本橋 é 🙂"
WHOLE = f"<think> naïve </think> <answer> {ANSWER} </answer>"
TOKENIZER = byte_tokenizer()


def bytes_model(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
    """Says ``WHOLE`` from where the prompt ends in it, three bytes at a time, whole characters as they come."""
    ids = TOKENIZER.encode(WHOLE)
    done = next(n for n in range(len(ids), -1, -1) if list(prompt_ids[len(prompt_ids) - n :]) == ids[:n])
    chunks, told = list[Chunk](), done
    for end in (*range(done + 3, len(ids), 3), len(ids)):
        text, before = (TOKENIZER.decode(tuple(ids[:n])).rstrip("\ufffd") for n in (end, told))
        chunks.append(Chunk(text[len(before) :], tuple(ids[told:end]), "stop" if end == len(ids) else None))
        told = end
    return chunks


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.UNFINISHED, Fault.ERROR_IN_STREAM])
async def test_a_client_does_not_notice_that_servers_break_under_its_stream(fault: Fault) -> None:
    async with served() as (stage, fakes):
        for fake in fakes:
            fake.model = bytes_model
            fake.fault_of = lambda number: fault if number < 2 else None
        asked = {"question": "Mali?", "stream": True}
        body = (await stage.client.post("/v1/research", json=asked)).text
        events = [json.loads(data) for data in sse_payloads(body)]
        deltas = {
            kind: "".join(e["text"] for e in events if e["type"] == kind) for kind in ("think.delta", "answer.delta")
        }
        assert deltas == {"think.delta": "naïve", "answer.delta": ANSWER}
        assert events[-1]["type"] == "run.completed"
        metrics = (await stage.client.get("/metrics")).text
        assert "searchr1_completion_resumes_total 4.0" in metrics
        await eventually(lambda: not any(fake.num_running for fake in fakes))
