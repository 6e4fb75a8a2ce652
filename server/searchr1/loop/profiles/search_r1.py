"""Search-R1 (arXiv 2503.09516, 2505.15117): the default, byte for byte what its checkpoints were trained on.

Source: PeterGriffinJin/Search-R1, ``scripts/data_process/nq_search.py`` and ``search_r1/llm_agent/generation.py``.
The grammar of the texts is theirs.
"""

from collections.abc import Sequence

from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import register
from searchr1.loop.tags import Pair, Tags
from searchr1.loop.types import Passage

ANSWER = Pair.named("answer")
TAGS = Tags(
    think=Pair.named("think"),
    search=Pair.named("search"),
    observation=Pair.named("information"),
    answer=ANSWER,
)
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


def prompt(question: str) -> str:
    """Strip the question and end it in a question mark, then fill in the template."""
    question = question.strip()
    if not question.endswith("?"):
        question += "?"
    return PROMPT.replace("{question}", question)


def observation(passages: Sequence[Passage]) -> str:
    """Write the listed passages inside an information block."""
    return f"\n\n<information>{listed(passages).strip()}</information>\n\n"


def listed(passages: Sequence[Passage]) -> str:
    """Write one ``Doc i(Title: …) …`` line per passage, without a space before the parenthesis."""
    return "".join(f"Doc {i}{titled(p)}\n" for i, p in enumerate(passages, start=1))


def titled(passage: Passage) -> str:
    """Write a passage as a list of them has it after its number."""
    return f"(Title: {passage.title}) {passage.text}"


SEARCH_R1 = register(
    Profile(
        name="search-r1",
        tags=TAGS,
        prompt=prompt,
        observation=observation,
        action=TAGS.first_action,
        retry=RETRY,
    )
)
