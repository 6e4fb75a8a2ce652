"""A gateway that runs with known secrets, and meets failures: none of them is in anything that comes out."""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.paced_stack import paced_engine
from loadtests.processes import free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from tests.support.otlp_receiver import receiving
from tests.support.redis_server import RedisServer, run_redis

pytestmark = [pytest.mark.redis, pytest.mark.process]

NAMES = (
    "api_key",
    "tenant_key",
    "admin_key",
    "engine_password",
    "session_secret",
    "redis_password",
    "rewrite_key",
    "retriever_password",
    "tavily_key",
    "wrong_key",
)
SECRETS = {name: f"{name.replace('_', '-')}-{secrets.token_hex(12)}" for name in NAMES}
QUESTION = "Which currency is used in Mali?"
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/research", {"question": QUESTION}),
    ("/v1/research", {"question": QUESTION, "stream": True}),
    (
        "/v1/chat/completions",
        {
            "model": "paced",
            "messages": [
                {"role": "user", "content": "And in Chad?"},
                {"role": "assistant", "content": "The franc."},
                {"role": "user", "content": QUESTION},
            ],
        },
    ),
    ("/v1/responses", {"model": "paced", "input": QUESTION}),
]
SHOWN = ("/", "/docs", "/openapi.json", "/page.json", "/metrics", "/readyz", "/health", "/version", "/v1/models")


def forms(secret: str) -> Iterator[str]:
    """The secret, and what of it stands in a header of a name and a password whatever the name."""
    yield secret
    for padding in range(3):
        encoded = base64.b64encode(b"x" * padding + secret.encode()).decode()
        yield encoded[4:-4]


def found_in(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if any(form in text for form in forms(secret))]


def command_lines(pid: int) -> str:
    """What ``ps`` shows of a process and of all that it started."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, parent = re.match(r"(\d+) \(.*\) \S (\d+)", status.read_text("utf-8", "replace")).groups()  # type: ignore[union-attr]
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(parent), []).append(int(child))
    wanted, lines = [pid], []
    while wanted:
        one = wanted.pop()
        wanted += children.get(one, [])
        lines.append(Path(f"/proc/{one}/cmdline").read_text("utf-8", "replace"))
    assert len(lines) > 2, "the workers are among them"
    return "\n".join(lines)


def told(url: str) -> str:
    """All that clients are told, by those who may ask and by those who may not."""
    answers: list[httpx.Response] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for name in ("api_key", "tenant_key", "wrong_key"):
            headers = {"authorization": f"Bearer {SECRETS[name]}"}
            answers += [client.get(path, headers=headers) for path in SHOWN]
            answers += [client.post(path, json=body, headers=headers) for path, body in ASKED]
            answers.append(client.get("/v1/research", headers=headers))
            if answers[-1].is_success:
                ids = [run["id"] for run in answers[-1].json()["data"]]
                answers += [client.get(f"/v1/research/{one}", headers=headers) for one in ids]
                answers += [client.get(f"/v1/research/{one}/events", headers=headers) for one in ids]
            answers.append(client.get(f"/v1/nothing?key={SECRETS[name]}", headers=headers))
            answers.append(client.post("/admin/reload", json={"folder": "/"}, headers=headers))
        admin = {"authorization": f"Bearer {SECRETS['admin_key']}"}
        answers.append(client.get("/admin/replicas", headers=admin))
        answers.append(client.post("/admin/reload", json={"folder": "/"}, headers=admin))
    return "\n".join(f"{answer.status_code} {answer.headers} {answer.text}" for answer in answers)


def stored(redis: RedisServer) -> str:
    """All that is in Redis."""
    with redis.client() as client:
        keys = list(client.scan_iter())
        values = [client.dump(key) or b"" for key in keys]
    assert keys
    return b"\n".join([*keys, *values]).decode("latin-1")


def test_no_secret_comes_out(tmp_path: Path) -> None:
    files = {
        "searchr1_admin_key": SECRETS["admin_key"],
        "searchr1_tenant_keys": json.dumps({"acme": [SECRETS["tenant_key"]]}),
        "searchr1_engine_session_secret": SECRETS["session_secret"],
    }
    (tmp_path / "secrets").mkdir()
    for name, value in files.items():
        (tmp_path / "secrets" / name).write_text(value)
    port = free_port()
    with (
        run_redis(f"user gateway on >{SECRETS['redis_password']} ~* &* +@all") as redis,
        paced_engine(tmp_path, tokens_per_s=500, num_tokens=8, searches=1) as engine,
        receiving() as collector,
    ):
        address = engine.url.removeprefix("http://")
        environment = {
            "SEARCHR1_SECRETS_DIR": str(tmp_path / "secrets"),
            "SEARCHR1_API_KEYS": SECRETS["api_key"],
            "SEARCHR1_ENGINE": "vllm-pool",
            "SEARCHR1_ENGINE_URL": f"http://svc:{SECRETS['engine_password']}@{address}",
            "SEARCHR1_REDIS_URL": redis.url.replace("://", f"://gateway:{SECRETS['redis_password']}@"),
            "SEARCHR1_RETRIEVER": f"http://svc:{SECRETS['retriever_password']}@{address}/retrieve",
            "SEARCHR1_TAVILY_API_KEY": SECRETS["tavily_key"],
            "SEARCHR1_CONVERSATION": "rewrite",
            "SEARCHR1_REWRITE_URL": "http://127.0.0.1:9/v1",
            "SEARCHR1_REWRITE_MODEL": "m",
            "SEARCHR1_REWRITE_API_KEY": SECRETS["rewrite_key"],
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "SEARCHR1_TRACE_CONTENT": "1",
            "SEARCHR1_LOG_LEVEL": "debug",
            "SEARCHR1_ACCESS_LOG": "1",
            "SEARCHR1_DEADLINE_S": "3",
            "SEARCHR1_SHUTDOWN_GRACE_S": "2",
        }
        command = searchr1(
            *("serve", "--model", "paced", "--tokenizer", str(CHECKPOINT)), "--workers", "2", "--port", str(port)
        )
        log = tmp_path / "gateway.log"
        with running(command, port, ready="/readyz", log=log, environment=environment) as gateway:
            seen = {"answers": told(gateway.url), "ps": command_lines(gateway.pid), "Redis": stored(redis)}
            assert "Bamako" in seen["answers"]
            redis.kill()
            seen["answers without Redis"] = told(gateway.url)
        seen["log"] = log.read_text("utf-8")
        seen["traces"] = "\n".join(map(str, collector.spans))
    assert QUESTION in seen["traces"], "content is recorded, and keys are none"
    assert "keys are refused" in seen["log"]
    assert "/v1/research" in seen["log"]
    assert {where: found_in(text) for where, text in seen.items() if found_in(text)} == {}


def test_a_secret_that_comes_out_is_seen() -> None:
    basic = base64.b64encode(f"svc:{SECRETS['engine_password']}".encode()).decode()
    assert found_in(f"Authorization: Basic {basic}") == ["engine_password"]
    assert found_in(f"key={SECRETS['api_key']}") == ["api_key"]
    assert found_in("nothing") == []
