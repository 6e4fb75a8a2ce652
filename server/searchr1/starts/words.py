"""Words of passages: whether they hold an answer, which sentence says it, and a quote of that sentence."""

import re
from collections.abc import Iterable
from functools import lru_cache

from searchr1.evaluation.metrics import normalize

MAX_QUOTE_WORDS = 30
"""Words of a quote; of a longer sentence the part around the answer is quoted."""
_SENTENCE_END = re.compile(r"(?<=[.!?])([\"”')\]]*)\s+(?=[\"“'(\[]*[A-Z0-9À-Þ])")
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|Inc|Ltd|Co|ca|c|b|d|Mt|Ft|Gen|Col|Lt|Prof)\.$")
_PUNCTUATION = ".,;:!?\"'“”‘’()[]"
_BRACKETS = re.compile(r"\s*\([^)]*\)")
_FUNCTION_WORDS = """
    a an the of in on at to for by with from as is are was were be been being it its this that these those and or but
    not no do does did has have had who whom whose what which when where why how much many name named called into
    than then there he she they his her their him them i you we my your our s t also about after before during over
    between among both each other some any all most more
"""
_STOP = frozenset(_FUNCTION_WORDS.split())


@lru_cache(maxsize=200_000)
def folded(text: str) -> str:
    """Return ``text`` as exact match compares it, with a space at either end, so that words are found whole."""
    return f" {normalize(text)} "


def holds(text: str, answer: str) -> bool:
    """Return whether ``text`` has the words of ``answer``, one after the other.

    >>> holds("Born in the U.S., he left.", "US"), holds("Marseille", "Mars"), holds("x", "the")
    (True, False, False)
    """
    wanted = folded(answer)
    return bool(wanted.strip()) and wanted in folded(text)


def held_answer(text: str, answers: Iterable[str]) -> str | None:
    """Return the first of ``answers`` whose words ``text`` has."""
    return next((answer for answer in answers if holds(text, answer)), None)


def content_words(text: str) -> dict[str, str]:
    """Return the words of ``text`` that say what it is about, in its order: folded, and as they are spelled.

    >>> content_words("Who is the co-founder of Acme?")
    {'cofounder': 'co-founder', 'acme': 'Acme'}
    """
    spelled = (word.strip(_PUNCTUATION) for word in text.split())
    words = {key: word for word in reversed(list(spelled)) if (key := folded(word).strip()) and key not in _STOP}
    return dict(reversed(words.items()))


def bare_title(title: str) -> str:
    """Return a passage's title without its quotes and what stands in brackets.

    >>> bare_title('"W (Planningtorock album)"')
    'W'
    """
    plain = title.strip().strip('"').strip()
    return _BRACKETS.sub("", plain).strip() or plain


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``, as they stand in it."""
    found: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[start : end.start()]):
            found.append(text[start : end.end(1)].strip())
            start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def quote(text: str, answer: str, question: str) -> str | None:
    """Return the sentence of ``text`` that has ``answer`` and most words of ``question``, cut where it is long.

    None where no sentence has the whole answer, or none of those has another word of the question.
    """
    wanted = set(content_words(question)) - set(folded(answer).split())
    best, most = None, 0
    for sentence in sentences(text):
        if holds(sentence, answer) and (shared := len(wanted.intersection(folded(sentence).split()))) > most:
            best, most = sentence, shared
    return None if best is None else _cut(best, answer)


def num_shared(text: str, question: str) -> int:
    """Return how many of the words that ``question`` is about ``text`` has."""
    return len(set(content_words(question)).intersection(folded(text).split()))


def _cut(sentence: str, answer: str) -> str | None:
    """Return the sentence, or of a long one as many words around the answer as a quote may have."""
    words = sentence.split()
    if len(words) <= MAX_QUOTE_WORDS:
        return sentence
    for end in range(1, len(words) + 1):
        if holds(" ".join(words[:end]), answer):
            start = max(0, min(end + MAX_QUOTE_WORDS // 4, len(words)) - MAX_QUOTE_WORDS)
            part = " ".join(words[start : start + MAX_QUOTE_WORDS])
            return part if holds(part, answer) else None
    return None
