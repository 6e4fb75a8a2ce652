"""The baselines in the ``search-r1`` format, for policies that know no prompt but their own.

The prompt, the tags and the observations are those of the policy's profile, and every piece is tokenized alone as the
loop does it. What makes it another method is put into the model's mouth: which action it takes and what it searches
for. It takes a profile whose policy thinks and answers inside tags.
"""

from searchr1.errors import ConfigurationError
from searchr1.evaluation.baselines.trial import Trial
from searchr1.loop.profiles.base import Profile
from searchr1.loop.tags import Pair

KNOWN = "I can answer this."
UNKNOWN = "I need to search for this."


def check_profile(profile: Profile) -> None:
    """Raise ``ConfigurationError`` for a profile that these baselines can't put actions into."""
    if profile.tags.think is None or profile.tags.answer is None:
        raise ConfigurationError(
            f"the profile {profile.name!r} has no tags for thoughts and answers, so its policy can't be led through "
            "the baselines in the search-r1 format; ask them in the plain one"
        )


async def direct(trial: Trial) -> str | None:
    """A thought of ours, then the answer."""
    return await _answer(trial, trial.trained_prompt(), KNOWN)


async def chain_of_thought(trial: Trial) -> str | None:
    """A thought of the model's, then the answer."""
    return await _think_and_answer(trial, trial.trained_prompt())


async def rag(trial: Trial) -> str | None:
    """One search with the question, a thought on what it found, then the answer."""
    context = trial.trained_prompt()
    context += await _searched(trial, UNKNOWN, trial.question)
    return await _think_and_answer(trial, context)


async def ircot(trial: Trial) -> str | None:
    """A search with the question, then thoughts of the model's and a search with each, until it answers by itself."""
    profile, (_, answer) = trial.options.profile, _tags(trial)
    context = trial.trained_prompt()
    context += await _searched(trial, UNKNOWN, trial.question)
    for _ in range(max(1, trial.options.limits.max_turns) - 1):
        text = await trial.write(context, (answer.close, profile.tags.search.close))
        before, opened, content = text.partition(answer.open)
        if opened and content.endswith(answer.close):
            return _read(trial, content.removesuffix(answer.close))
        thought = _thought(trial, before)
        context += await _searched(trial, thought, thought)
    return await _think_and_answer(trial, context)


def _tags(trial: Trial) -> tuple[Pair, Pair]:
    """The tags around a thought and around an answer."""
    tags = trial.options.profile.tags
    assert tags.think is not None
    assert tags.answer is not None
    return tags.think, tags.answer


async def _searched(trial: Trial, thought: str, query: str) -> list[int]:
    """A turn that searches for ``query``, and its observation."""
    profile, (think, _) = trial.options.profile, _tags(trial)
    passages = await trial.search(query)
    ids = trial.encode(profile.observation(passages))[: trial.options.limits.max_observation_tokens]
    trial.outcome.observation_tokens += len(ids)
    search = profile.tags.search
    turn = f"{think.open} {thought} {think.close}\n{search.open} {query} {search.close}"
    return [*trial.encode(turn), *ids]


async def _think_and_answer(trial: Trial, context: list[int]) -> str | None:
    think, answer = _tags(trial)
    stops = (think.close, trial.options.profile.tags.search.open, answer.open)
    text = await trial.write([*context, *trial.encode(think.open)], stops)
    return await _answer(trial, context, _thought(trial, text))


async def _answer(trial: Trial, context: list[int], thought: str) -> str | None:
    """The answer that the model gives after ``thought``."""
    think, answer = _tags(trial)
    opened = trial.encode(f"{think.open} {thought} {think.close}\n{answer.open}")
    content = await trial.forced_answer([*context, *opened], answer.close)
    return None if content is None else _read(trial, content)


def _read(trial: Trial, content: str) -> str | None:
    """The answer in the text between the answer's tags, as the profile takes it out."""
    _, answer = _tags(trial)
    kind, found = trial.options.profile.action(f"{answer.open}{content}{answer.close}")
    return (found or None) if kind == "answer" else None


def _thought(trial: Trial, text: str) -> str:
    """The words of a thought, without the tags around it."""
    think, answer = _tags(trial)
    for tag in (think.close, trial.options.profile.tags.search.open, answer.open):
        text = text.partition(tag)[0]
    return text.strip().removeprefix(think.open).strip()
