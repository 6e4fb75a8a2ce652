r"""Search-o1 (arXiv 2501.05366): reasoning models that are prompted to search, not trained to.

Source: sunnynexus/Search-o1, commit 6ced48f: ``scripts/prompts.py`` (the multi-hop instruction and the open-domain
task), ``scripts/run_search_o1.py`` (rollout), ``scripts/evaluate.py`` (reading the answer).

There is no answer tag. A completion that ends without a search is the last one, and the answer is the content of its
last ``\boxed{}``; with no box there is none. Braces are balanced, where the reference takes all up to the line's last
brace; of a ``\text{}`` in it the content counts, and outer parentheses are dropped.

The reference and this loop differ in this:

* The reference has a second call, Reason-in-Documents: the model reads the pages found and only its digest of them is
  put in. Here the pages themselves are put in, in the form in which that call is shown them.
* It allows 10 searches in 15 turns of up to 8192 tokens, as the prompt says, and finds ten pages a search. Set the
  bounds of a run accordingly; the defaults are Search-R1's.
* A search past the limit, and a query asked before, get a message in place of results, and the rollout goes on. Here a
  search past the limit ends the rollout, and a query may be asked again.
* It samples with ``top_k`` 20 and a repetition penalty, at temperature 0.7 and ``top_p`` 0.8.
"""

import json
import re
from collections.abc import Sequence

from searchr1.loop.profiles.base import Profile, last_boxed
from searchr1.loop.profiles.registry import register
from searchr1.loop.tags import Pair, Tags
from searchr1.loop.types import ActionKind, Passage

TAGS = Tags(
    search=Pair("<|begin_search_query|>", "<|end_search_query|>"),
    observation=Pair("<|begin_search_result|>", "<|end_search_result|>"),
    hidden=("<think>", "</think>"),
)
PROMPT = (
    "You are a reasoning assistant with the ability to perform web searches to help "
    "you answer the user's question accurately. You have special tools:\n\n"
    "- To perform a search: write <|begin_search_query|> your query here <|end_search_query|>.\n"
    "Then, the system will search and analyze relevant web pages, then provide you with helpful information in the "
    "format <|begin_search_result|> ...search results... <|end_search_result|>.\n\n"
    "You can repeat the search process multiple times if necessary. "
    "The maximum number of search attempts is limited to 10.\n\n"
    "Once you have all the information you need, continue your reasoning.\n\n"
    "Example:\n"
    'Question: "Alice David is the voice of Lara Croft in a video game developed by which company?"\n'
    "Assistant thinking steps:\n"
    "- I need to find out who voices Lara Croft in the video game.\n"
    "- Then, I need to determine which company developed that video game.\n\n"
    "Assistant:\n"
    "<|begin_search_query|>Alice David Lara Croft voice<|end_search_query|>\n\n"
    "(System returns processed information from relevant web pages)\n\n"
    "Assistant thinks: The search results indicate that Alice David is the voice of Lara Croft in a specific video "
    "game. Now, I need to find out which company developed that game.\n\n"
    "Assistant:\n"
    "<|begin_search_query|>video game developed by Alice David Lara Croft<|end_search_query|>\n\n"
    "(System returns processed information from relevant web pages)\n\n"
    "Assistant continues reasoning with the new information...\n\n"
    "Remember:\n"
    "- Use <|begin_search_query|> to request a web search and end with <|end_search_query|>.\n"
    "- When done searching, continue your reasoning.\n\n"
    "Please answer the following question. You should think step by step to solve it.\n\n"
    "Provide your final answer in the format \\boxed{YOUR_ANSWER}.\n\n"
    "Question:\n{question}\n\n"
)
NOTHING_FOUND = "No helpful information found."
"""The reference's digest of pages that say nothing."""

_TEXT = re.compile(r"\\text\{(.*)\}")


def prompt(question: str) -> str:
    """Fill the question in after the instruction and the task."""
    return PROMPT.replace("{question}", question.strip())


def observation(passages: Sequence[Passage]) -> str:
    """Write the pages, numbered and as JSON, inside a result block."""
    pages = "".join(f"**Web Page {i}:**\n{_page(passage)}\n" for i, passage in enumerate(passages, start=1))
    return f"\n\n{TAGS.observation.open}{pages.strip() or NOTHING_FOUND}{TAGS.observation.close}\n\n"


def action(text: str) -> tuple[ActionKind, str]:
    """Read the query where a search is closed, else the box, which ends the rollout."""
    kind, query = TAGS.first_action(text)
    if kind == "search" and query:
        return kind, query
    boxed = last_boxed(text)
    if boxed is None:
        return "invalid", ""
    inner = _TEXT.findall(boxed)
    return "answer", (inner[-1] if inner else boxed).strip().strip("()")


def _page(passage: Passage) -> str:
    url = {"url": passage.url} if passage.url else {}
    page = {"title": passage.title.strip('"'), **url, "context": passage.text}
    return json.dumps(page, ensure_ascii=False, indent=2)


SEARCH_O1 = register(Profile(name="search-o1", tags=TAGS, prompt=prompt, observation=observation, action=action))
