"""Answering a question by any of the methods, on an engine and a retriever, without a gateway.

Direct: no search. CoT: reasoning, no search. RAG: one retrieval with the question. IRCoT: reasoning and retrieval in
turn. Search-R1: the loop and the driver that serve.
"""

import asyncio
from collections.abc import Awaitable, Callable

from searchr1.driver import DriveOptions, DriveStats, drive_to_end
from searchr1.engines.base import UNWATCHED_STREAM_INTERVAL
from searchr1.errors import EngineError
from searchr1.evaluation.methods import plain, trained
from searchr1.evaluation.methods.names import SEARCH_R1, BaselineFormat, Method
from searchr1.evaluation.methods.trial import BudgetSpentError, MethodOptions, Outcome, Tools, Trial
from searchr1.loop.machine import Rollout
from searchr1.rollout import start_rollout
from searchr1.tokenizer import ReservedTextError

Baseline = Callable[[Trial], Awaitable[str | None]]

BASELINES: dict[BaselineFormat, dict[Method, Baseline]] = {
    "plain": {"direct": plain.direct, "cot": plain.chain_of_thought, "rag": plain.rag, "ircot": plain.ircot},
    "search-r1": {
        "direct": trained.direct,
        "cot": trained.chain_of_thought,
        "rag": trained.rag,
        "ircot": trained.ircot,
    },
}


async def answer(method: Method, question: str, tools: Tools, options: MethodOptions, *, session: str) -> Outcome:
    """Answer ``question`` by ``method``. Failures of the engine and of searches are in the outcome; none is raised."""
    trial = Trial(question, tools, options, session=session)
    try:
        if method == SEARCH_R1:
            await _search_r1(trial, session)
        else:
            await _baseline(trial, BASELINES[options.baseline_format][method])
    except (EngineError, ReservedTextError) as error:
        trial.outcome.status, trial.outcome.error = "failed", str(error)
    trial.outcome.duration_s = trial.elapsed_s
    return trial.outcome


async def _baseline(trial: Trial, run: Baseline) -> None:
    outcome = trial.outcome
    try:
        async with asyncio.timeout(trial.options.deadline_s):
            outcome.answer = await run(trial)
        outcome.status = "exhausted" if outcome.answer is None else "completed"
    except TimeoutError:
        outcome.status = "deadline"
    except BudgetSpentError:
        outcome.status = "truncated"


async def _search_r1(trial: Trial, session: str) -> None:
    options, outcome, tokenizer, stats = trial.options, trial.outcome, trial.tools.tokenizer, DriveStats()
    rollout = start_rollout(trial.question, tokenizer, profile=options.profile, limits=options.limits)
    asked = DriveOptions(
        session=session,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        top_k=options.top_k,
        search_timeout_s=options.search_timeout_s,
        deadline_s=options.deadline_s,
        stream_interval=UNWATCHED_STREAM_INTERVAL,
        priority_by_turn=True,
    )
    driven = await drive_to_end(rollout, trial.tools.engine, trial.tools.retriever, asked, stats)
    outcome.queries, outcome.failed_searches = list(driven.queries), driven.num_failed_searches
    outcome.error = None if driven.engine_error is None else str(driven.engine_error)
    _take_over(outcome, rollout, stats)


def _take_over(outcome: Outcome, rollout: Rollout, stats: DriveStats) -> None:
    assert rollout.status is not None
    tokens = {"prompt": 0, "completion": 0, "observation": 0, "retry": 0}
    for segment in rollout.segments:
        tokens[segment.kind] += len(segment.ids)
    outcome.status, outcome.answer = rollout.status.value, rollout.answer
    outcome.turns, outcome.searches, outcome.invalid_turns = (
        rollout.num_turns,
        rollout.num_searches,
        rollout.num_invalid,
    )
    outcome.retried = tokens["retry"] > 0
    outcome.prompt_tokens = tokens["prompt"]
    outcome.completion_tokens = rollout.num_sampled_tokens
    outcome.observation_tokens = tokens["observation"] + tokens["retry"]
    outcome.cached_tokens = stats.num_cached_tokens
