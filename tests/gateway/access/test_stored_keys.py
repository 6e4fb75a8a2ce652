"""Stored keys at a gateway: they come, expire and go while it runs, open what their scopes say, and keep to limits."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from searchr1.errors import ConfigurationError
from searchr1.gateway.access import stored_keys
from searchr1.gateway.access.api_keys import ApiKeys
from searchr1.gateway.errors import ApiError
from searchr1.gateway.routes.idempotency import REPLAYED
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.key_place import KeyPlace
from searchr1.keyring.opening import open_keys
from searchr1.keyring.stored_key import StoredKey, StoredLimits, made_key
from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.resilience.budget import Budgets
from searchr1.retrieval.resilience.counters import MemoryCounters
from tests.gateway.conftest import ADMIN_KEY, MODEL, Stage, StageEngine, eventually, running_stage
from tests.support.redis_server import RedisServer

NOW = 1_800_000_000
ASK = {"question": "Mali?"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Mali?"}]}


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_keys, "LOOK_EVERY_S", 0.02)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with one key, which nobody has."""
    path = tmp_path / "keys.json"
    asyncio.run(KeyFile(path).add(made_key("nobody's", now=NOW)[1]))
    return path


def replaced(path: Path, text: str) -> None:
    path.write_text(text)


async def new_key(place: Path | KeyPlace, name: str = "one", **given: Any) -> tuple[str, StoredKey]:
    text, key = made_key(name, now=NOW, **given)
    store = open_keys(place if isinstance(place, KeyPlace) else KeyPlace(file=place))
    await store.add(key)
    await store.aclose()
    return text, key


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def known(stage: Stage, text: str) -> None:
    """Wait until the gateway knows a key."""
    while (await stage.client.get("/v1/models", headers=bearer(text))).status_code == 401:  # noqa: ASYNC110 (it only answers)
        await asyncio.sleep(0.01)


async def ask(
    stage: Stage, text: str, path: str = "/v1/research", body: dict[str, Any] | None = None
) -> httpx.Response:
    return await stage.client.post(path, json=body or ASK, headers=bearer(text))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_keys_come_and_are_revoked_while_the_server_runs(key_file: Path) -> None:
    async with running_stage(keys_file=key_file) as stage:
        text, key = await new_key(key_file)
        await known(stage, text)
        assert (await ask(stage, text)).status_code == 200
        await KeyFile(key_file).revoke(key.id, now=NOW)
        while (answer := await ask(stage, text)).status_code == 200:  # noqa: ASYNC110 (it only answers)
            await asyncio.sleep(0.01)
        assert refusal(answer) == (401, "revoked_api_key")
        assert refusal(await ask(stage, text[:-1] + ("a" if text[-1] != "a" else "b"))) == (401, "invalid_api_key")


async def test_keys_in_redis_are_seen_by_every_gateway(redis: RedisServer) -> None:
    place = KeyPlace(redis_url=redis.url)
    given: dict[str, Any] = {"redis_url": redis.url, "keys_in_redis": True}
    async with running_stage(**given) as one, running_stage(**given) as other:
        text, key = await new_key(place)
        await asyncio.gather(known(one, text), known(other, text))
        store = open_keys(place)
        await store.revoke(key.id, now=NOW)
        await store.aclose()
        for stage in (one, other):
            while (await ask(stage, text)).status_code == 200:  # noqa: ASYNC110 (it only answers)
                await asyncio.sleep(0.01)


async def test_a_key_expires_by_the_clock_alone(key_file: Path) -> None:
    text, _ = await new_key(key_file, expires_at=NOW + 10)
    async with running_stage(keys_file=key_file) as stage:
        assert stage.services.access.keys.stored
        stored, now = stage.services.access.keys._stored, float(NOW)
        keys = ApiKeys(stage.services.settings, stored, now=lambda: now)
        assert keys.caller(f"Bearer {text}").key_id
        now += 10
        with pytest.raises(ApiError) as caught:
            keys.caller(f"Bearer {text}")
        assert (caught.value.status, caught.value.code) == (401, "expired_api_key")


async def test_a_file_that_breaks_keeps_the_last_good_keys_and_is_told_of(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text, _ = await new_key(key_file)
    good = key_file.read_text()  # noqa: ASYNC240 (a test may wait for a file)
    async with running_stage(keys_file=key_file) as stage:
        replaced(key_file, good[:-50])
        await eventually(lambda: "is damaged" in caplog.text)
        assert (await ask(stage, text)).status_code == 200
        assert "searchr1_stored_keys_up 0.0" in (await stage.client.get("/metrics")).text
        assert [record.levelno for record in caplog.records if "is damaged" in record.message] == [logging.ERROR]
        replaced(key_file, good)
        await eventually(lambda: "can be read again" in caplog.text)
        metrics = (await stage.client.get("/metrics")).text
        assert "searchr1_stored_keys_up 1.0" in metrics
        assert "searchr1_stored_keys 2.0" in metrics


@pytest.mark.parametrize("broken", [None, "{", ""])
async def test_a_file_that_is_broken_at_the_start_stops_the_start(tmp_path: Path, broken: str | None) -> None:
    path = tmp_path / "keys.json"
    if broken is not None:
        replaced(path, broken)
    with pytest.raises(ConfigurationError, match="key file"):
        await stored_keys.check_stored_keys(KeyPlace(file=path))


async def test_a_store_without_keys_opens_nothing(key_file: Path) -> None:
    replaced(key_file, '{"version": 1, "keys": []}')
    async with running_stage(keys_file=key_file) as stage:
        assert refusal(await stage.client.get("/v1/models")) == (401, "missing_api_key")
        assert refusal(await ask(stage, "sr1_x")) == (401, "invalid_api_key")
        assert (await stage.client.get("/page.json")).json()["needs_key"] is True


async def test_a_store_without_keys_is_warned_of(
    key_file: Path, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.client() as client:
        client.flushall()
    async with running_stage(redis_url=redis.url, keys_in_redis=True):
        assert warnings_of_none(caplog) == 1
    full = key_file.read_text()  # noqa: ASYNC240 (a test may wait for a file)
    async with running_stage(keys_file=key_file) as stage:
        stored = stage.services.access.keys._stored
        assert stored is not None
        for _ in range(2):
            num_before = warnings_of_none(caplog)
            replaced(key_file, '{"version": 1, "keys": []}')
            while warnings_of_none(caplog) == num_before:  # noqa: ASYNC110 (the log has no event)
                await asyncio.sleep(0.01)
            replaced(key_file, full)
            await eventually(lambda: len(stored.ring) == 1)
    assert warnings_of_none(caplog) == 3


def warnings_of_none(caplog: pytest.LogCaptureFixture) -> int:
    told = [record for record in caplog.records if "there is none" in record.message]
    assert {record.levelno for record in told} <= {logging.WARNING}
    return len(told)


async def test_keys_of_the_settings_work_beside_stored_ones(key_file: Path) -> None:
    text, _ = await new_key(key_file)
    async with running_stage(keys_file=key_file, api_keys="plain", admin_key=ADMIN_KEY) as stage:
        for one in (text, "plain"):
            assert (await ask(stage, one)).status_code == 200
        assert refusal(await ask(stage, ADMIN_KEY)) == (401, "invalid_api_key")
        assert (await stage.client.get("/admin/keys", headers=bearer(ADMIN_KEY))).status_code == 200
        assert refusal(await stage.client.get("/admin/keys", headers=bearer("plain"))) == (403, "insufficient_scope")


async def test_a_key_opens_what_its_scopes_say_and_nothing_else(key_file: Path) -> None:
    texts = {scope: (await new_key(key_file, scope, tenant="acme", scopes=(scope,)))[0] for scope in SCOPED}
    async with running_stage(keys_file=key_file) as stage:
        run_id = (await ask(stage, texts["infer"])).json()["id"]
        asked = [
            ("POST", "/v1/research", ASK, "infer"),
            ("POST", "/v1/research/replay", {"run_id": run_id}, "infer"),
            ("POST", "/v1/chat/completions", CHAT, "infer"),
            ("POST", "/v1/responses", {"model": MODEL, "input": "Mali?"}, "infer"),
            ("POST", "/mcp", {}, "infer"),
            ("POST", f"/v1/research/{run_id}/cancel", None, "infer"),
            ("GET", f"/v1/research/{run_id}", None, "read"),
            ("GET", f"/v1/research/{run_id}/events", None, "read"),
            ("GET", "/v1/research", None, "read"),
            ("GET", "/v1/models", None, "read infer"),
            ("GET", f"/v1/models/{MODEL}", None, "read infer"),
            ("GET", "/admin/keys", None, "admin"),
            ("GET", "/admin/replicas", None, "admin"),
            ("POST", "/admin/reload", {"folder": "x"}, "admin"),
            ("HEAD", f"/v1/research/{run_id}", None, "read"),
            ("DELETE", f"/v1/research/{run_id}", None, "infer"),
        ]
        for method, path, body, allowed in asked:
            for scope in sorted(SCOPED, key=lambda one: one in allowed.split()):
                answer = await stage.client.request(method, path, json=body, headers=bearer(texts[scope]))
                is_refused = answer.status_code == 403
                assert is_refused == (scope not in allowed.split()), (method, path, scope, answer.text)
                if is_refused and method != "HEAD":
                    assert answer.json()["error"]["code"] == "insufficient_scope"


SCOPED = ("infer", "read", "admin")


async def test_requests_beyond_the_rate_are_told_when_to_come_back(key_file: Path) -> None:
    text, _ = await new_key(key_file, limits=StoredLimits(requests_per_minute=2))
    async with running_stage(keys_file=key_file) as stage:
        first, second, third = [await ask(stage, text, "/v1/chat/completions", CHAT) for _ in range(3)]
        assert [one.headers["x-ratelimit-remaining-requests"] for one in (first, second, third)] == ["1", "0", "0"]
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert refusal(third) == (429, "rate_limit_exceeded")
        error = third.json()["error"]
        assert (error["type"], error["param"]) == ("rate_limit_error", "requests_per_minute")
        assert 1 <= int(third.headers["retry-after"]) <= 30
        assert (await stage.client.get("/v1/models", headers=bearer(text))).status_code == 200
        metrics = (await stage.client.get("/metrics")).text
        assert 'searchr1_requests_limited_total{limit="requests_per_minute"} 1.0' in metrics


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/research", ASK),
        ("/v1/research", {**ASK, "stream": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/responses", {"model": MODEL, "input": "Mali?"}),
        ("/v1/responses", {"model": MODEL, "input": "Mali?", "background": True}),
    ],
)
async def test_one_run_too_many_waits_for_another_to_end(key_file: Path, path: str, body: dict[str, Any]) -> None:
    text, _ = await new_key(key_file, limits=StoredLimits(concurrent_runs=1))
    other, _ = await new_key(key_file)
    engine = StageEngine(hold=asyncio.Event())
    assert engine.hold is not None
    async with running_stage(engine=engine, keys_file=key_file) as stage:
        first = asyncio.create_task(ask(stage, text))
        await eventually(lambda: engine.num_open == 1)
        refused = await ask(stage, text, path, body)
        assert refusal(refused) == (429, "concurrency_limit_exceeded")
        assert refused.headers["retry-after"] == "2"
        another = asyncio.create_task(ask(stage, other))
        await eventually(lambda: engine.num_open == 2)
        engine.hold.set()
        for one in (first, another):
            assert (await one).status_code == 200
        assert (await ask(stage, text, path, body)).status_code == 200


async def test_choices_are_runs_and_a_refused_request_keeps_none(key_file: Path) -> None:
    text, _ = await new_key(key_file, limits=StoredLimits(concurrent_runs=3))
    engine = StageEngine(hold=asyncio.Event())
    assert engine.hold is not None
    async with running_stage(engine=engine, keys_file=key_file) as stage:
        first = asyncio.create_task(ask(stage, text))
        await eventually(lambda: engine.num_open == 1)
        for _ in range(3):
            refused = await ask(stage, text, "/v1/chat/completions", {**CHAT, "n": 3})
            assert refusal(refused) == (429, "concurrency_limit_exceeded")
        engine.hold.set()
        assert (await first).status_code == 200
        assert (await ask(stage, text, "/v1/chat/completions", {**CHAT, "n": 3})).status_code == 200


async def test_more_choices_than_a_key_may_have_runs_are_never_asked_for_again(key_file: Path) -> None:
    text, _ = await new_key(key_file, limits=StoredLimits(concurrent_runs=2))
    async with running_stage(keys_file=key_file) as stage:
        refused = await ask(stage, text, "/v1/chat/completions", {**CHAT, "n": 3})
        assert refusal(refused) == (400, "above_maximum")
        assert "may have 2 at once" in refused.json()["error"]["message"]
        assert "retry-after" not in refused.headers


async def test_a_key_that_has_used_its_tokens_is_told_so(key_file: Path) -> None:
    text, _ = await new_key(key_file, limits=StoredLimits(tokens_per_day=1))
    async with running_stage(keys_file=key_file) as stage:
        first = await ask(stage, text)
        assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (200, "1")
        refused = await ask(stage, text)
        assert refusal(refused) == (429, "token_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
        assert refused.headers["x-should-retry"] == "false"
        assert 86_000 < int(refused.headers["retry-after"]) <= 86_400


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_sent_again_gets_its_run_whatever_the_limits(key_file: Path, stream: bool) -> None:
    text, _ = await new_key(key_file, limits=StoredLimits(tokens_per_day=1, requests_per_minute=1))
    sent, body = {**bearer(text), "Idempotency-Key": "known"}, {**ASK, "stream": stream}
    async with running_stage(keys_file=key_file) as stage:
        first, again = [await stage.client.post("/v1/research", json=body, headers=sent) for _ in range(2)]
        assert (first.status_code, again.status_code) == (200, 200)
        assert (again.headers["x-run-id"], again.headers[REPLAYED]) == (first.headers["x-run-id"], "true")
        assert refusal(await ask(stage, text)) == (429, "token_limit_exceeded")
        deleted = await stage.client.delete(f"/v1/research/{first.headers['x-run-id']}", headers=sent)
        assert deleted.status_code == 200
        for _ in range(2):  # It would be another run.
            refused = await stage.client.post("/v1/research", json=body, headers=sent)
            assert refusal(refused) == (429, "token_limit_exceeded")


async def test_a_keys_own_limit_of_searches_replaces_the_one_of_all(key_file: Path) -> None:
    text, _ = await new_key(key_file, tenant="acme", limits=StoredLimits(searches_per_window=2))
    plain, _ = await new_key(key_file, tenant="acme")
    config = BudgetConfig(per_key=1, keys_have_limits=True, window_s=500)
    async with running_stage(keys_file=key_file) as made:
        budgets = Budgets(MemoryCounters(), config, observer=made.services.metrics.search)
    async with running_stage(budgets=budgets, keys_file=key_file) as stage:
        for one, code in ((plain, None), (text, None), (text, None), (plain, "budget")):
            error = (await ask(stage, one)).json()["steps"][0]["search_error"]
            assert (error and error["code"]) == code
        refused = await ask(stage, text)
        assert refusal(refused) == (429, "search_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 500


async def test_usage_is_told_to_the_admin(key_file: Path) -> None:
    text, key = await new_key(key_file, "mine", tenant="acme", limits=StoredLimits(requests_per_minute=60))
    async with running_stage(keys_file=key_file, admin_key=ADMIN_KEY, api_keys="plain") as stage:
        run = (await ask(stage, text)).json()
        await stage.client.get("/v1/models", headers=bearer(text))
        await ask(stage, "plain")
        answer = await stage.client.get("/admin/keys", headers=bearer(ADMIN_KEY))
        assert answer.status_code == 200
        [mine] = [one for one in answer.json()["data"] if one["id"] == key.id]
        usage, cost = mine.pop("usage"), run["usage"]
        assert mine["name"] == "mine"
        assert mine["limits"]["requests_per_minute"] == 60
        assert (usage["requests"], usage["runs"], usage["searches"]) == (2, 1, 1)
        assert usage["tokens_out"] == cost["completion_tokens"]
        assert usage["tokens_in"] == cost["prompt_tokens"] + cost["observation_tokens"]
        assert usage["last_used_at"]
        [other] = answer.json()["others"]
        assert other["usage"]["requests"] == 1


async def test_no_secret_is_told_anywhere(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text, key = await new_key(key_file, scopes=("infer", "read", "admin"), limits=StoredLimits(requests_per_minute=1))
    secret = text.rpartition("_")[2]
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    paths = ("/admin/keys", "/metrics", "/v1/research", "/openapi.json", "/readyz")
    async with running_stage(keys_file=key_file, access_log=True) as stage:
        told = [await ask(stage, one) for one in (text, text, wrong, f"{text} {text}", secret)]
        told += [await stage.client.get(path, headers=bearer(text)) for path in paths]
        shown = repr(stage.services.settings) + repr(stage.services.access.keys.stored)
    whole = "".join(answer.text + str(answer.headers) for answer in told) + caplog.text + shown
    for one in (secret, wrong.rpartition("_")[2], key.digest, key.salt):
        assert one not in whole


async def test_gateways_with_one_redis_share_limits_and_usage(redis: RedisServer) -> None:
    given: dict[str, Any] = {"redis_url": redis.url, "keys_in_redis": True, "admin_key": ADMIN_KEY}
    limits = StoredLimits(requests_per_minute=2, concurrent_runs=9, searches_per_window=9)
    text, key = await new_key(KeyPlace(redis_url=redis.url), limits=limits)
    async with running_stage(**given) as one, running_stage(**given) as other:
        answers = [await ask(stage, text) for stage in (one, other, one, other)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0", "0"]
        counted: dict[str, Any] = {}
        while counted.get("requests") != 4:
            listed = await one.client.get("/admin/keys", headers=bearer(ADMIN_KEY))
            [counted] = [row["usage"] for row in listed.json()["data"] if row["id"] == key.id]
            await asyncio.sleep(0.05)
        assert (counted["runs"], counted["searches"]) == (2, 2)
