"""The examination of what a gateway would need, before it starts: ``searchr1 doctor``.

Each part is looked at by itself and at the same time as the others; one that breaks or hangs becomes a finding.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from searchr1.errors import ConfigurationError
from searchr1.gateway.access.exposure import check_exposure
from searchr1.gateway.doctor.api_keys import examine_keys
from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.gateway.doctor.machine import examine_machine
from searchr1.gateway.doctor.model_and_engine import examine_engine
from searchr1.gateway.doctor.providers import examine_providers
from searchr1.gateway.doctor.redis_server import examine_redis
from searchr1.models_file import model_configs
from searchr1.settings import Settings

_PART_S: Final = 60.0
"""Seconds for one part."""


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    examine: Callable[[], Awaitable[Sequence[Finding]]]


async def examine(settings: Settings, warnings: Sequence[str], *, search: bool = True) -> list[Finding]:
    """Return all findings, in a fixed order. ``warnings`` are of the settings; without ``search`` none is sent."""
    found = _of_settings(settings, warnings)
    try:
        models = model_configs(settings)
    except ConfigurationError as error:
        found.append(wrong("settings", str(error), "correct the file of models"))
        models = model_configs(settings.model_copy(update={"models_file": None}))
    parts = [
        _Part("keys", lambda: examine_keys(settings)),
        *(_engine_part(model.settings, many=len(models) > 1) for model in models),
        _Part("redis", lambda: examine_redis(settings)),
        _Part("search", lambda: examine_providers(settings.search(), search=search)),
        _Part("machine", lambda: examine_machine(settings)),
    ]
    for findings in await asyncio.gather(*map(_bounded, parts)):
        found += findings
    return found


def _engine_part(settings: Settings, *, many: bool) -> _Part:
    name = f"engine of {settings.public_name}" if many else "engine"
    return _Part(name, lambda: examine_engine(settings, name))


def _of_settings(settings: Settings, warnings: Sequence[str]) -> list[Finding]:
    try:
        check_exposure(settings, os.environ)
    except ConfigurationError as error:
        return [wrong("settings", str(error), "give the server keys, or keep it on this machine")]
    if not warnings:
        return [ok("settings", "they can work together")]
    return [warning("settings", told, "see docs/reference/settings.md") for told in warnings]


async def _bounded(part: _Part) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(_PART_S):
            return await part.examine()
    except TimeoutError:
        return [wrong(part.name, f"nothing came of it within {_PART_S:g} s", "see whether what it asks is overloaded")]
    except ConfigurationError as error:
        return [wrong(part.name, str(error), "correct the setting")]
    except Exception as error:  # noqa: BLE001 (one part that breaks must not hide what the others found)
        return [wrong(part.name, f"the check itself broke: {error!r}", "please report this")]
