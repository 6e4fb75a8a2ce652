"""The one way from a conversation to the question that the model is asked, for every API."""

import logging
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
class Rewritten:
    """What a request's rewriting came to. It is made once, whichever model answers in the end."""

    text: str | None
    """None where it failed."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question as the model is asked, and the rewriting that it came from, if any."""

    text: str
    rewritten: Rewritten | None = None


async def question_of(
    turns: Sequence[Turn],
    model: ServedModel,
    services: Services,
    caller: Caller,
    *,
    deadline_s: float | None = None,
    spent_s: float = 0.0,
    rewritten: Rewritten | None = None,
) -> AskedQuestion:
    """Turn a conversation into the question that ``model`` is asked, as its settings say, within its prompt's bounds.

    ``deadline_s`` is the run's, where the request sets one; ``spent_s`` seconds of it have passed. A rewriting's tokens
    are counted for the caller's key. One that fails is logged and counted, and the conversation is folded. Where
    another model was to be asked before, ``rewritten`` is what the conversation came to for that one.

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
    left_s = max((settings.deadline_s if deadline_s is None else deadline_s) - spent_s, 0.0)
    dialogue = [turn for turn in kept if turn.role not in INSTRUCTION_ROLES]
    if rewritten is None:
        bound_s = min(settings.rewrite_timeout_s, left_s)
        rewritten = await _rewritten(dialogue, rewriter, model, services, caller, bound_s)
    question = None if rewritten is None else _taken_up(rewritten, dialogue, reserved)
    if question is None:
        return AskedQuestion(fold_conversation(kept), rewritten)
    instructions = [turn for turn in kept if turn.role in INSTRUCTION_ROLES]
    return AskedQuestion(fold_conversation([*instructions, Turn("user", question)]), rewritten)


def _taken_up(rewritten: Rewritten, dialogue: Sequence[Turn], reserved: Sequence[str]) -> str | None:
    """Return the question of a rewriting, which may be another model's; None where there is none for this one."""
    if rewritten.text is None:
        return None
    try:
        return checked(rewritten.text, dialogue, reserved=reserved)
    except RewriteError as error:
        _tell_folded(error)
        return None


async def _rewritten(
    dialogue: Sequence[Turn],
    rewriter: Rewriter,
    model: ServedModel,
    services: Services,
    caller: Caller,
    bound_s: float,
) -> Rewritten | None:
    """Return what became of the last message; None where the model can't even read the conversation."""
    outcome, failure = "cancelled", None
    span = None if services.tracing is None else services.tracing.rewriting(model)
    rewritten: Rewritten | None = None
    try:
        question = await _written(dialogue, rewriter, model, services, caller, bound_s)
        rewritten, outcome = Rewritten(question), "kept" if question == dialogue[-1].text else "rewritten"
    except (RewriteError, SeatExpiredError, DeadlinePassedError, PromptTooLargeError) as error:
        _tell_folded(str(error) or f"it took more than {bound_s:g} s")
        # Too large for this engine's cache, it has cost nothing, and another model may take it.
        rewritten = None if isinstance(error, PromptTooLargeError) else Rewritten(None)
        outcome, failure = "failed", error
    finally:
        if span is not None:
            span.ended(outcome, failure)
    services.metrics.rewrites.labels(outcome).inc()
    return rewritten


def _tell_folded(why: object) -> None:
    logger.warning("A conversation was folded, as it could not be rewritten: %s", why)


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
