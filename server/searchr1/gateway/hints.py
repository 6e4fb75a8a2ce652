"""Hints for clients whose base URL lacks the API's prefix, or has it twice."""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match

_API = "/v1"
_CHAT = f"{_API}/chat/completions"


def suggestion(path: str, method: str, routes: Iterable[BaseRoute]) -> str | None:
    """Return the path of the API that ``path``, at which there is nothing, was likely meant to be."""
    tail = path.rpartition(f"{_API}/")[2].lstrip("/")
    if tail == "completions":
        return _CHAT
    meant = f"{_API}/{tail}"
    scope = {"type": "http", "path": meant, "method": method, "root_path": ""}
    if meant != path and any(route.matches(scope)[0] is Match.FULL for route in routes):
        return meant
    return None
