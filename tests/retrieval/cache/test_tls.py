"""The cache over real TLS: to a Redis that proves who it is, and never to one that does not."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from searchr1.redis_client import open_redis
from searchr1.retrieval.base import Found
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.cache.store import StoreError
from tests.retrieval.cache.fakes import make
from tests.retrieval.cache.test_topologies import UNHURRIED, keys_on, until_hit
from tests.support.redis_server import RedisServer, free_redis_port, run_cluster, run_redis
from tests.support.tls_proxy import Proxy, run_proxy

pytestmark = pytest.mark.redis

CA, OTHER_CA = trustme.CA(), trustme.CA()
LONG_AGO = datetime.datetime(2020, 1, 1)
USER, PASSWORD = "app", "hunter2"
_HANDSHAKE = b"\x16\x03"
"""First byte of a client that speaks TLS: a record of type handshake."""


@dataclass(frozen=True)
class Line:
    """The connection between the cache and Redis: ``wire`` sees what is sent, ``tls`` what was meant by it."""

    wire: Proxy
    tls: Proxy

    def url(self, options: str) -> str:
        return f"rediss://{USER}:{PASSWORD}@127.0.0.1:{self.wire.port}{options}"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with run_redis(f"user {USER} on >{PASSWORD} ~* +@all") as server:
        yield server


@pytest.fixture(autouse=True)
def empty(redis: RedisServer) -> None:
    with redis.client() as client:
        client.flushall()


@pytest.fixture
def ca_path(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return str(path)


@contextlib.asynccontextmanager
async def line(redis: RedisServer, cert: trustme.LeafCert) -> AsyncIterator[Line]:
    async with run_proxy(redis.port, cert=cert) as tls, run_proxy(tls.port) as wire:
        yield Line(wire, tls)


async def test_the_cache_works_over_tls_and_nothing_is_sent_in_the_clear(redis: RedisServer, ca_path: str) -> None:
    async with line(redis, CA.issue_cert("127.0.0.1")) as between:
        clients = [open_redis(between.url(f"?ssl_ca_certs={ca_path}")) for _ in range(2)]
        one, other = (make(RedisStore(client), **UNHURRIED) for client in clients)
        for number in range(10):
            assert (await one.found(f"q {number}")).cache == "miss"
            assert (await other.found(f"q {number}")).cache == "hit"
        for cache, client in zip((one, other), clients, strict=True):
            assert "bypass" not in cache.events.counts
            await cache.retriever.aclose()
            await client.aclose()
    assert keys_on(redis) == 10
    for secret in (PASSWORD.encode(), b"sr1:search:"):
        assert secret in between.tls.seen
        assert secret not in between.wire.seen


@pytest.mark.parametrize(
    ("cert", "trusts", "code"),
    [
        pytest.param(OTHER_CA.issue_cert("127.0.0.1"), CA, 20, id="unknown authority"),
        pytest.param(CA.issue_cert("127.0.0.1"), None, 20, id="authority that no one named"),
        pytest.param(CA.issue_cert("127.0.0.2"), CA, 64, id="address of another"),
        pytest.param(CA.issue_cert("localhost"), CA, 64, id="name of another"),
        pytest.param(CA.issue_cert("127.0.0.1", not_after=LONG_AGO), CA, 10, id="expired"),
    ],
)
async def test_a_server_that_does_not_prove_who_it_is_gets_nothing(
    redis: RedisServer, cert: trustme.LeafCert, trusts: trustme.CA | None, code: int, ca_path: str
) -> None:
    async with line(redis, cert) as between:
        await assert_refused(between.url(f"?ssl_ca_certs={ca_path}" if trusts else ""), code)
    assert between.wire.seen.startswith(_HANDSHAKE)
    assert PASSWORD.encode() not in between.wire.seen
    assert not between.tls.seen
    assert keys_on(redis) == 0


async def test_a_name_is_compared_too(redis: RedisServer, ca_path: str) -> None:
    async with run_proxy(redis.port, cert=CA.issue_cert("localhost")) as right:
        client = open_redis(f"rediss://localhost:{right.port}?ssl_ca_certs={ca_path}")
        cache = make(RedisStore(client), **UNHURRIED)
        await cache.found()
        assert (await cache.found()).cache == "hit"
        await cache.retriever.aclose()
        await client.aclose()
    async with run_proxy(redis.port, cert=CA.issue_cert("cache.example")) as wrong:
        await assert_refused(f"rediss://localhost:{wrong.port}?ssl_ca_certs={ca_path}", 62)
    assert not wrong.seen


async def test_a_redis_without_tls_is_not_spoken_to_without_it(redis: RedisServer, ca_path: str) -> None:
    async with run_proxy(redis.port) as wire:
        await assert_refused(f"rediss://{USER}:{PASSWORD}@127.0.0.1:{wire.port}?ssl_ca_certs={ca_path}")
    assert wire.seen.startswith(_HANDSHAKE)
    assert PASSWORD.encode() not in wire.seen
    assert keys_on(redis) == 0


@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_a_file_without_authorities_is_not_made_up_for(
    redis: RedisServer, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    async with line(redis, CA.issue_cert("127.0.0.1")) as between:
        await assert_refused(between.url(f"?ssl_ca_certs={path}"))
    assert not between.tls.seen


async def test_a_lost_connection_is_made_anew_and_proves_itself_anew(redis: RedisServer, ca_path: str) -> None:
    good, bad = CA.issue_cert("127.0.0.1"), OTHER_CA.issue_cert("127.0.0.1")
    async with run_proxy(redis.port, cert=good) as first:
        client = open_redis(f"rediss://127.0.0.1:{first.port}?ssl_ca_certs={ca_path}")
        cache = make(RedisStore(client), cooldown_s=0.01, **UNHURRIED)
        await until_hit(cache, "before")
    async with run_proxy(redis.port, cert=bad, port=first.port) as impostor:
        cache.events.take()
        assert (await cache.found("before")).cache == "miss"
        assert cache.events.take()["bypass"] > 0
        assert not impostor.seen
    async with run_proxy(redis.port, cert=good, port=first.port):
        await until_hit(cache, "before")
        await cache.retriever.aclose()
        await client.aclose()


async def test_each_node_of_a_cluster_must_prove_who_it_is(ca_path: str) -> None:
    good, bad = CA.issue_cert("127.0.0.1"), OTHER_CA.issue_cert("127.0.0.1")
    ports = [free_redis_port() for _ in range(3)]
    with run_cluster(announced=ports) as nodes:
        async with contextlib.AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(run_proxy(node.port, cert=cert, port=port))
                for node, cert, port in zip(nodes, (good, good, bad), ports, strict=True)
            ]
            client = open_redis(f"rediss+cluster://127.0.0.1:{ports[0]}?ssl_ca_certs={ca_path}")
            cooldown_s = 0.01
            cache = make(RedisStore(client), cooldown_s=cooldown_s, **UNHURRIED)
            for number in range(20):
                assert isinstance(await cache.search(f"q {number}"), Found)
                await asyncio.sleep(2 * cooldown_s)
            assert cache.events.counts["bypass"] > 0
            await cache.retriever.aclose()
            await client.aclose()
        assert [bool(proxy.seen) for proxy in proxies] == [True, True, False]
        counts = [keys_on(node) for node in nodes]
        assert min(counts[:2]) > 0
        assert counts[2] == 0


async def assert_refused(url: str, code: int | None = None) -> None:
    """Searches must be answered past the cache; ``code`` is OpenSSL's for what is wrong with the certificate."""
    client = open_redis(url)
    cache = make(RedisStore(client), cooldown_s=0.01, **UNHURRIED)
    assert (await cache.found()).cache == "miss"
    assert cache.events.take()["bypass"] == 1
    with pytest.raises(StoreError) as caught:
        await RedisStore(client).get("key")
    reasons = [error.verify_code for error in causes(caught.value) if isinstance(error, ssl.SSLCertVerificationError)]
    assert set(reasons) == ({code} if code else set())
    assert PASSWORD not in str(caught.value)
    await cache.retriever.aclose()
    await client.aclose()


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    step: BaseException | None = error
    while step is not None:
        yield step
        step = step.__cause__ or step.__context__
