"""Where a vLLM server is and how to speak to it: an address as people write it, and the header that opens it."""

import base64
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from searchr1.errors import ConfigurationError

_API_PATH = re.compile(r"/v1(/(chat/)?completions|/models|/responses)?/*$")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's address without credentials, and the ``Authorization`` header for it."""

    url: str
    """Without credentials, ``/v1`` or a slash at its end."""
    authorization: str | None = None

    @classmethod
    def parse(cls, written: str, api_key: str | None = None) -> "ServerAddress":
        """Return the address that somebody has written: with or without ``/v1``, a slash at its end, ``http://``.

        A name and a password in it become a header. No error quotes any of it.

        Raises:
            ConfigurationError: it is no address of an HTTP server, the key can't stand in a header, or there is both a
                key and a password.
        """
        parts = _split(written.strip())
        user, password = parts.username, parts.password
        if user is None and password is None:
            authorization = None if api_key is None else f"Bearer {_header_value(api_key)}"
        elif api_key is not None:
            raise ConfigurationError("the engine has an API key and credentials in its address: leave out one")
        else:
            pair = f"{unquote(user or '')}:{unquote(password or '')}".encode()
            authorization = f"Basic {base64.b64encode(pair).decode()}"
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
        port = "" if parts.port is None else f":{parts.port}"
        path = _API_PATH.sub("", parts.path).rstrip("/")
        return cls(f"{parts.scheme}://{host}{port}{path}", authorization)


def _split(written: str) -> SplitResult:
    # ``urlsplit`` drops line breaks without a word.
    if not written or not written.isprintable() or " " in written:
        raise ConfigurationError("the engine's address is empty, or holds a space or a control character")
    try:
        parts = urlsplit(written if "://" in written else f"http://{written}")
        _ = parts.port
    except ValueError as error:
        # Its text may hold what stands before the host.
        raise ConfigurationError("the engine's address can't be read: write http://HOST:PORT") from error
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError("the engine's address is no HTTP address: write http://HOST:PORT")
    if not parts.hostname:
        raise ConfigurationError("the engine's address names no host: write http://HOST:PORT")
    if parts.query or parts.fragment:
        raise ConfigurationError("the engine's address ends at its path: leave out what follows '?' or '#'")
    return parts


def _header_value(key: str) -> str:
    """Return a key that can stand in a header. Raises ``ConfigurationError``, which does not quote it."""
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            "the engine's API key is empty, or holds a line break or a character that no HTTP header can carry"
        )
    return key
