"""Where a pool's servers are: addresses that are written down, a DNS name, or a Kubernetes service."""

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

import aiohttp
import msgspec

from searchr1.engines.factory import SEVERAL
from searchr1.engines.vllm.address import ServerAddress
from searchr1.engines.vllm.exchange import start_of_body
from searchr1.errors import ConfigurationError, EngineUnavailableError

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_API_TIMEOUT_S: Final = 5.0
_MAX_API_BYTES: Final = 16 * 2**20


class Discovery(Protocol):
    """A source of addresses."""

    @property
    def changes(self) -> bool:
        """Whether it is worth asking again."""
        ...

    async def addresses(self) -> frozenset[str]:
        """Return the servers' addresses as they are now. Raises ``EngineUnavailableError`` where they can't be had."""
        ...


@dataclass(frozen=True)
class Static:
    """Addresses that are written down."""

    urls: frozenset[str]
    changes: bool = False

    async def addresses(self) -> frozenset[str]:
        """See ``Discovery``."""
        return self.urls


@dataclass(frozen=True)
class DnsName:
    """Every address that a name resolves to, such as that of a headless service: ``dns+http://name:8000``."""

    url: SplitResult = field(repr=False)
    """The address by its name, ``http``."""
    changes: bool = True

    async def addresses(self) -> frozenset[str]:
        """See ``Discovery``."""
        host, port = self.url.hostname or "", self.url.port or 80
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise EngineUnavailableError(f"the name {host} can't be resolved: {error}", passing=True) from error
        # A server with addresses of both kinds is one server.
        family = socket.AF_INET if any(where[0] == socket.AF_INET for where in found) else socket.AF_INET6
        hosts = {str(where[4][0]) for where in found if where[0] == family}
        return frozenset(self._with_host(f"[{one}]" if ":" in one else one, port) for one in hosts)

    def _with_host(self, host: str, port: int) -> str:
        credentials, at, _ = self.url.netloc.rpartition("@")
        return self.url._replace(netloc=f"{credentials}{at}{host}:{port}").geturl()


class _Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None


class _Endpoint(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: _Conditions = _Conditions()


class _Port(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class _Slice(msgspec.Struct, frozen=True):
    endpoints: tuple[_Endpoint, ...] | None = ()
    ports: tuple[_Port, ...] | None = ()


class _Slices(msgspec.Struct, frozen=True):
    items: tuple[_Slice, ...] = ()


@dataclass(frozen=True)
class KubernetesService:
    """The ready endpoints of a service, from the cluster's API: ``k8s://namespace/service:port``.

    The port is a number, or the name of one of the service's. The pod's service account must be allowed to list
    ``endpointslices`` of the namespace.
    """

    namespace: str
    service: str
    port: str
    account: Path = _ACCOUNT
    """Folder with ``token`` and ``ca.crt``."""
    api: str = ""
    """The API's address; by default the one that Kubernetes puts into each pod's environment."""
    changes: bool = True

    async def addresses(self) -> frozenset[str]:
        """See ``Discovery``."""
        url = f"{self._api()}/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        try:
            # Read each time: Kubernetes renews it.
            token = (await asyncio.to_thread((self.account / "token").read_text, "utf-8")).strip()
            timeout = aiohttp.ClientTimeout(total=_API_TIMEOUT_S)
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(
                    url,
                    params={"labelSelector": f"kubernetes.io/service-name={self.service}"},
                    headers={"Authorization": f"Bearer {token}"},
                    ssl=self._tls(),
                    allow_redirects=False,
                ) as response,
            ):
                if response.status != 200:
                    raise EngineUnavailableError(
                        f"the Kubernetes API answered {response.status} for the endpoints of {self.service}",
                        passing=True,
                    )
                body = await start_of_body(response, _MAX_API_BYTES)
            found = msgspec.json.decode(body, type=_Slices)
        except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
            reason = str(error) or type(error).__name__
            raise EngineUnavailableError(f"the Kubernetes API can't be asked: {reason}", passing=True) from error
        return frozenset(url for one in found.items for url in self._urls(one))

    def _urls(self, found: _Slice) -> list[str]:
        ports = [one.port for one in found.ports or () if one.port and self.port in (one.name, str(one.port))]
        port = ports[0] if ports else int(self.port) if self.port.isdecimal() else None
        if port is None:
            return []
        hosts = [
            address
            for endpoint in found.endpoints or ()
            if endpoint.conditions.ready is not False
            for address in endpoint.addresses[:1]
        ]
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in hosts]

    def _api(self) -> str:
        if self.api:
            return self.api
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise EngineUnavailableError("k8s:// addresses work inside a cluster alone: there is no Kubernetes here")
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    def _tls(self) -> ssl.SSLContext | bool:
        ca = self.account / "ca.crt"
        return ssl.create_default_context(cafile=str(ca)) if ca.is_file() else True


def discovery_of(urls: tuple[str, ...]) -> Discovery:
    """Return what finds the servers at ``urls``: several addresses, or one that stands for several.

    Raises:
        ConfigurationError: an address can't be used, or one that stands for several is not the only one.
    """
    special = [url for url in urls if url.startswith(SEVERAL)]
    if not special:
        for url in urls:
            ServerAddress.parse(url)
        return Static(frozenset(urls))
    if len(urls) > 1:
        raise ConfigurationError("an engine address that stands for several servers must be the only one")
    [url] = special
    if url.startswith("k8s://"):
        return _kubernetes(url)
    address = url.removeprefix("dns+")
    ServerAddress.parse(address)
    return DnsName(urlsplit(address))


def _kubernetes(url: str) -> KubernetesService:
    namespace, _, rest = url.removeprefix("k8s://").partition("/")
    service, _, port = rest.partition(":")
    if not all(part.replace("-", "").isalnum() and part.isascii() for part in (namespace, service, port)):
        raise ConfigurationError("the engine's address must be k8s://NAMESPACE/SERVICE:PORT")
    return KubernetesService(namespace, service, port)
