"""Search terms of passages and of queries, split from text in the same way."""

import re
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import bm25s.stopwords  # type: ignore[import-untyped]
import Stemmer  # type: ignore[import-not-found]

_WORD = re.compile(r"\w+")
_DIACRITIC = re.compile("[\u0300-\u036f]")


@dataclass(frozen=True, slots=True)
class TermSettings:
    """Rules that turn text into search terms. Stored with an index, so that queries are split as its passages were."""

    stopwords: Literal["english"] | None = "english"
    """Words that are dropped: the 33 of Lucene's English list, or none."""
    stemmer: Literal["english"] | None = "english"
    """Snowball's English stemmer, or none."""
    fold_diacritics: bool = True
    """Make ``Córdoba`` and ``Cordoba`` one term."""


class TermSplitter:
    """A splitter of text into lower-case search terms. Thread-safe."""

    def __init__(self, settings: TermSettings) -> None:
        self._fold_diacritics = settings.fold_diacritics
        self._stopwords = frozenset[str](bm25s.stopwords.STOPWORDS_EN if settings.stopwords else ())
        self._stem: Callable[[str], str] | None = Stemmer.Stemmer("english").stemWord if settings.stemmer else None
        self._stem_lock = threading.Lock()

    def words(self, text: str) -> list[str]:
        """Return the words of ``text`` in order, folded, stopwords included, not stemmed."""
        text = text.lower()
        if self._fold_diacritics and not text.isascii():
            text = unicodedata.normalize("NFC", _DIACRITIC.sub("", unicodedata.normalize("NFKD", text)))
        return _WORD.findall(text)

    def term(self, word: str) -> str | None:
        """Return the term that a word of ``words`` is searched as; None for a stopword."""
        if word in self._stopwords:
            return None
        if self._stem is None:
            return word
        with self._stem_lock:  # a PyStemmer object must not run in two threads at once
            return self._stem(word)

    def terms(self, text: str) -> list[str]:
        """Return the search terms of ``text``, in order, repeated as they repeat."""
        return [term for word in self.words(text) if (term := self.term(word)) is not None]
