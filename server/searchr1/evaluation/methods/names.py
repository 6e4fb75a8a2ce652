"""The methods that an evaluation compares: Search-R1 and the paper's baselines, by the names of the command line."""

from typing import Literal

Method = Literal["search-r1", "direct", "cot", "rag", "ircot"]
BaselineFormat = Literal["plain", "search-r1"]
"""How a baseline asks: ``plain`` in words that any instruction-tuned model follows, ``search-r1`` in the prompt and the
bytes that a Search-R1 policy was trained on."""

SEARCH_R1: Method = "search-r1"

METHOD_TITLES: dict[Method, str] = {
    "direct": "Direct",
    "cot": "CoT",
    "ircot": "IRCoT",
    "rag": "RAG",
    "search-r1": "Search-R1",
}
"""As the paper's table names them, in its order."""

SEARCHING: frozenset[Method] = frozenset({"search-r1", "rag", "ircot"})
"""Those that need a retriever."""
