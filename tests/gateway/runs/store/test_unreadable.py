"""Stored runs that this release can't read, or that another one wrote: on every route, in Redis and in memory."""

import json
import logging
import time
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from searchr1.export.run import ExportConfig, export
from searchr1.gateway import app
from searchr1.gateway.runs import mirror
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.store.codec import MAX_RECORD_BYTES, MAX_STATE_BYTES
from searchr1.gateway.runs.store.memory import MemoryRunStore
from tests.gateway.conftest import sse_payloads
from tests.gateway.threaded import threaded_stage
from tests.support.redis_server import RedisServer

KEY = "a-plain-key-of-the-tests"
OWN = {"Authorization": f"Bearer {KEY}"}
TENANT = {"Authorization": "Bearer acme-key-of-the-tests"}
KEYS: dict[str, Any] = {"api_keys": KEY, "tenant_keys": {"acme": ["acme-key-of-the-tests"]}}
QUESTION = {"question": "Which currency is used in Mali?"}
BEFORE = json.loads((Path(__file__).parent / "written_by_0_1_0.json").read_text())


@dataclass
class Served:
    """A gateway in a thread of its own, and a client of it."""

    url: str
    http: httpx.Client
    hub: RunHub

    def wait_until_stored(self, run_id: str) -> None:
        """Wait until the run has ended, and what the store has of it is all there is."""
        while run_id in self.hub._live:
            time.sleep(0.01)


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    with threaded_stage(**KEYS, **settings) as stage, httpx.Client(base_url=stage.url, timeout=60) as http:
        yield Served(stage.url, http, stage.hub)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Runs are written to the store at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "FLUSH_S", 0.01)
        yield


@pytest.fixture(scope="module")
def on_redis(redis: RedisServer) -> Iterator[Served]:
    with serving(redis_url=redis.url) as served:
        yield served


@pytest.fixture(scope="module")
def in_memory() -> Iterator[tuple[Served, MemoryRunStore]]:
    store = MemoryRunStore(ttl_s=600, max_bytes=2**30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "open_run_store", lambda _: store)
        with serving() as served:
            patch.undo()  # Other gateways of this module open theirs.
            yield served, store


def asked(stage: Served) -> str:
    """The id of a run that is stored whole."""
    answer = stage.http.post("/v1/research", json=QUESTION, headers=OWN)
    run_id = answer.headers["x-run-id"]
    stage.wait_until_stored(run_id)
    return run_id


def listed(stage: Served) -> list[str]:
    answer = stage.http.get("/v1/research", params={"limit": 1}, headers=OWN)
    found: list[str] = []
    while True:
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [run["id"] for run in page["data"]]
        if not page["has_more"]:
            return found
        after = {"limit": 1, "after": page["last_id"]}
        answer = stage.http.get("/v1/research", params=after, headers=OWN)


def followed(stage: Served, run_id: str, after: int = -1) -> list[dict[str, Any]]:
    answer = stage.http.get(f"/v1/research/{run_id}/events", params={"after": after}, headers=OWN)
    assert answer.status_code == 200
    return [json.loads(data) for data in sse_payloads(answer.text)]


def assert_refused(stage: Served, run_id: str, *, stream: bool = True) -> None:
    """Every route that needs the run says that it can't be read."""
    http, path = stage.http, f"/v1/research/{run_id}"
    answers = [
        http.get(path, headers=OWN),
        http.post(f"{path}/cancel", headers=OWN),
        http.post("/v1/research/replay", json={"run_id": run_id}, headers=OWN),
        http.post("/v1/research", json={**QUESTION, "previous_run_id": run_id}, headers=OWN),
        *([http.get(f"{path}/events", headers=OWN)] if stream else []),
    ]
    for answer in answers:
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "run_unreadable"
        assert run_id in answer.json()["error"]["message"]


def assert_deleted(stage: Served, run_id: str) -> None:
    foreign = stage.http.delete(f"/v1/research/{run_id}", headers=TENANT)
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "run_not_found")
    deleted = stage.http.delete(f"/v1/research/{run_id}", headers=OWN)
    assert (deleted.status_code, deleted.json()["deleted"]) == (200, True)
    gone = stage.http.get(f"/v1/research/{run_id}", headers=OWN)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "run_not_found")
    assert run_id not in listed(stage)


def assert_exported(stage: Served, ids: list[str], output: Path) -> None:
    config = ExportConfig(output=output, url=stage.url, api_key=KEY)
    export(config, progress=False)
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == ids


def told(caplog: pytest.LogCaptureFixture, run_id: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if run_id in record.getMessage()]


@dataclass
class Kept:
    """A stored run, to be spoilt."""

    redis: Redis
    run_id: str

    def key(self, part: str) -> str:
        return f"sr1:run:{{{self.run_id}}}:{part}"

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.redis.get(self.key("state")))  # type: ignore[arg-type]
        return state

    def put(self, part: str, data: bytes) -> None:
        self.redis.set(self.key(part), data)


Spoilt = tuple[Served, Kept, list[str]]


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        fields = json.loads(data)
        change(fields)
        return json.dumps(fields).encode()

    return edit


def constant(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


ANY_JSON: dict[str, Callable[[bytes], bytes]] = {
    "garbage": constant(b"\x00\xff garbage"),
    "null": constant(b"null"),
    "no fields": constant(b"{}"),
    "a list": constant(b"[]"),
    "a string": constant(b'"run"'),
    "a number": constant(b"1e999"),
    "no UTF-8": constant(b'{"meta": "\xff"}'),
    "deep": constant(b"[" * 100_000),
    "deep object": constant(b'{"meta":' * 50_000),
    "cut off": lambda data: data[: len(data) // 2],
    "twice": lambda data: data + data,
}
STATES = ANY_JSON | {
    "no meta": edited(lambda state: state.pop("meta")),
    "meta is null": edited(lambda state: state.update(meta=None)),
    "no id": edited(lambda state: state["meta"].pop("id")),
    "no question": edited(lambda state: state["meta"].pop("question")),
    "another id": edited(lambda state: state["meta"].update(id="run_other")),
    "another kind of kind": edited(lambda state: state["meta"].update(kind=7)),
    "question is a number": edited(lambda state: state["meta"].update(question=7)),
    "created is text": edited(lambda state: state["meta"].update(created="yesterday")),
    "request is a list": edited(lambda state: state["meta"].update(request=[])),
    "status is null": edited(lambda state: state.update(status=None)),
    "an unknown status": edited(lambda state: state.update(status="paused")),
    "answer is an object": edited(lambda state: state.update(answer={})),
    "newer": edited(lambda state: state["meta"]["request"].update(store_version=2)),
    "version is text": edited(lambda state: state["meta"]["request"].update(store_version="x")),
    "half a surrogate": lambda data: data.replace(b'"model":"', b'"model":"\\ud800'),
    "huge": constant(b" " * (MAX_STATE_BYTES + 1)),
}
RECORDS = ANY_JSON | {
    "no id": edited(lambda run: run.pop("id")),
    "no usage": edited(lambda run: run.pop("usage")),
    "another id": edited(lambda run: run.update(id="run_other")),
    "status is a number": edited(lambda run: run.update(status=1)),
    "steps are text": edited(lambda run: run.update(steps="none")),
    "newer": edited(lambda run: run["trajectory"].update(schema_version=2)),
    "ids are text": edited(lambda run: run["trajectory"]["segments"][0].update(token_ids=["x"])),
}
DEFLATED: dict[str, Callable[[bytes], bytes]] = {
    "not deflated": zlib.decompress,
    "deflated in part": lambda data: data[:-5],
    "bits turned": lambda data: data[:40] + bytes(255 - byte for byte in data[40:60]) + data[60:],
    "a bomb": constant(zlib.compress(b"\x00" * (4 * MAX_RECORD_BYTES), 9)),
    "a bomb in a record": lambda data: zlib.compress(
        zlib.decompress(data)[:-1] + b',"x":"' + b"x" * MAX_RECORD_BYTES + b'"}'
    ),
}
EVENTS: dict[str, Callable[[bytes], bytes]] = {
    name: change for name, change in ANY_JSON.items() if name not in ("cut off", "twice")
} | {
    "no seq": edited(lambda event: event.pop("seq")),
    "another seq": edited(lambda event: event.update(seq=99)),
    "another run": edited(lambda event: event.update(run_id="run_other")),
    "no type": edited(lambda event: event.pop("type")),
    "turn is text": edited(lambda event: event.update(turn="x")),
}


@pytest.fixture
def spoilt(redis: RedisServer, on_redis: Served) -> Iterator[tuple[Served, Kept, list[str]]]:
    """A gateway with three runs, of which the middle one is to be spoilt, and the ids of all, newest first."""
    with redis.client() as client:
        client.flushall()
        ids = [asked(on_redis) for _ in range(3)]
        yield on_redis, Kept(client, ids[1]), ids[::-1]


@pytest.mark.parametrize("form", STATES)
def test_a_state_that_cannot_be_read(
    form: str, spoilt: Spoilt, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    stage, kept, ids = spoilt
    kept.put("state", STATES[form](json.dumps(kept.state(), separators=(",", ":")).encode()))
    others = [run_id for run_id in ids if run_id != kept.run_id]
    with caplog.at_level(logging.WARNING):
        assert listed(stage) == others
        assert_refused(stage, kept.run_id)
        assert listed(stage) == others
    assert len(told(caplog, kept.run_id)) == 1
    assert_exported(stage, others, tmp_path / "runs.jsonl")
    assert_deleted(stage, kept.run_id)
    assert kept.redis.keys(f"*{kept.run_id}*") == []


@pytest.mark.parametrize("part", ["state", "record", "log"])
def test_a_key_that_holds_something_else(part: str, spoilt: Spoilt) -> None:
    stage, kept, ids = spoilt
    kept.redis.delete(kept.key(part))
    kept.redis.sadd(kept.key(part), "x")
    if part == "log":
        assert (followed(stage, kept.run_id))[-1]["error"]["code"] == "run_unreadable"
    else:
        assert_refused(stage, kept.run_id, stream=part == "state")
    assert len(listed(stage)) == len(ids) - (part == "state")
    assert_deleted(stage, kept.run_id)


@pytest.mark.parametrize("form", [*RECORDS, *DEFLATED])
def test_a_record_that_cannot_be_read(
    form: str, spoilt: Spoilt, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    stage, kept, ids = spoilt
    record: bytes = kept.redis.get(kept.key("record"))  # type: ignore[assignment]
    if form in DEFLATED:
        kept.put("record", DEFLATED[form](record))
    else:
        kept.put("record", zlib.compress(RECORDS[form](zlib.decompress(record))))
    with caplog.at_level(logging.WARNING):
        assert_refused(stage, kept.run_id, stream=False)
    assert len(told(caplog, kept.run_id)) == 1
    assert (followed(stage, kept.run_id))[-1]["type"] == "run.completed"
    assert listed(stage) == ids
    assert_exported(stage, [one for one in ids if one != kept.run_id], tmp_path / "runs.jsonl")
    assert_deleted(stage, kept.run_id)


def spoil_entry(kept: Kept, change: Callable[[dict[bytes, bytes]], object], *, at: int = -1) -> None:
    """Write a run's log again with one entry changed."""
    log = kept.key("log")
    entries: Any = kept.redis.xrange(log)
    kept.redis.delete(log)
    for number, (entry_id, fields) in enumerate(entries):
        if number == at % len(entries):
            change(fields)
        kept.redis.xadd(log, fields, id=entry_id)


LOGS: dict[str, Callable[[Kept], object]] = {
    "gone": lambda kept: kept.redis.delete(kept.key("log")),
    "newer": lambda kept: spoil_entry(kept, lambda fields: fields.update({b"v": b"2"})),
    "version is text": lambda kept: spoil_entry(kept, lambda fields: fields.update({b"v": b"x"})),
    "no events": lambda kept: spoil_entry(kept, lambda fields: fields.update({b"x": fields.pop(b"e")})),
    "the last one is gone": lambda kept: spoil_entry(
        kept, lambda fields: fields.update({b"e": fields[b"e"].rpartition(b"\n")[0]})
    ),
}


def assert_stream_ends(stage: Served, run_id: str) -> None:
    """A reader from any place gets a terminal event, gaplessly; one that is past it gets nothing."""
    events = followed(stage, run_id)
    assert events[-1]["type"] == "run.failed"
    assert events[-1]["error"]["code"] == "run_unreadable"
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "run.started"
    assert (followed(stage, run_id, after=1))[-1]["type"] == "run.failed"


@pytest.mark.parametrize("form", [*LOGS, *EVENTS])
def test_a_log_that_cannot_be_read_in_redis(form: str, spoilt: Spoilt) -> None:
    stage, kept, ids = spoilt
    if form in LOGS:
        LOGS[form](kept)
    else:

        def spoil(fields: dict[bytes, bytes]) -> None:
            head, _, last = fields[b"e"].rpartition(b"\n")
            fields[b"e"] = head + b"\n" + EVENTS[form](last).replace(b"\n", b" ")

        spoil_entry(kept, spoil)
    assert_stream_ends(stage, kept.run_id)
    assert (stage.http.get(f"/v1/research/{kept.run_id}", headers=OWN)).status_code == 200
    kept.redis.delete(kept.key("record"))
    assert_refused(stage, kept.run_id, stream=False)
    assert listed(stage) == ids
    assert_deleted(stage, kept.run_id)


@pytest.mark.parametrize("form", RECORDS)
def test_a_record_in_memory_that_cannot_be_read(form: str, in_memory: tuple[Served, MemoryRunStore]) -> None:
    stage, store = in_memory
    run_id = asked(stage)
    kept = store._runs[run_id]
    assert kept.record is not None
    kept.record = RECORDS[form](kept.record)
    assert_refused(stage, run_id, stream=False)
    assert listed(stage)[0] == run_id
    assert_deleted(stage, run_id)


@pytest.mark.parametrize("form", EVENTS)
def test_a_log_in_memory_that_cannot_be_read(form: str, in_memory: tuple[Served, MemoryRunStore]) -> None:
    stage, store = in_memory
    run_id = asked(stage)
    events = store._runs[run_id].events
    events[-1] = EVENTS[form](events[-1])
    assert_stream_ends(stage, run_id)
    assert_deleted(stage, run_id)


RESPONSE_REQUESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda request: request.clear(),
    "no fields": lambda request: request.pop("fields"),
    "fields are null": lambda request: request.update(fields=None),
    "no reasoning": lambda request: request["fields"].pop("reasoning"),
    "no background": lambda request: request["fields"].pop("background"),
    "input is text": lambda request: request.update(input="x"),
    "items without id": lambda request: request.update(input=[{}]),
    "turns are objects": lambda request: request.update(turns=[{}]),
    "turns of three": lambda request: request.update(turns=[["a", "b", "c"]]),
    "include is null": lambda request: request.update(include=None),
}


@pytest.mark.parametrize("form", RESPONSE_REQUESTS)
def test_a_response_whose_request_cannot_be_read(form: str, redis: RedisServer, on_redis: Served) -> None:
    stage = on_redis
    http, body = stage.http, {"model": "test-model", "input": "Mali?"}
    made = (http.post("/v1/responses", json=body, headers=OWN)).json()["id"]
    with redis.client() as client:
        stage.wait_until_stored(made)
        kept = Kept(client, made)
        state = kept.state()
        RESPONSE_REQUESTS[form](state["meta"]["request"])
        kept.put("state", json.dumps(state).encode())
    path = f"/v1/responses/{made}"
    for answer in (
        http.get(path, headers=OWN),
        http.get(path, params={"stream": "true"}, headers=OWN),
        http.post(f"{path}/cancel", headers=OWN),
        http.get(f"{path}/input_items", headers=OWN),
        http.post("/v1/responses", json={**body, "previous_response_id": made}, headers=OWN),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "run_unreadable"), answer.text
    assert (http.delete(path, headers=OWN)).json()["deleted"] is True


def restore(client: Redis) -> None:
    """Put what the release before wrote into Redis."""
    for name, run in BEFORE.items():
        if name == "listings":
            for listing, members in run.items():
                client.zadd(listing, dict(members))
            continue
        kept = Kept(client, run["id"])
        kept.put("state", b64decode(run["state"]))
        kept.put("record", b64decode(run["record"]))
        for entry_id, fields in run["log"]:
            client.xadd(kept.key("log"), {field: b64decode(data) for field, data in fields.items()}, id=entry_id)


def test_what_the_release_before_wrote_is_read(redis: RedisServer, on_redis: Served) -> None:
    stage = on_redis
    with redis.client() as client:
        client.flushall()
        restore(client)
    for name, headers, kind in (
        ("tenant_run", TENANT, "research"),
        ("key_run", OWN, "research"),
        ("tenant_response", TENANT, "responses"),
    ):
        path = f"/v1/{kind}/{BEFORE[name]['id']}"
        answer = stage.http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
        other = OWN if headers is TENANT else TENANT
        assert (stage.http.get(path, headers=other)).status_code == 404
    run_id = BEFORE["tenant_run"]["id"]
    replayed = stage.http.post("/v1/research/replay", json={"run_id": run_id}, headers=TENANT)
    assert replayed.json()["answer"] == "West African CFA franc"
    page = (stage.http.get("/v1/research", headers=TENANT)).json()
    assert run_id in [run["id"] for run in page["data"]]
    assert (followed(stage, BEFORE["key_run"]["id"]))[-1]["type"] == "run.completed"
    assert (stage.http.delete(f"/v1/research/{run_id}", headers=TENANT)).status_code == 200


def test_fields_and_events_of_a_later_release_are_read_past(spoilt: Spoilt) -> None:
    stage, kept, ids = spoilt
    state = kept.state()
    state["more"], state["meta"]["more"], state["meta"]["request"]["more"] = 1, {"a": []}, None
    kept.put("state", json.dumps(state).encode())
    record = json.loads(zlib.decompress(kept.redis.get(kept.key("record"))))  # type: ignore[arg-type]
    record["more"], record["trajectory"]["more"], record["usage"]["more"] = 1, 2, 3
    kept.put("record", zlib.compress(json.dumps(record).encode()))

    def change(fields: dict[bytes, bytes]) -> None:
        events = [json.loads(line) for line in fields[b"e"].split(b"\n")]
        events[1] |= {"type": "thought.pruned", "more": [1]}
        fields[b"e"] = b"\n".join(json.dumps({**event, "extra": 1}).encode() for event in events)
        fields[b"more"] = b"x"

    spoil_entry(kept, change)
    run = stage.http.get(f"/v1/research/{kept.run_id}", headers=OWN)
    assert (run.status_code, run.json()["status"]) == (200, "completed")
    events = followed(stage, kept.run_id)
    assert events[-1]["type"] == "run.completed"
    assert "thought.pruned" in [event["type"] for event in events]
    assert listed(stage) == ids


def test_every_part_says_its_version(spoilt: Spoilt) -> None:
    _, kept, _ids = spoilt
    assert kept.state()["meta"]["request"]["store_version"] == 1
    record = json.loads(zlib.decompress(kept.redis.get(kept.key("record"))))  # type: ignore[arg-type]
    assert record["trajectory"]["schema_version"] == 1
    entries: Any = kept.redis.xrange(kept.key("log"))
    for _, fields in entries:
        assert fields[b"v"] == b"1"
