"""Why Redis refuses: once in the log, without a password, and nowhere else."""

import asyncio
import logging

import pytest

from searchr1.redis_client import Outages, reason_of
from tests.gateway.conftest import eventually, running_stage
from tests.support.redis_server import run_redis

PASSWORD = "wrong-s3cret-password"


@pytest.mark.redis
@pytest.mark.parametrize(
    ("options", "login", "reason"),
    [
        (("requirepass right",), f":{PASSWORD}@", "invalid username-password"),
        (("requirepass right",), "", "Authentication required"),
        (("user default on nopass ~* +ping",), "", "permissions"),
    ],
)
async def test_the_log_says_why_redis_refuses(
    options: tuple[str, ...], login: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with run_redis() as server:
        from redis import Redis

        with server.client() as client, caplog.at_level(logging.INFO):
            assert isinstance(client, Redis)
            if options[0].startswith("requirepass"):
                client.config_set("requirepass", "right")
            else:
                client.execute_command("ACL", "SETUSER", "default", "-@all", "+ping")  # type: ignore[no-untyped-call]

            def lines() -> list[str]:
                return [r.getMessage() for r in caplog.records if r.getMessage().startswith("run store unreachable")]

            url = f"redis://{login}127.0.0.1:{server.port}"
            async with running_stage(redis_url=url) as stage:
                await eventually(lambda: bool(lines()))
                answers = [await stage.client.get("/v1/research/run_unknown") for _ in range(3)]
                await asyncio.sleep(1.2)  # two more heartbeats fail
            assert {answer.status_code for answer in answers} == {503}
            assert not any(reason in answer.text or PASSWORD in answer.text for answer in answers)
            told = [line for line in lines() if reason.lower() in line.lower()]
            assert told
            assert len(told) == len(set(told))
            assert PASSWORD not in caplog.text


def test_a_reason_quotes_no_argument_of_a_command() -> None:
    error = RuntimeError(f"unknown command 'AUTH', with args beginning with: '{PASSWORD}'")
    assert reason_of(error) == "RuntimeError: unknown command 'AUTH'"
    assert reason_of(TimeoutError()) == "TimeoutError"


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages("The store", logging.getLogger("searchr1.test"))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            outages.failed("read", "no route")
            outages.failed("write", "no route")
            outages.failed("write", "full")
            outages.worked("read")
        outages.worked("write")
        outages.worked("write")
        outages.failed("read", "no route")
    assert [record.getMessage() for record in caplog.records] == [
        "The store fails: no route",
        "The store fails: full",
        "The store works again",
        "The store fails: no route",
    ]
