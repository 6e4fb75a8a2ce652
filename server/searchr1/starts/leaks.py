"""The check that nothing of held-out questions is in demonstrations: no question, passage or entity of theirs alone.

It reads what was written, not how it was made, so that it holds for any demonstrations.

* A question leaks that is a held-out one but for case, punctuation and articles, that has the same words, or shares
  at least ``NEAR`` of both questions' words.
* A passage leaks that is one of a held-out question's gold passages or, where a set names titles alone, a passage of
  that title that holds an answer.
* An entity leaks that is a title of a held-out question's evidence and of no training question's, where a question, a
  turn's text or a shown passage's title names it. What a shown passage says in passing is not looked at.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from searchr1.atlas.records import Demonstration
from searchr1.data.evidence import GoldQuestion
from searchr1.errors import DatasetError
from searchr1.loop.types import Passage
from searchr1.starts.words import bare_title, folded, held_answer

NEAR = 0.85
"""Share of the words of two questions, those of either counted, from which on one is taken for the other."""
_MAX_TITLE_WORDS = 12


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The numbers of what was looked for and what was found."""

    num_demonstrations: int
    num_questions: int
    """Held-out questions."""
    num_passages: int
    """Their passages."""
    num_titles: int
    """Titles that are theirs alone."""
    found: dict[str, int]
    """Demonstrations that leak, by what; empty where none does."""
    first: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{count:,} {what}" for what, count in self.found.items()) or "nothing"
        return (
            f"leak check of {self.num_demonstrations:,} demonstrations against {self.num_questions:,} held-out "
            f"questions, {self.num_passages:,} passages of theirs and {self.num_titles:,} titles that are theirs "
            f"alone: {told} found{f'; the first: {self.first}' if self.first else ''}"
        )


class HeldOut:
    """What may not be in a demonstration: the questions, passages and entities of held-out questions.

    Args:
        questions: the held-out questions.
        training: the questions that are trained on; what their evidence names is no held-out entity.
        passages: the corpus, or the part of it that can be shown.
    """

    def __init__(
        self, questions: Sequence[GoldQuestion], training: Iterable[GoldQuestion], passages: Iterable[Passage]
    ) -> None:
        self.num_questions = len(questions)
        self._exact = {folded(held.question.question) for held in questions}
        self._words = [frozenset(folded(held.question.question).split()) for held in questions]
        self._with_word: dict[str, list[int]] = defaultdict(list)
        for number, words in enumerate(self._words):
            for word in words:
                self._with_word[word].append(number)
        known = {folded(bare_title(title)) for gold in training for title in gold.titles}
        titles = {bare_title(title) for held in questions for title in held.titles}
        self._titles = {key: title for title in titles if (key := folded(title)) not in known and key.strip()}
        self._passages = _passages_of(questions, passages)

    @property
    def num_passages(self) -> int:
        """Number of held-out passages."""
        return len(self._passages)

    @property
    def num_titles(self) -> int:
        """Number of titles that held-out questions alone have."""
        return len(self._titles)

    def is_question(self, question: str) -> bool:
        """Return whether it is a held-out question, or close to one."""
        if folded(question) in self._exact:
            return True
        words = frozenset(folded(question).split())
        # Two questions that share 85 % of their words have one of the rarest few in common.
        rare = sorted(words, key=lambda word: len(self._with_word.get(word, ())))[: 1 + len(words) // 4]
        near = {number for word in rare for number in self._with_word.get(word, ())}
        return any(
            len(words & self._words[number]) >= NEAR * len(words | self._words[number]) for number in near if words
        )

    def is_passage(self, passage: Passage) -> bool:
        """Return whether it is a held-out question's, by its text."""
        return folded(passage.text) in self._passages

    def is_entity(self, title: str) -> bool:
        """Return whether a passage's title is a held-out question's alone."""
        return folded(bare_title(title)) in self._titles

    def entity_in(self, text: str) -> str | None:
        """Return a title of held-out questions alone that ``text`` names.

        Titles of one word are looked for as they are spelled, as ``Green`` is no color; longer ones in any case.
        """
        words = folded(text).split()
        spelled: set[str] | None = None
        for start in range(len(words)):
            for end in range(start + 1, min(len(words), start + _MAX_TITLE_WORDS) + 1):
                title = self._titles.get(f" {' '.join(words[start:end])} ")
                if title is None:
                    continue
                if end - start > 1:
                    return title
                spelled = spelled or {word.strip(".,;:!?\"'“”()[]") for word in text.split()}
                if set(title.split()) <= spelled:
                    return title
        return None

    def leak_of(self, demonstration: Demonstration) -> str | None:
        """Return what leaks in a demonstration, in words; None where nothing does."""
        if self.is_question(demonstration.question):
            return "held-out question"
        shown = [passage for turn in demonstration.turns for passage in turn.passages]
        if any(map(self.is_passage, shown)):
            return "held-out passage"
        texts = [demonstration.question, *(turn.text for turn in demonstration.turns)]
        if any(self.is_entity(p.title) for p in shown) or any(self.entity_in(text) is not None for text in texts):
            return "held-out entity"
        return None

    def check(self, demonstrations: Iterable[Demonstration]) -> LeakReport:
        """Look at every demonstration.

        Raises:
            DatasetError: one leaks; the message is the report.
        """
        found = Counter[str]()
        first, total = "", 0
        for demonstration in demonstrations:
            total += 1
            if (leak := self.leak_of(demonstration)) is not None:
                first = first or f"{leak} in {demonstration.id}"
                found[leak] += 1
        report = LeakReport(total, self.num_questions, self.num_passages, self.num_titles, dict(found), first)
        if found:
            raise DatasetError(str(report))
        return report


def _passages_of(questions: Sequence[GoldQuestion], passages: Iterable[Passage]) -> set[str]:
    """Return the folded texts of the passages of ``questions``."""
    ids = {gold_id for held in questions for gold_id in held.gold_ids}
    answers: dict[str, list[str]] = defaultdict(list)
    for held in questions:
        if not held.gold_ids:
            for title in held.titles:
                answers[folded(title.strip().strip('"'))] += held.question.golden_answers
    return set(_texts_of(passages, ids, answers))


def _texts_of(passages: Iterable[Passage], ids: set[str], answers: dict[str, list[str]]) -> Iterator[str]:
    for passage in passages:
        named = answers.get(folded(passage.title.strip().strip('"')), ())
        if passage.id in ids or held_answer(f"{passage.title} {passage.text}", named) is not None:
            yield folded(passage.text)
