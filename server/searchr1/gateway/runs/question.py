"""The one way from a conversation to the question that the model is asked, for every API."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.deadline import Deadline, DeadlinePassedError
from searchr1.gateway.runs.conversation import fitted, harmless, shown
from searchr1.gateway.runs.errors import PromptTooLargeError, SeatExpiredError
from searchr1.gateway.runs.rewrite import RewriteError, Rewriter, checked
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import Services
from searchr1.identity import Caller
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn, fold_conversation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question as the model is asked, and what finding it took of the run's time."""

    text: str
    spent_s: float = 0.0


async def question_of(
    turns: Sequence[Turn],
    model: ServedModel,
    services: Services,
    caller: Caller,
    *,
    deadline_s: float | None = None,
) -> AskedQuestion:
    """Turn a conversation into the question that ``model`` is asked, as its settings say, within its prompt's bounds.

    ``deadline_s`` is the run's, where the request sets one. A rewriting's tokens are counted for the caller's key. One
    that fails is logged and counted, and the conversation is folded.

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
    dialogue = [turn for turn in kept if turn.role not in INSTRUCTION_ROLES]
    question = await _rewritten(dialogue, rewriter, model, services, caller, bound_s)
    spent_s = time.perf_counter() - started
    if question is None:
        return AskedQuestion(fold_conversation(kept), spent_s)
    instructions = [turn for turn in kept if turn.role in INSTRUCTION_ROLES]
    return AskedQuestion(fold_conversation([*instructions, Turn("user", question)]), spent_s)


async def _rewritten(
    dialogue: Sequence[Turn],
    rewriter: Rewriter,
    model: ServedModel,
    services: Services,
    caller: Caller,
    bound_s: float,
) -> str | None:
    """Return the last message as a question that stands for itself, or None where that failed."""
    outcome, failure = "cancelled", None
    span = None if services.tracing is None else services.tracing.rewriting(model)
    try:
        question = await _written(dialogue, rewriter, model, services, caller, bound_s)
        outcome = "kept" if question == dialogue[-1].text else "rewritten"
    except (RewriteError, SeatExpiredError, DeadlinePassedError, PromptTooLargeError) as error:
        why = str(error) or f"it took more than {bound_s:g} s"
        logger.warning("A conversation was folded, as it could not be rewritten: %s", why)
        question, outcome, failure = None, "failed", error
    finally:
        if span is not None:
            span.ended(outcome, failure)
    services.metrics.rewrites.labels(outcome).inc()
    return question


async def _written(
    dialogue: Sequence[Turn],
    rewriter: Rewriter,
    model: ServedModel,
    services: Services,
    caller: Caller,
    bound_s: float,
) -> str:
    """Return what is written for the last message. Raises where that failed or took too long."""
    admission, clock = model.admission, Deadline(bound_s)
    rewriting = rewriter.prepare(dialogue, cache_salt=admission.cache_salt(caller))
    with model.seats.seat(
        caller,
        num_ids=rewriting.num_ids,
        growth_tokens=rewriting.max_tokens,
        session=rewriting.session,
        deadline_s=bound_s,
    ) as seat:
        try:
            written = await clock.bound(lambda: rewriting.write(seat, clock.remaining_s))
        finally:
            taken = rewriting.taken
            services.access.count_rewriting(caller, tokens_in=taken.read, tokens_out=taken.sampled)
    return checked(written, dialogue, reserved=admission.reserved_texts)
