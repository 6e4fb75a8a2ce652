"""Headers that tell who asks and whom: the bearer token, and the host that a request is meant for."""

import re

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/\s]+)(:\d{1,5})?")


def bearer_token(authorization: str | None) -> bytes:
    """Return the token of an ``Authorization`` header, to be compared with keys; empty where there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def hostname(host: str) -> str | None:
    """Return a ``Host`` header without its port, in lower case; None where it is malformed."""
    match = _HOST.fullmatch(host.strip())
    return None if match is None else match[1].lower()
