"""The one way from a conversation to the question that the model is asked, for every API."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.gateway.metrics import Metrics
from searchr1.gateway.runs.conversation import fitted, harmless, shown
from searchr1.gateway.runs.rewrite import RewriteError, Rewriter, rewritten
from searchr1.gateway.runs.seats import Seat, SeatExpiredError
from searchr1.gateway.served_model import ServedModel
from searchr1.identity import Caller
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn, fold_conversation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question as the model is asked, and what finding it took of the run's time."""

    text: str
    spent_s: float = 0.0


async def question_of(
    turns: Sequence[Turn], model: ServedModel, metrics: Metrics, caller: Caller, *, deadline_s: float | None = None
) -> AskedQuestion:
    """Turn a conversation into the question that ``model`` is asked, as its settings say, within its prompt's bounds.

    ``deadline_s`` is the run's, where the request sets one. A rewriting that fails is logged and counted, and the
    conversation is folded.

    Raises:
        ValueError: there is nothing but instructions.
        NoSlotError: a rewriting takes a seat as a run does, and there is none.
    """
    settings, admission = model.settings, model.admission
    reserved = admission.reserved_texts
    kept = harmless(shown(turns, conversation=settings.conversation, system=settings.system), reserved)
    kept = fitted(kept, admission.fits)
    rewriter = model.rewriter
    spoken = [turn.text for turn in kept if turn.role not in INSTRUCTION_ROLES]
    if rewriter is None or len(spoken) < 2 or not spoken[-1].strip():
        return AskedQuestion(fold_conversation(kept))
    started = time.perf_counter()
    bound_s = min(settings.rewrite_timeout_s, settings.deadline_s if deadline_s is None else deadline_s)
    with model.seats.seat(caller, deadline_s=bound_s) as seat:
        question = await _rewritten(kept, rewriter, seat, bound_s, reserved, metrics)
    spent_s = time.perf_counter() - started
    if question is None:
        return AskedQuestion(fold_conversation(kept), spent_s)
    instructions = [turn for turn in kept if turn.role in INSTRUCTION_ROLES]
    return AskedQuestion(fold_conversation([*instructions, Turn("user", question)]), spent_s)


async def _rewritten(
    turns: Sequence[Turn], rewriter: Rewriter, seat: Seat, bound_s: float, reserved: Sequence[str], metrics: Metrics
) -> str | None:
    """Return the rewritten question, or None where that failed."""
    try:
        async with asyncio.timeout(bound_s):
            await seat.begin(1)
            question = await rewritten(turns, rewriter, reserved=reserved)
    except (RewriteError, SeatExpiredError, TimeoutError) as error:
        why = str(error) or f"it took more than {bound_s:g} s"
        logger.warning("A conversation was folded, as it could not be rewritten: %s", why)
        metrics.rewrites.labels("failed").inc()
        return None
    metrics.rewrites.labels("kept" if question == turns[-1].text else "rewritten").inc()
    return question
