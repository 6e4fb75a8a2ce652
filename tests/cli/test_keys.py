"""``searchr1 keys``: a key is made, shown once, listed and revoked."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.key_ring import KeyRing
from tests.gateway.threaded import threaded_stage


@pytest.fixture(autouse=True)
def _file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SEARCHR1_KEYS_IN_REDIS", "SEARCHR1_REDIS_URL", "SEARCHR1_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEARCHR1_KEYS_FILE", str(tmp_path / "keys.json"))


def keys(*words: str) -> Result:
    return CliRunner().invoke(app, ["keys", *words])


def made(*words: str) -> dict[str, Any]:
    done = keys("create", "--name", "batch", "--json", *words)
    assert done.exit_code == 0, done.output
    key: dict[str, Any] = json.loads(done.stdout)
    return key


def listed() -> list[dict[str, Any]]:
    done = keys("list", "--json")
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def failed(*words: str) -> str:
    done = keys(*words)
    assert done.exit_code != 0
    return str(done.exception) + re.sub(r"[│╭╮╰╯─\s]+", " ", done.output)


def test_standard_output_is_the_key_alone() -> None:
    done = keys("create", "--name", "batch")
    assert re.fullmatch(r"sr1_[a-z2-7]{16}_[a-z2-7]{52}\n", done.stdout)
    assert "not shown again" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_what_is_stored_knows_the_key_again(tmp_path: Path) -> None:
    key = made("--tenant", "acme", "--scopes", "read, infer", "--expires", "90d", "--concurrent", "2")
    reading = asyncio.run(KeyFile(tmp_path / "keys.json").read())
    assert reading is not None
    stored = KeyRing(reading.keys).match(key["key"].encode())
    assert stored is not None
    assert (stored.id, stored.tenant, stored.scopes) == (key["id"], "acme", ("infer", "read"))
    assert stored.expires_at == stored.created_at + 90 * 86_400
    assert stored.key_limits().concurrent_runs == 2


def test_a_revoked_key_stays_in_the_list() -> None:
    first, second = made(), made("--expires", "2999-01-31")
    done = keys("revoke", first["id"])
    assert (done.exit_code, done.stdout) == (0, f"{first['id']} (batch) is revoked.\n")
    assert {row["id"]: row["state"] for row in listed()} == {first["id"]: "revoked", second["id"]: "active"}
    assert keys("revoke", second["key"]).exit_code == 0  # A key that leaked is at hand as a whole.
    table = keys("list").stdout
    for key in (first, second):
        assert key["id"] in table
        assert key["key"].rpartition("_")[2] not in table + json.dumps(listed())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("revoke", "nope"), "'searchr1 keys list' shows them all"),
        (("create", "--name", "x", "--expires", "soon"), "neither 90d"),
        (("create", "--name", "x", "--expires", "2020-01-01"), "is over already"),
        (("create", "--name", "x", "--expires", "0d"), "is over already"),
        (("create", "--name", "x", "--scopes", "root"), "known: infer, read, admin"),
        (("create", "--name", "x", "--scopes", ","), "one or more of"),
        (("create", "--name", " "), "the name must be"),
        (("create", "--name", "x", "--tenant", "a\x1bb"), "the tenant must be"),
        (("create", "--name", "x", "--concurrent", "0"), "greater than or equal to 1"),
        (("create", "--name", "x", "--searches-per-window", "0"), "greater than or equal to 1"),
        (("list", "--in-redis"), "exclude each other"),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], told: str) -> None:
    made()
    assert told in failed(*words)
    assert len(listed()) == 1


def test_a_store_that_is_not_named_or_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'searchr1 keys create' makes it" in failed("list")
    monkeypatch.delenv("SEARCHR1_KEYS_FILE")
    done = keys("list")
    assert isinstance(done.exception, ConfigurationError)
    assert "SEARCHR1_KEYS_FILE" in str(done.exception)
    monkeypatch.setenv("SEARCHR1_KEYS_IN_REDIS", "1")
    assert "without SEARCHR1_REDIS_URL" in failed("list")


def test_a_gateway_tells_the_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = made()
    monkeypatch.setenv("SEARCHR1_ADMIN_KEY", "the-admin-key-of-the-test")
    with threaded_stage(keys_file=tmp_path / "keys.json", admin_key="the-admin-key-of-the-test") as stage:
        done = keys("list", "--url", stage.url, "--json")
        monkeypatch.setenv("SEARCHR1_ADMIN_KEY", "another")
        assert "does SEARCHR1_ADMIN_KEY hold" in failed("list", "--url", stage.url)
    [row] = json.loads(done.stdout)
    assert (row["id"], row["usage"]["requests"]) == (key["id"], 0)
