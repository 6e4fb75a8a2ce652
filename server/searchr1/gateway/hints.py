"""Hints for clients that miss a route: a base URL that lacks the prefix or has it twice, a method that is not taken."""

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

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


def methods_at(scope: Scope, routes: Iterable[BaseRoute]) -> list[str]:
    """Return the methods that the path in ``scope`` takes, by all routes that have it; HEAD where GET is taken."""
    methods = {
        method
        for route in routes
        if route.matches(scope)[0] is not Match.NONE
        for method in getattr(route, "methods", None) or ()
    }
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))
