"""Candidates: models that answer a share of another model's runs. A conversation stays with the one that it began with.

Whose run it is follows from a hash, so that every gateway, and the same one after a restart, says the same. Where a
share grows, whoever was with the candidate stays there.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from searchr1.gateway.runs.hub import scope_of
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import Services
from searchr1.identity import Caller
from searchr1.loop.conversation import Turn

NO_ROOM: Final = "it has no room"
"""The trouble of a candidate whose queue is full."""
TOO_SMALL: Final = "the prompt is larger than its KV cache"
"""The trouble of a candidate with a smaller engine."""


def model_for(
    services: Services, asked: str | None, caller: Caller, *, conversation: str, before: str | None = None
) -> ServedModel:
    """Return the model that answers a run which asks for the model called ``asked``: that one, or a candidate of it.

    A candidate whose engine is not well, or that has no room, gets nothing; that is counted and logged. What a
    candidate that is returned makes of the run is the caller's to count: ``count_share``.

    Args:
        services: the gateway's.
        asked: None asks for the default.
        caller: who asks.
        conversation: what is the same for all runs of a conversation, or else the run's id.
        before: the model that answered the conversation's last run, where that is known.

    Raises:
        ApiError: 404, no such model is served here.
    """
    model = services.models.named(asked)
    candidates = services.models.candidates_of(model)
    candidate = next((one for one in candidates if one.name == before), None)
    if candidate is None and before != model.name:
        candidate = _drawn(model, candidates, conversation)
    if candidate is None:
        return model
    if trouble := _trouble(services, candidate, caller):
        count_share(services, candidate, model, trouble=trouble)
        return model
    return candidate


def count_share(services: Services, candidate: ServedModel, model: ServedModel, *, trouble: str = "") -> None:
    """Count a run of a candidate's share. ``trouble`` says why it goes to ``model`` instead, which is logged."""
    services.metrics.candidate_requests.labels(candidate.name, "no" if trouble else "yes").inc()
    if trouble:
        services.refusals.note(f"the share of the candidate {candidate.name} goes to {model.name}: {trouble}")


def opening_of(turns: Sequence[Turn], caller: Caller) -> str:
    """Return what tells a caller's conversations apart that come whole with each request: how people began them."""
    first = next((turn.text for turn in turns if turn.role == "user"), "")
    return f"{scope_of(caller)}\0{first.strip()}"


def _drawn(model: ServedModel, candidates: Sequence[ServedModel], conversation: str) -> ServedModel | None:
    """Return the candidate whose part of the unit interval the conversation falls into, if any does."""
    digest = hashlib.sha256(f"{model.name}\0{conversation}".encode("utf-8", "surrogatepass")).digest()
    point, end = int.from_bytes(digest[:8]) / 2**64, 0.0
    for candidate in candidates:
        end += candidate.share
        if point < end:
            return candidate
    return None


def _trouble(services: Services, candidate: ServedModel, caller: Caller) -> str:
    """Return why ``candidate`` can't take a run now; empty where it can."""
    watch = services.readiness.engines[candidate.name]
    if not watch.takes_runs:
        return f"its engine is {watch.part.word.replace('_', ' ')}"
    return "" if candidate.seats.has_room(caller) else NO_ROOM
