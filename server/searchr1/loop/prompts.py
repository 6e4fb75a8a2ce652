"""The texts around the model's own: prompt, observation and retry.

They are a data format that trained checkpoints expect byte for byte, grammar included. Source: the Search-R1 training
code (``scripts/data_process/nq_search.py`` and ``search_r1/llm_agent/generation.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from searchr1.loop.sanitize import neutralise
from searchr1.loop.types import Passage

PROMPT = (
    "Answer the given question. "
    "You must conduct reasoning inside <think> and </think> first every time you get new information. "
    "After reasoning, if you find you lack some knowledge, you can call a search engine by <search> query </search> "
    "and it will return the top searched results between <information> and </information>. "
    "You can search as many times as your want. "
    "If you find no further external knowledge needed, you can directly provide the answer inside <answer> and "
    "</answer>, without detailed illustrations. For example, <answer> Beijing </answer>. Question: {question}\n"
)
RETRY = (
    "\nMy previous action is invalid. "
    "If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n"
)


class Profile(Protocol):
    """What one family of checkpoints was trained to read. Another family is another small class."""

    @property
    def name(self) -> str:
        """What it is called in settings and records."""
        ...

    def prompt(self, question: str) -> str:
        """The user message for ``question``."""
        ...

    def observation(self, passages: Sequence[Passage]) -> str:
        """The text put in after a search; no passages is an empty result, not an error."""
        ...

    def retry(self) -> str:
        """The text put in after a turn without an action."""
        ...


def titled(passage: Passage) -> str:
    """A passage as an observation has it after its number."""
    return f"(Title: {passage.title}) {passage.text}"


@dataclass(frozen=True, slots=True)
class FaithfulProfile:
    """Search-R1 as its reference trains it: the default."""

    name: str = "faithful"

    def prompt(self, question: str) -> str:
        """Strip the question and end it in a question mark, then fill in the template."""
        question = question.strip()
        if not question.endswith("?"):
            question += "?"
        return PROMPT.replace("{question}", question)

    def observation(self, passages: Sequence[Passage]) -> str:
        """``Doc i(Title: …) …`` lines inside an information block, without a space before the parenthesis."""
        results = "".join(f"Doc {i}{titled(p)}\n" for i, p in enumerate(passages, start=1))
        return f"\n\n<information>{results.strip()}</information>\n\n"

    def retry(self) -> str:
        """The reference's apology for an invalid action."""
        return RETRY


@dataclass(frozen=True, slots=True)
class SanitizedProfile:
    """The texts of ``base``, with passages that hold tag-like text neutralised before the model reads them.

    For serving, where passages come from strangers. Training, evaluation and replays keep ``FAITHFUL``. Passages
    without tag-like text read the same in both; ``sanitize.py`` has the rules.
    """

    base: Profile
    name: str = "sanitized"

    def prompt(self, question: str) -> str:
        """As ``base`` has it."""
        return self.base.prompt(question)

    def observation(self, passages: Sequence[Passage]) -> str:
        """As ``base`` writes the neutralised passages."""
        return self.base.observation(neutralise(passages))

    def retry(self) -> str:
        """As ``base`` has it."""
        return self.base.retry()


FAITHFUL = FaithfulProfile()
SANITIZED = SanitizedProfile(FAITHFUL)
