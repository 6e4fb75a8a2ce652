"""The baselines in the ``search-r1`` format, for policies that know no prompt but Search-R1's.

The prompt, the tags and the observations are the loop's own bytes, and every piece is tokenized alone as the loop does
it. What makes it another method is put into the model's mouth: which action it takes and what it searches for.
"""

from searchr1.evaluation.baselines.trial import CLOSE, OPEN, Trial

KNOWN = "<think> I can answer this. </think>"
UNKNOWN = "<think> I need to search for this. </think>"
THOUGHT_END = "</think>"
_ACTIONS = ("<search>", OPEN)


async def direct(trial: Trial) -> str | None:
    """A thought of ours, then the answer."""
    return await trial.forced_answer([*_prompt(trial), *trial.encode(f"{KNOWN}\n{OPEN}")])


async def chain_of_thought(trial: Trial) -> str | None:
    """A thought of the model's, then the answer."""
    return await _think_and_answer(trial, _prompt(trial))


async def rag(trial: Trial) -> str | None:
    """One search with the question, a thought on what it found, then the answer."""
    context = _prompt(trial)
    context += await _searched(trial, UNKNOWN, trial.question)
    return await _think_and_answer(trial, context)


async def ircot(trial: Trial) -> str | None:
    """A search with the question, then thoughts of the model's and a search with each, until it answers by itself."""
    context = _prompt(trial)
    context += await _searched(trial, UNKNOWN, trial.question)
    for _ in range(max(1, trial.options.limits.max_turns) - 1):
        text = await trial.write(context, (CLOSE, "</search>"))
        before, opened, answer = text.partition(OPEN)
        if opened and answer.endswith(CLOSE):
            return answer.removesuffix(CLOSE).strip() or None
        thought = _thought(before)
        context += await _searched(trial, f"<think> {thought} {THOUGHT_END}", thought)
    return await _think_and_answer(trial, context)


def _prompt(trial: Trial) -> list[int]:
    return trial.prompt(trial.options.profile.prompt(trial.question))


async def _searched(trial: Trial, thought: str, query: str) -> list[int]:
    """A turn that searches for ``query``, and its observation."""
    passages = await trial.search(query)
    ids = trial.encode(trial.options.profile.observation(passages))[: trial.options.limits.max_observation_tokens]
    trial.outcome.observation_tokens += len(ids)
    return [*trial.encode(f"{thought}\n<search> {query} </search>"), *ids]


async def _think_and_answer(trial: Trial, context: list[int]) -> str | None:
    opening = "<think>"
    text = await trial.write([*context, *trial.encode(opening)], (THOUGHT_END, *_ACTIONS))
    closing = f"{opening} {_thought(text)} {THOUGHT_END}\n{OPEN}"
    return await trial.forced_answer([*context, *trial.encode(closing)])


def _thought(text: str) -> str:
    """The words of a thought, without the tags around it."""
    for tag in (THOUGHT_END, *_ACTIONS):
        text = text.partition(tag)[0]
    return text.strip().removeprefix("<think>").strip()
