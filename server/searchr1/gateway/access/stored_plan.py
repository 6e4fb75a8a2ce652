"""A plan as the run store keeps it while its run goes on, so that another gateway can drive the run to its end.

It holds what the request decided and nothing that a gateway decides for itself: no session, no cache salt, no key. The
caller is there by tenant and by the hash of the key.
"""

import msgspec

from searchr1.engines.base import UNSHAPED, Shaping
from searchr1.identity import ANYONE, Caller
from searchr1.loop.types import Limits, TokenIds
from searchr1.retrieval.frozen import RecordedSearches

VERSION = 1
"""Raised only where a gateway that ignores unknown fields would drive a run wrongly."""


class PlanUnreadableError(Exception):
    """A stored plan is damaged, or a newer release wrote it."""


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was to do when it was admitted."""

    version: int = VERSION
    started_at: float
    """Unix time, seconds."""
    deadline_s: float | None
    """Seconds from ``started_at`` on."""
    grace_s: float | None
    """Seconds that the run goes on without a reader; None: to its end."""
    model: str
    question: str
    """Question as the model is asked it."""
    profile: str
    prompt: str
    prompt_ids: TokenIds
    limits: Limits
    temperature: float
    top_p: float
    seed: int | None = None
    shaping: Shaping = UNSHAPED
    top_k: int
    logprobs: bool = False
    stream_interval: int = 1
    interval_s: float | None = None
    """Seconds between two pieces of text, where the request says so."""
    cache_only: bool = False
    record: RecordedSearches | None = None
    """Searches that the run repeats."""
    caller: Caller = ANYONE
    traceparent: str = ""
    """The span of the run, or of its client, by which a gateway that takes it over goes on with its trace."""


_DECODER = msgspec.json.Decoder(StoredPlan)


def encode_plan(plan: StoredPlan) -> bytes:
    """Return the bytes of a plan."""
    return msgspec.json.encode(plan)


def decode_plan(data: bytes) -> StoredPlan:
    """Return a plan from its bytes. Raises ``PlanUnreadableError``."""
    try:
        plan = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PlanUnreadableError("the stored plan is damaged, or of another release") from error
    if plan.version > VERSION:
        raise PlanUnreadableError("a newer release wrote the stored plan")
    return plan
