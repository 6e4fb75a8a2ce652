"""English that has nothing to do with Atlas: sentences and words of Python's own help pages."""

import random
import re
from functools import cache
from pydoc_data.topics import topics

_SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;:'\"()_.-]{18,170}[.:?](?= )")


@cache
def _sentences() -> tuple[str, ...]:
    texts = (" ".join(text.split()) for _, text in sorted(topics.items()))
    found = (match.group() for text in texts for match in _SENTENCE.finditer(text))
    return tuple(dict.fromkeys(found))


@cache
def _words() -> tuple[str, ...]:
    return tuple(sorted({word for text in _sentences() for word in re.findall(r"[a-z]{2,12}", text)}))


def sentences(rng: random.Random, number: int) -> list[str]:
    """Draw ``number`` sentences that follow each other."""
    known = _sentences()
    start = rng.randrange(len(known) - number)
    return list(known[start : start + number])


def phrase(rng: random.Random, number: int) -> str:
    """Draw ``number`` words that make no sense together."""
    return " ".join(rng.choice(_words()) for _ in range(number))
