"""Search terms of passages and of queries, split from text in the same way."""

import re
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import bm25s.stopwords  # type: ignore[import-untyped]
import Stemmer  # type: ignore[import-not-found]

from searchr1.retrieval.index import scripts

Analyzer = Literal[1, 2]
_WORD = re.compile(r"\w+")
_DIACRITIC = re.compile("[\u0300-\u036f]")


@dataclass(frozen=True, slots=True)
class TermSettings:
    """Rules that turn text into search terms. Stored with an index, so that queries are split as its passages were."""

    stopwords: Literal["english"] | None = "english"
    """Words that are dropped: the 33 of Lucene's English list, or none."""
    stemmer: Literal["english"] | None = "english"
    """Snowball's English stemmer, for words in Latin letters, or none."""
    fold_diacritics: bool = True
    """Make one term of spellings that read the same: ``Córdoba`` and ``Cordoba``."""
    analyzer: Analyzer = 2
    """Version of the rules: 2 is ``scripts.py``; 1, that of indexes that name none, takes no script but Latin apart."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a version that is not known."""
        if self.analyzer not in (1, 2):
            raise ValueError(f"there is no analyzer {self.analyzer!r} in this version; build the index again")


class TermSplitter:
    """A splitter of text into lower-case search terms. Thread-safe."""

    def __init__(self, settings: TermSettings) -> None:
        self._fold_diacritics = settings.fold_diacritics
        self._stopwords = frozenset[str](bm25s.stopwords.STOPWORDS_EN if settings.stopwords else ())
        self._stem: Callable[[str], str] | None = Stemmer.Stemmer("english").stemWord if settings.stemmer else None
        self._stem_lock = threading.Lock()
        self._stems: Callable[[str], bool] = scripts.is_latin if settings.analyzer > 1 else lambda word: True
        self.words: Callable[[str], list[str]] = self._words if settings.analyzer > 1 else self._words_of_1
        """Returns the words of a text in order, folded, stopwords included, not stemmed."""

    def term(self, word: str) -> str | None:
        """Return the term that a word of ``words`` is searched as; None for a stopword."""
        if word in self._stopwords:
            return None
        if self._stem is None or not self._stems(word):
            return word
        with self._stem_lock:  # a PyStemmer object must not run in two threads at once
            return self._stem(word)

    def terms(self, text: str) -> list[str]:
        """Return the search terms of ``text``, in order, repeated as they repeat."""
        return [term for word in self.words(text) if (term := self.term(word)) is not None]

    def _words(self, text: str) -> list[str]:
        folded = scripts.folded(text) if self._fold_diacritics else unicodedata.normalize("NFC", text).casefold()
        return scripts.words(folded)

    def _words_of_1(self, text: str) -> list[str]:
        text = text.lower()
        if self._fold_diacritics and not text.isascii():
            text = unicodedata.normalize("NFC", _DIACRITIC.sub("", unicodedata.normalize("NFKD", text)))
        return _WORD.findall(text)
