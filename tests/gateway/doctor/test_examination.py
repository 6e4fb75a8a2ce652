"""``searchr1 doctor`` before servers that are well and before such as are not."""

import asyncio
import json
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from searchr1.demo.bundle import CHECKPOINT
from searchr1.gateway.doctor import redis_server
from searchr1.gateway.doctor.api_keys import examine_keys
from searchr1.gateway.doctor.examination import examine
from searchr1.gateway.doctor.finding import Finding, Verdict
from searchr1.gateway.doctor.vllm_server import examine_server
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.stored_key import made_key
from searchr1.rollout import render_prompt
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer
from tests.engines.deterministic import encode
from tests.engines.vllm.fake_vllm import MODEL, Answer, FakeVllm, Fault, serve_fake_vllm
from tests.gateway.runs.fleet import serve_searches
from tests.support.redis_server import RedisServer, run_cluster, run_redis, run_sentinel

KEY = "a-key-of-some-length-0123456789"
TOKENIZER = Tokenizer.load(str(CHECKPOINT))
METRICS = (
    'vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="2001"} 1.0\n'
    'vllm:kv_cache_usage_perc{engine="0",model_name="fake"} 0.0\n'
)


def prompt_ids() -> list[int]:
    profile = Settings(model="m", retriever="index:none").loop_profile()
    text = render_prompt(profile.prompt("Which city is the capital of Mali?"), TOKENIZER, profile)
    return TOKENIZER.encode_prompt(text)


@dataclass
class World:
    """What a gateway would need, all of it well."""

    engine: FakeVllm
    retriever: str

    async def examined(self, **given: Any) -> list[Finding]:
        """Examine it with more settings, and without the port that others may have."""
        settings = {
            "model": MODEL,
            "engine_url": self.engine.url,
            "tokenizer": str(CHECKPOINT),
            "retriever": self.retriever,
            "api_keys": KEY,
            "port": 0,
            **given,
        }
        warnings = settings.pop("warnings", ())
        search = settings.pop("search", True)
        return await examine(Settings.model_validate(settings), warnings, search=search)


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    async with serve_fake_vllm(("yes",) * 8, encode=encode) as engine, serve_searches() as searches:
        engine.max_model_len = 8192
        engine.answers["/version"] = Answer(b'{"version": "0.32.0"}')
        engine.answers["/metrics"] = Answer(METRICS.encode())
        engine.answers["/tokenize"] = Answer(json.dumps({"tokens": prompt_ids()}).encode())
        yield World(engine, searches.url)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as world:
        yield world


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is not Verdict.OK]


async def test_what_is_well_is_told_so(world: World) -> None:
    findings = await world.examined(engine_priority=True)
    assert bad(findings) == []
    told = "\n".join(f"{finding.check}: {finding.told}" for finding in findings)
    for part in (
        f"engine: vLLM 0.32.0 at {world.engine.url} serves fake, with room for the 4596 tokens",
        "engine: prefix caching is on",
        "engine: its KV cache holds 32,000 tokens, 7.0 runs",
        "engine: it tells which tokens its cache held",
        "engine: it takes priorities, and tells in development mode alone",
        f"tokenizer: the engine makes the same {len(prompt_ids())} ids",
        "template: a question can be asked as the profile 'search-r1'",
        "search retrieve: it answers in ",
        "keys: 1 of clients, none of the admin",
        "port: 127.0.0.1:0 is free",
    ):
        assert part in told
    assert [body.get("priority") for body in world.engine.bodies] == [0, 1]
    assert KEY not in told


def model_len(engine: FakeVllm) -> None:
    engine.max_model_len = 4095


def no_caching(engine: FakeVllm) -> None:
    engine.answers["/metrics"] = Answer(METRICS.replace("True", "False").encode())


def little_cache(engine: FakeVllm) -> None:
    engine.answers["/metrics"] = Answer(METRICS.replace("2001", "201").encode())


def silent_metrics(engine: FakeVllm) -> None:
    engine.answers["/metrics"] = Answer(status=404)


def no_details(engine: FakeVllm) -> None:
    engine.num_cached_tokens = None


def old(engine: FakeVllm) -> None:
    engine.answers["/version"] = Answer(b'{"version": "0.9.2"}')


def other_ids(engine: FakeVllm) -> None:
    engine.answers["/tokenize"] = Answer(b'{"tokens": [1, 2]}')


def no_priorities(engine: FakeVllm) -> None:
    engine.fault_of = lambda number: Fault.REFUSE_REQUEST if number == 1 else None


def first_come(engine: FakeVllm) -> None:
    engine.answers["/server_info"] = Answer(b'{"vllm_config": {"scheduler_config": {"policy": "fcfs"}}}')


def no_tokens(engine: FakeVllm) -> None:
    engine.fault = Fault.REFUSE_REQUEST


def refused_key(engine: FakeVllm) -> None:
    engine.answers["/v1/models"] = Answer(status=401)


ENGINE_FAULTS: list[tuple[Callable[[FakeVllm], None], str, Verdict, str, str]] = [
    (model_len, "engine", Verdict.WRONG, "takes 4095 tokens", "--max-model-len"),
    (no_caching, "engine", Verdict.WARNING, "prefix caching is off", "--enable-prefix-caching"),
    (little_cache, "engine", Verdict.WRONG, "holds 3,200 tokens", "more memory"),
    (silent_metrics, "engine", Verdict.WARNING, "metrics can't be had", "let /metrics through"),
    (no_details, "engine", Verdict.WARNING, "which tokens its cache held", "--enable-prompt-tokens-details"),
    (old, "engine", Verdict.WARNING, "vLLM 0.9.2", "take 0.32"),
    (other_ids, "tokenizer", Verdict.WRONG, "makes other ids", "SEARCHR1_TOKENIZER"),
    (no_priorities, "engine", Verdict.WRONG, "takes no priorities", "--scheduling-policy priority"),
    (first_come, "engine", Verdict.WRONG, "schedules by fcfs", "--scheduling-policy priority"),
    (no_tokens, "engine", Verdict.WRONG, "gives no token", "see its log"),
    (refused_key, "engine", Verdict.WRONG, "answered 401", "SEARCHR1_ENGINE_API_KEY"),
]


@pytest.mark.parametrize(
    ("fault", "check", "verdict", "told", "fix"),
    ENGINE_FAULTS,
    ids=lambda part: getattr(part, "__name__", str(part)[:30]),
)
async def test_each_fault_of_an_engine_is_named(
    world: World, fault: Callable[[FakeVllm], None], check: str, verdict: Verdict, told: str, fix: str
) -> None:
    fault(world.engine)
    [finding] = bad(await world.examined(engine_priority=True))
    assert (finding.check, finding.verdict) == (check, verdict)
    assert told in finding.told
    assert fix in finding.fix


SETTINGS: list[tuple[dict[str, Any], str, Verdict, str, str]] = [
    ({"model": "other"}, "engine", Verdict.WRONG, "serves 'fake', not 'other'", "SEARCHR1_MODEL"),
    ({"engine_url": "http://127.0.0.1:9"}, "engine", Verdict.WRONG, "127.0.0.1:9", "start it"),
    ({"engine_url": "http://127.0.0.1:9/?x"}, "engine", Verdict.WRONG, "leave out what follows", "SEARCHR1_ENGINE_URL"),
    ({"tokenizer": "/nonexistent"}, "tokenizer", Verdict.WRONG, "no such folder", "SEARCHR1_TOKENIZER"),
    ({"retriever": "http://127.0.0.1:9/retrieve"}, "search retrieve", Verdict.WRONG, "127.0.0.1:9", "it is up"),
    ({"retriever": "brave:"}, "search brave", Verdict.WRONG, "needs a key", "SEARCHR1_BRAVE_API_KEY"),
    ({"retriever": "index:/nonexistent"}, "search index", Verdict.WRONG, "/nonexistent", "SEARCHR1_RETRIEVER"),
    ({"redis_url": "redis://127.0.0.1:9"}, "redis", Verdict.WRONG, "it does not do", "it is up"),
    ({"redis_url": "http://h"}, "redis", Verdict.WRONG, "scheme", "SEARCHR1_REDIS_URL"),
    ({"api_keys": "short"}, "keys", Verdict.WARNING, "1 of 1 keys of clients", "openssl"),
    ({"api_keys": ()}, "keys", Verdict.WARNING, "open to this machine", "SEARCHR1_API_KEYS"),
    ({"admin_key": "short"}, "keys", Verdict.WARNING, "of the admin", "openssl"),
    ({"warnings": ["SEARCHR1_OPEN has no effect"]}, "settings", Verdict.WARNING, "SEARCHR1_OPEN", "settings.md"),
    ({"api_keys": (), "host": "0.0.0.0"}, "settings", Verdict.WRONG, "everyone who reaches 0.0.0.0", "keys"),
    ({"models_file": Path("/nonexistent")}, "settings", Verdict.WRONG, "/nonexistent", "file of models"),
    ({"run_memory_mib": 2**30}, "memory", Verdict.WRONG, "GiB are free", "SEARCHR1_RUN_MEMORY_MIB"),
]


@pytest.mark.parametrize(("given", "check", "verdict", "told", "fix"), SETTINGS, ids=lambda part: str(part)[:40])
async def test_each_setting_that_does_not_work_is_named(
    world: World, given: dict[str, Any], check: str, verdict: Verdict, told: str, fix: str
) -> None:
    found = [finding for finding in bad(await world.examined(**given)) if finding.check == check]
    assert found
    assert found[0].verdict is verdict
    assert told in found[0].told
    assert fix in found[0].fix


async def test_a_search_is_sent_unless_it_is_unwanted(world: World) -> None:
    findings = await world.examined(retriever="http://127.0.0.1:9/retrieve", search=False)
    assert bad(findings) == []
    assert any("--no-search" in finding.told for finding in findings)


async def test_a_port_that_is_taken_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [finding] = bad(await world.examined(port=port))
    assert (finding.check, finding.verdict) == ("port", Verdict.WRONG)
    assert f"127.0.0.1:{port}" in finding.told


async def test_an_operators_port_that_is_taken_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [finding] = bad(await world.examined(ops_port=port))
    assert (finding.check, finding.verdict) == ("port", Verdict.WRONG)
    assert f"127.0.0.1:{port}" in finding.told
    assert "SEARCHR1_OPS_PORT" in finding.fix


def stored(path: Path, *expires_at: int | None) -> Path:
    """Write a file with a key for each end."""
    for number, end in enumerate(expires_at):
        asyncio.run(KeyFile(path).add(made_key(f"key {number}", now=1, expires_at=end)[1]))
    return path


@pytest.mark.parametrize(
    ("ends", "verdict", "told"),
    [
        ([None, None], Verdict.OK, "2 stored ones are active"),
        ([None, int(time.time()) + 3600], Verdict.WARNING, "1 of 2 keys expire within a week"),
        ([2], Verdict.WARNING, "opens anything: 1 have expired, 0 are revoked"),
    ],
)
def test_stored_keys_are_looked_at(tmp_path: Path, ends: list[int | None], verdict: Verdict, told: str) -> None:
    path = stored(tmp_path / "keys.json", *ends)
    given = Settings(model="m", retriever="index:none", keys_file=path)
    [finding] = asyncio.run(examine_keys(given))
    assert finding.verdict is verdict
    assert told in finding.told


def test_stored_keys_that_cannot_be_read_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{", encoding="utf-8")
    [finding] = asyncio.run(examine_keys(Settings(model="m", retriever="index:none", keys_file=path)))
    assert finding.verdict is Verdict.WRONG
    in_redis = Settings(
        model="m", retriever="index:none", redis_url=SecretStr("redis://127.0.0.1:9"), keys_in_redis=True
    )
    [finding] = asyncio.run(examine_keys(in_redis))
    assert finding.verdict is Verdict.WRONG


async def test_too_few_open_files_are_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    [finding] = bad(await world.examined())
    assert (finding.check, finding.verdict) == ("files", Verdict.WARNING)
    assert "ulimit -n 2624" in finding.fix
    [finding] = bad(await world.examined(ops_port=0))
    assert "ulimit -n 2688" in finding.fix


async def test_each_of_several_models_is_examined(world: World, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f'[[models]]\nname = "second"\nengine_url = "http://127.0.0.1:9"\ntokenizer = "{CHECKPOINT}"\n')
    [finding] = bad(await world.examined(models_file=file))
    assert finding.check == "engine of second"


async def test_an_engine_in_this_process_is_not_started(tmp_path: Path) -> None:
    async with serve_searches() as searches:
        given = {"model": str(CHECKPOINT), "retriever": searches.url, "api_keys": KEY, "port": 0}
        findings = await examine(Settings.model_validate({**given, "engine": "transformers"}), ())
        assert bad(findings) == []
        assert any(finding.check == "model" and "62 tensors" in finding.told for finding in findings)
        longer = Settings.model_validate({**given, "engine": "transformers", "max_context_tokens": 9000})
        [finding] = bad(await examine(longer, ()))
        assert "takes 4608 tokens of context, and a run may have 9500" in finding.told
        (tmp_path / "config.json").write_text("{")
        broken = {**given, "model": str(tmp_path), "tokenizer": str(CHECKPOINT), "engine": "transformers"}
        [finding] = bad(await examine(Settings.model_validate(broken), ()))
        assert (finding.check, finding.verdict) == ("model", Verdict.WRONG)
        [finding] = bad(await examine(Settings.model_validate({**given, "engine": "abacus"}), ()))
        assert "abacus" in finding.told


@pytest.fixture(scope="module")
def sized_redis() -> Any:
    with run_redis("maxmemory 64mb", "maxmemory-policy allkeys-lru", "appendonly yes") as server:
        yield server


@pytest.mark.redis
async def test_a_redis_that_is_set_up_well(world: World, sized_redis: RedisServer) -> None:
    findings = await world.examined(redis_url=sized_redis.url)
    assert bad(findings) == []
    told = [finding.told for finding in findings if finding.check in ("redis", "clock")]
    assert [part in line for part, line in zip(("answers", "64 MiB", "append-only", "differ"), told, strict=True)]


@pytest.mark.redis
@pytest.mark.parametrize(
    ("policy", "told"), [("noeviction", "stores no run"), ("volatile-ttl", "runs that go on"), (None, "no bound")]
)
async def test_a_redis_that_is_set_up_otherwise(
    world: World, sized_redis: RedisServer, policy: str | None, told: str
) -> None:
    with sized_redis.client() as client:
        client.config_set("maxmemory-policy", policy or "allkeys-lru")
        client.config_set("maxmemory", "64mb" if policy else "0")
        client.config_set("appendonly", "no")
        try:
            findings = bad(await world.examined(redis_url=sized_redis.url))
        finally:
            client.config_set("maxmemory", "64mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("appendonly", "yes")
    assert [finding.verdict for finding in findings] == [Verdict.WARNING] * 2
    assert told in findings[0].told
    assert "appendonly yes" in findings[1].fix


@pytest.mark.redis
@pytest.mark.parametrize(
    ("policy", "is_well"),
    [("noeviction", True), ("volatile-lru", True), ("volatile-ttl", True), ("allkeys-lru", False)],
)
async def test_a_redis_that_holds_keys_must_not_evict_them(
    sized_redis: RedisServer, policy: str, is_well: bool
) -> None:
    given = {"model": "m", "retriever": "index:none", "redis_url": sized_redis.url, "keys_in_redis": True}
    settings = Settings.model_validate(given)
    with sized_redis.client() as client:
        client.config_set("maxmemory-policy", policy)
        try:
            found = bad(list(await redis_server.examine_redis(settings)))
            client.config_set("appendonly", "no")
            unsaved = bad(list(await redis_server.examine_redis(settings)))
        finally:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("appendonly", "yes")
    assert [("evict the API keys" in one.told, "volatile-lru" in one.fix) for one in found] == [(True, True)] * (
        not is_well
    )
    assert "API keys too" in unsaved[-1].told
    assert "appendonly yes" in unsaved[-1].fix


@pytest.mark.redis
async def test_a_cluster_and_a_master_that_sentinel_names_are_understood() -> None:
    with run_cluster() as nodes, run_sentinel() as sentinel:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        for url in (f"redis+cluster://{hosts}", sentinel.url):
            settings = Settings.model_validate({"model": "m", "retriever": "index:none", "redis_url": url})
            findings = await redis_server.examine_redis(settings)
            assert [finding.told for finding in findings if finding.verdict is Verdict.WRONG] == []
            assert "answers in" in findings[0].told
            assert findings[-1].check == "clock"


@pytest.mark.redis
async def test_a_clock_that_is_wrong(world: World, sized_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "time", SimpleNamespace(time=lambda: 1_000_000.0, perf_counter=lambda: 0.0))
    [finding] = bad(await redis_server.examine_redis(Settings(model="m", retriever="r", redis_url=sized_redis.url)))  # type: ignore[arg-type]
    assert (finding.check, finding.verdict) == ("clock", Verdict.WARNING)
    assert "behind Redis" in finding.told


@pytest.mark.vllm
async def test_a_real_vllm_is_as_runs_need_it(tmp_path: Path) -> None:
    from tests.support.vllm_server import run_vllm

    with run_vllm(CHECKPOINT, tmp_path / "vllm.log", takes_weights=True) as server:  # In development mode.
        settings = Settings(
            model=server.model,
            engine_url=server.url,
            tokenizer=str(CHECKPOINT),
            retriever="index:none",
            engine_priority=True,
        )
        findings = await examine_server(server.url, settings, settings.engine_config(), TOKENIZER, "engine")
    assert bad(list(findings)) == []
    told = "\n".join(finding.told for finding in findings)
    for part in ("vLLM 0.", "prefix caching is on", "the same", "its cache held", "schedules by priority", "holds"):
        assert part in told
