"""Shared parts of the baselines in the ``search-r1`` format, for policies that know no prompt but their own.

The prompt, the tags and the observations are those of the policy's profile, and every piece is tokenized alone as the
loop does it. What makes it another method is put into the model's mouth: which action it takes and what it searches
for. It takes a profile whose policy thinks and answers inside tags.
"""

from searchr1.errors import ConfigurationError
from searchr1.evaluation.baselines.trial import Trial
from searchr1.loop.machine import cut_ids
from searchr1.loop.profiles.base import Profile
from searchr1.loop.tags import Pair

KNOWN = "I can answer this."
"""The thought before an answer that is not searched for."""
UNKNOWN = "I need to search for this."
"""The thought before a first search."""


def check_tags(profile: Profile) -> None:
    """Raise ``ConfigurationError`` for a profile that these baselines can't put actions into."""
    if profile.tags.think is None or profile.tags.answer is None:
        raise ConfigurationError(
            f"the profile {profile.name!r} has no tags for thoughts and answers, so its policy can't be led through "
            "the baselines in the search-r1 format; ask them in the plain one"
        )


def tags_of(trial: Trial) -> tuple[Pair, Pair]:
    """Return the tags around a thought and around an answer, of a profile that passed ``check_tags``."""
    tags = trial.options.profile.tags
    assert tags.think is not None
    assert tags.answer is not None
    return tags.think, tags.answer


async def searched(trial: Trial, thought: str, query: str) -> list[int]:
    """Search for ``query`` and return the ids of a turn that does so, and of its observation."""
    profile, (think, _) = trial.options.profile, tags_of(trial)
    passages = await trial.search(query)
    limits, spell = trial.options.limits, trial.tools.tokenizer.decode
    ids = cut_ids(trial.encode(profile.observation(passages)), limits.max_observation_tokens, spell)
    trial.outcome.observation_tokens += len(ids)
    search = profile.tags.search
    turn = f"{think.open} {thought} {think.close}\n{search.open} {query} {search.close}"
    return [*trial.encode(turn), *ids]


async def think_and_answer(trial: Trial, context: list[int]) -> str | None:
    """Return the answer that the model gives after a thought of its own."""
    think, answer = tags_of(trial)
    stops = (think.close, trial.options.profile.tags.search.open, answer.open)
    text = await trial.write([*context, *trial.encode(think.open)], stops)
    return await answer_after(trial, context, words_of(trial, text))


async def answer_after(trial: Trial, context: list[int], thought: str) -> str | None:
    """Return the answer that the model gives after ``thought``."""
    think, answer = tags_of(trial)
    opened = trial.encode(f"{think.open} {thought} {think.close}\n{answer.open}")
    content = await trial.forced_answer([*context, *opened], answer.close)
    return None if content is None else read_answer(trial, content)


def read_answer(trial: Trial, content: str) -> str | None:
    """Return the answer in the text between the answer's tags, as the profile takes it out."""
    _, answer = tags_of(trial)
    kind, found = trial.options.profile.action(f"{answer.open}{content}{answer.close}")
    return (found or None) if kind == "answer" else None


def words_of(trial: Trial, text: str) -> str:
    """Return the words of a thought, without the tags around it."""
    think, answer = tags_of(trial)
    for tag in (think.close, trial.options.profile.tags.search.open, answer.open):
        text = text.partition(tag)[0]
    return text.strip().removeprefix(think.open).strip()
