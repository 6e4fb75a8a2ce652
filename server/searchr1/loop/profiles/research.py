r"""ReSearch (arXiv 2503.19470): Search-R1's tags but ``<result>``, and the answer inside ``\boxed{}``.

Source: Agent-RL/ReCall, branch ``re-search`` (formerly Agent-RL/ReSearch), commit 4bdb872:
``src/verl/utils/dataset/template.py`` (prompts), ``src/verl/workers/rollout/vllm_rollout/vllm_rollout.py`` (rollout),
``src/flashrag/pipeline/active_pipeline.py`` and ``src/verl/utils/reward_score/re_search.py`` (reading the answer).

``research`` is for the checkpoints trained from instruction-tuned models: a system message, then the question as it
is. ``research-base`` is for those trained from base models, which saw one plain text and no chat template.

The reference and this loop differ in this:

* The reference bounds a rollout by 8192 tokens in all, with no turn limit and no cut of results, of which there are
  five a search. Raise the bounds of a run accordingly; the defaults are Search-R1's.
* It stops completions at ``</search>`` alone and reads the first ``<answer>`` block once the policy ends its text.
  Here a completion also ends at ``</answer>``: the same answer, without the end-of-text token after it.
* Its query is what follows the last ``<search>``, and its answer the content of the last ``\boxed{}`` in the block;
  an answer without one is none. So it is here. A ``\boxed`` without braces and ``\fbox`` are not read.
* A search without a query finds what an empty query finds, as in training; the evaluation code put in "nothing to
  search".
"""

from collections.abc import Sequence

from searchr1.loop.profiles.base import Profile, last_boxed
from searchr1.loop.profiles.registry import register
from searchr1.loop.tags import Pair, Tags
from searchr1.loop.types import ActionKind, Passage

SEARCH, ANSWER = Pair.named("search"), Pair.named("answer")
TAGS = Tags(
    think=Pair.named("think"),
    search=SEARCH,
    observation=Pair.named("result"),
    answer=ANSWER,
    streams_answer=False,
)
_RULES = (
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags respectively, "
    "and the search query and result are enclosed within <search> </search> and <result> </result> tags respectively. "
    "For example, <think> This is the reasoning process. </think> <search> search query here </search> <result> search "
    "result here </result> <think> This is the reasoning process. </think> <answer> The final answer is "
    r"\[ \boxed{answer here} \] </answer>. "
    r"In the last part of the answer, the final exact answer is enclosed within \boxed{} with latex format."
)
SYSTEM = (
    "You are a helpful assistant that can solve the given question step by step with the help of the wikipedia search "
    "tool. Given a question, you need to first think about the reasoning process in the mind and then provide the "
    "answer. During thinking, you can invoke the wikipedia search tool to search for fact information about specific "
    f"topics if needed. {_RULES}"
)
BASE_PROMPT = (
    "A conversation between User and Assistant. The user asks a question, and the assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. During thinking, "
    "the assistant can invoke the wikipedia search tool to search for fact information about specific topics if needed."
    f" {_RULES} User: {{question}}. Assistant:"
)


def observation(passages: Sequence[Passage]) -> str:
    """Write the passages' contents, an empty line between two, inside a result block."""
    results = "".join(f"{passage.contents}\n\n" for passage in passages)
    return f" <result>\n{results.strip()}\n</result>"


def action(text: str) -> tuple[ActionKind, str]:
    """Read what the last ``<search>`` asks for where one is closed, else the box in the first answer block."""
    if text.endswith(SEARCH.close):
        _, opened, query = text.removesuffix(SEARCH.close).rpartition(SEARCH.open)
        return "search", query.strip() if opened else ""
    block, closed, _ = text.partition(ANSWER.open)[2].partition(ANSWER.close)
    boxed = last_boxed(block) if closed else None
    return ("invalid", "") if boxed is None else ("answer", boxed.strip())


RESEARCH = register(
    Profile(name="research", tags=TAGS, prompt=str.strip, observation=observation, action=action, system=SYSTEM)
)
RESEARCH_BASE = register(
    Profile(
        name="research-base",
        tags=TAGS,
        prompt=lambda question: BASE_PROMPT.replace("{question}", question.strip()),
        observation=observation,
        action=action,
        chat=False,
    )
)
