"""The check of search: each provider opens, and answers one cheap search."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from searchr1.errors import SearchR1Error
from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.retrieval.base import SearchFailed
from searchr1.retrieval.config import SearchConfig
from searchr1.retrieval.factory import parse_chain
from searchr1.retrieval.registry import ProviderSpec, key_variable, open_provider

_QUERY: Final = "Bamako"
_FIXES: Final = {
    "timeout": "see whether it is up and near; SEARCHR1_SEARCH_TIMEOUT_S bounds a search",
    "unavailable": "see whether it is up, and its address is right",
    "rate_limited": "wait, or raise the plan's limit; SEARCHR1_SEARCH_RATE_PER_S holds searches below it",
    "bad_response": "see whether the address is that of the API",
}


async def examine_providers(config: SearchConfig, *, search: bool) -> Sequence[Finding]:
    """Return a finding for each provider; without ``search`` those that are not of this machine are only opened."""
    return await asyncio.gather(*(_examined(spec, config, search=search) for spec in parse_chain(config)))


async def _examined(spec: ProviderSpec, config: SearchConfig, *, search: bool) -> Finding:
    check = f"search {spec.kind}"
    try:
        async with open_provider(spec) as retriever:
            if not (search or spec.is_local):
                return ok(check, "not searched (--no-search)")
            started = time.perf_counter()
            outcome = await retriever.search(_QUERY, 1, config.timeout_s)
            took_ms = 1000 * (time.perf_counter() - started)
    except SearchR1Error as error:
        return wrong(check, str(error), f"correct SEARCHR1_RETRIEVER, or {key_variable(spec.kind)}")
    if isinstance(outcome, SearchFailed):
        fix = _FIXES.get(outcome.kind, f"check {key_variable(spec.kind)} and the plan behind it")
        return wrong(check, outcome.message, fix)
    if not outcome.passages:
        return warning(check, f"it answers in {took_ms:.0f} ms, and finds nothing for {_QUERY!r}", "see what it holds")
    return ok(check, f"it answers in {took_ms:.0f} ms")
