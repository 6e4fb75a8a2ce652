"""httpx clients of our own, whose settings come from the environment, and what is wrong with these."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from searchr1_client._errors import APIConnectionError

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
_URL_VARIABLES = ("SEARCHR1_URL", "SEARCHR1_BASE_URL")
"""Names of the variable that holds a server's address, the first one set wins; the second is an old one."""
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_PROXY_VARIABLES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

H = TypeVar("H", httpx.Client, httpx.AsyncClient)


def url_from_environment() -> str:
    """Return the address that SEARCHR1_URL holds, else that of a server on this machine."""
    return next(filter(None, map(os.environ.get, _URL_VARIABLES)), DEFAULT_BASE_URL)


def default_http_client(base_url: str | None = None, **options: Any) -> httpx.Client:
    """Return the ``httpx.Client`` that ``SearchR1`` would make for a server, with other ``options`` of httpx's.

    Proxies and certificates come from the environment, but for a server on this machine, which needs neither.

    Raises:
        APIConnectionError: a proxy or the certificates that the environment names can't be used.
    """
    return _made(httpx.Client, base_url, options)


def default_async_http_client(base_url: str | None = None, **options: Any) -> httpx.AsyncClient:
    """Return the ``httpx.AsyncClient`` that ``AsyncSearchR1`` would make; see ``default_http_client``."""
    return _made(httpx.AsyncClient, base_url, options)


def _made(kind: Callable[..., H], base_url: str | None, options: dict[str, Any]) -> H:
    local = _is_local(url_from_environment() if base_url is None else base_url)
    try:
        return kind(**{"trust_env": not local, **options})
    # A proxy's scheme, a package that it needs, its address, and the files of certificates.
    except (ValueError, ImportError, httpx.InvalidURL, OSError) as error:
        raise APIConnectionError(_told(error), retryable=False) from error


def _is_local(url: str) -> bool:
    try:
        return httpx.URL(url).host in _LOCAL_HOSTS
    except httpx.InvalidURL:  # told to the user by who checks the address
        return False


def _told(error: Exception) -> str:
    """Word what can't be used, by the names of variables: their values may hold passwords."""
    if isinstance(error, OSError):
        return f"the certificates of {_set(_CERTIFICATE_VARIABLES)} can't be read; correct or unset it"
    if isinstance(error, ImportError):
        return f"{_set(_PROXY_VARIABLES)} names a SOCKS proxy, which needs: pip install 'httpx[socks]'"
    return f"the proxy settings can't be used; correct or unset {_set(_PROXY_VARIABLES)}"


def _set(names: tuple[str, ...]) -> str:
    found = [name for one in names for name in (one, one.lower()) if os.environ.get(name)]
    return ", ".join(found) or " or ".join(names)
