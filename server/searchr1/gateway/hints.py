"""Hints for clients that miss a route: a base URL that lacks the prefix or has it twice, a method that is not taken."""

import re
from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

_API = "/v1"
_CHAT = f"{_API}/chat/completions"
_PARAMETER = re.compile(r"\{[^}]*\}")


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
    """Return the methods that the path in ``scope`` takes; HEAD where it takes GET.

    Of several templates that fit, the one with the most literal text counts: ``/v1/research/replay`` is no run's id.
    """
    by_path: dict[str, set[str]] = {}
    for route in routes:
        if isinstance(route, Route) and route.methods and route.matches(scope)[0] is not Match.NONE:
            by_path.setdefault(route.path, set()).update(route.methods)
    methods = by_path[max(by_path, key=_num_literal_chars)] if by_path else set()
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _num_literal_chars(path: str) -> int:
    return len(_PARAMETER.sub("", path))
