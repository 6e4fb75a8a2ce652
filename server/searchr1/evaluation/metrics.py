"""Exact match and its looser sibling, as Search-R1 scores them.

The source is the reference's ``verl/utils/reward_score/qa_em.py``. There are two ways to find a run's answer: the
action that ended the run, which is the model's own text and the default of this package, and ``reference_answer``,
which reads prompt and response together as the reference does.
"""

import re
import string
from collections.abc import Iterable

from searchr1.loop.profiles.search_r1 import ANSWER, RETRY, SEARCH_R1

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lowercase, drop ASCII punctuation, drop a/an/the, collapse white space.

    >>> normalize("The  U.S. Dollar!")
    'us dollar'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_DROP_PUNCTUATION)).split())


def exact_match(prediction: str | None, golden_answers: Iterable[str]) -> bool:
    """Return True if the prediction equals any golden answer after ``normalize``. No prediction is never right."""
    if prediction is None:
        return False
    normalized = normalize(prediction)
    return any(normalize(golden) == normalized for golden in golden_answers)


def sub_exact_match(prediction: str | None, golden_answers: Iterable[str]) -> bool:
    """Return True if any golden answer is a substring of the prediction, both after ``normalize``.

    As in the reference, the match may start inside a word, and a golden answer that normalizes to nothing is in every
    prediction.
    """
    if prediction is None:
        return False
    normalized = normalize(prediction)
    return any(normalize(golden) in normalized for golden in golden_answers)


def extract_reference(text: str) -> str | None:
    """Return what Search-R1's own extractor reads in prompt and response: the last ``<answer>`` if there are two.

    The prompt itself holds two matches ("and" and "Beijing"), so a response without an answer yields ``Beijing``.
    """
    matches = re.findall(rf"{ANSWER.open}(.*?){ANSWER.close}", text, re.DOTALL)
    return str(matches[-1]).strip() if len(matches) > 1 else None


def reference_answer(question: str, answer: str | None, *, retried: bool = False) -> str | None:
    """Return what ``extract_reference`` reads of a run with Search-R1's prompt that ended in ``answer``, or in none.

    ``retried`` says that the run holds the retry text, whose own tags the reference reads as the answer "and".
    """
    response = RETRY if retried else ""
    if answer is not None:
        response += f"{ANSWER.open} {answer} {ANSWER.close}"
    return extract_reference(SEARCH_R1.prompt(question) + response)
