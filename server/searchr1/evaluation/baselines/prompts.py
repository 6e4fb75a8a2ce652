"""The words of the baselines in the ``plain`` format.

What each asks for follows the baselines of the paper (FlashRAG's naive and one-retrieval prompts, IRCoT's one thought
at a time); the wording is this repository's, and no examples are shown to the model. Every prompt asks for an answer
inside ``<answer>`` tags, so that one reader serves all methods.
"""

from collections.abc import Callable, Sequence

from searchr1.data.questions import asked
from searchr1.loop.profiles.search_r1 import listed
from searchr1.loop.types import Passage

OPEN, CLOSE = "<answer>", "</answer>"
"""The tags of the ``plain`` format's own answers, whatever profile the policy has."""

AsksWithPassages = Callable[[str, Sequence[Passage]], str]
"""A prompt for a question and passages."""

_SHORT_ANSWER = (
    f"Write the answer between {OPEN} and {CLOSE}, as few words as possible and nothing else. "
    f"For example, {OPEN} Beijing {CLOSE}."
)


def direct(question: str) -> str:
    """Ask for the answer alone, from the model's own knowledge."""
    return f"Answer the question. {_SHORT_ANSWER}\n\nQuestion: {asked(question)}\n"


def chain_of_thought(question: str) -> str:
    """Ask for reasoning and then the answer, from the model's own knowledge."""
    return f"Answer the question. Reason step by step first. {_SHORT_ANSWER}\n\nQuestion: {asked(question)}\n"


def with_passages(question: str, passages: Sequence[Passage]) -> str:
    """Ask for the answer alone, by what the passages say."""
    return (
        f"Answer the question with the help of the documents below. {_SHORT_ANSWER}\n\n"
        f"{listed(passages)}\nQuestion: {asked(question)}\n"
    )


def next_thought(question: str, passages: Sequence[Passage]) -> str:
    """Ask for the reasoning sentence by sentence, by what the passages say; "the answer is" marks its end."""
    return (
        "Work out the answer to the question from the documents below, one short sentence of reasoning at a time. "
        "Each sentence states one fact that leads on towards the answer. "
        'Once nothing is missing, begin the last sentence with "So the answer is".\n\n'
        f"{listed(passages)}\nQuestion: {asked(question)}\n"
    )
