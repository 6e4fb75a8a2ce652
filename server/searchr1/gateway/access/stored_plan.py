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
"""Raised only where a gateway that ignores unknown fields would drive a run wrongly: for the plan, or its journal.

``version``, ``started_at`` and ``deadline_s`` mean the same in every version: a gateway leaves a newer run to newer
gateways until its deadline.
"""


class PlanUnreadableError(Exception):
    """A stored plan is damaged."""


class NewerPlanError(Exception):
    """A newer release wrote a stored plan."""


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


class PlanBounds(msgspec.Struct, frozen=True):
    """The part of a plan that every release can read."""

    started_at: float
    deadline_s: float | None
    version: int = VERSION

    def is_over(self, now: float, *, patience_s: float) -> bool:
        """Return whether the run's deadline passed more than ``patience_s`` before ``now``, in Unix seconds."""
        return self.deadline_s is not None and now >= self.started_at + self.deadline_s + patience_s


_DECODER = msgspec.json.Decoder(StoredPlan)
_BOUNDS = msgspec.json.Decoder(PlanBounds)
_DAMAGED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def encode_plan(plan: StoredPlan) -> bytes:
    """Return the bytes of a plan."""
    return msgspec.json.encode(plan)


def decode_plan(data: bytes) -> StoredPlan:
    """Return a plan from its bytes. Raises ``PlanUnreadableError`` and ``NewerPlanError``."""
    if decode_bounds(data).version > VERSION:
        raise NewerPlanError("a newer release wrote the stored plan")
    try:
        return _DECODER.decode(data)
    except _DAMAGED as error:
        raise PlanUnreadableError("the stored plan is damaged") from error


def decode_bounds(data: bytes) -> PlanBounds:
    """Return the bounds of a plan, whichever release wrote it. Raises ``PlanUnreadableError``."""
    try:
        return _BOUNDS.decode(data)
    except _DAMAGED as error:
        raise PlanUnreadableError("the stored plan is damaged") from error
