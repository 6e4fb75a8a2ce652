"""Bodies as JSON, within bounds on what reading and checking them may cost the event loop.

A body of allowed size can still hold half a million values, each of which is checked, and each wrong one becomes an
error of its own: seconds in which nothing else is served.
"""

import json
from collections.abc import Collection
from typing import Any

from searchr1.gateway.errors import ApiError, invalid

MAX_COMMAS = 100_000
"""Commas in a body, in text and between values. The longest recorded runs have a few ten thousands."""
MAX_COLONS = 20_000
"""Colons in a body, in text and in objects, which cost far more to build than numbers."""
MAX_VALUES = 10_000
"""Values in a body, without those in lists of numbers."""
MAX_KEYS = 512
"""Keys in one object."""
MAX_DEPTH = 200
"""Lists and objects in each other. What Python's own readers bear differs by thousands between its versions."""
_NUMBERS = frozenset({int, float})


def parse_body(body: bytes) -> Any:
    """Return the value that ``body`` spells.

    Raises:
        ApiError: 400 ``invalid_json`` for what is not JSON, or 400 ``too_many_values``.
    """
    if body.count(b",") > MAX_COMMAS or body.count(b":") > MAX_COLONS:
        raise _too_many()
    try:
        value = json.loads(body)
    except UnicodeDecodeError as error:
        raise _invalid("it is not UTF-8") from error
    except RecursionError as error:
        raise _invalid("it is nested too deep") from error
    except json.JSONDecodeError as error:
        raise _invalid(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:
        raise _invalid("a number in it is too long") from error
    _check_size(value)
    return value


def _check_size(value: Any) -> None:
    left = MAX_VALUES
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            inner = _inside(one)
            left -= len(inner)
            if left < 0:
                raise _too_many()
            below += [item for item in inner if isinstance(item, (dict, list))]
        if not below:
            return
        level = below
    raise _invalid("it is nested too deep")


def _inside(one: Any) -> Collection[Any]:
    if isinstance(one, dict):
        if len(one) > MAX_KEYS:
            raise _too_many()
        return one.values()
    return one if isinstance(one, list) and not _NUMBERS.issuperset(map(type, one)) else ()


def _invalid(why: str) -> ApiError:
    message = f'The body is not valid JSON: {why}. Send an object such as {{"question": "…"}}.'
    return invalid(message, code="invalid_json")


def _too_many() -> ApiError:
    return invalid(
        f"The body holds too many values: {MAX_VALUES}, and {MAX_KEYS} in one object, are taken. Send less.",
        code="too_many_values",
    )
