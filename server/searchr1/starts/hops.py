"""The upper start: demonstrations that search hop by hop, along what a data set gives as the way to the answer.

Where a row has its decomposition, as MuSiQue's have, each of its questions is a search. Else its gold passages are the
way, where they make a chain: each names the title of the next, and the last has the answer. Then a hop's query is the
title and those words of the question that the passage has.

There is a demonstration only where every search finds what its hop needs, and each thought quotes it.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.data.evidence import GoldQuestion
from searchr1.data.questions import asked
from searchr1.loop.types import Passage
from searchr1.starts.form import PLAN, answer_turn, cited, is_short, search_turn
from searchr1.starts.shelf import Shelf
from searchr1.starts.words import bare_title, content_words, folded, held_answer, holds, quote, sentences

HOPS = "hops"
MAX_HOPS = 4
MAX_QUERY_WORDS = 4
"""Words of the question that a query has beside a title."""
FIRST = "I look for it one step at a time."
AGAIN = "The passages do not say it, so I search in other words."
_REFERENCE = re.compile(r"#(\d)")

Searching = Generator[str, Sequence[Passage], Demonstration | None]
"""A generator that yields queries, takes what they find, and returns the demonstration or None."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One search of a demonstration."""

    queries: tuple[str, ...]
    """The query, and those to try where it does not find what is needed."""
    answers: tuple[str, ...]
    """Spellings of what the hop finds out."""
    about: str
    """The words that a sentence which says so shares."""
    gold_id: str = ""
    """Passage that says so, where it is known."""


def demonstrate_hops(gold: GoldQuestion, passages: Mapping[str, Passage], shelf: Shelf) -> Searching:
    """Answer a question hop by hop, as a generator, so that the searches of many run together.

    ``passages`` are the gold ones, by id. A question of one hop is searched as it stands, and where that fails once
    more by its page's title, if the question names it.
    """
    hops = hops_of(gold, passages)
    if hops is None or not hops[-1].answers:
        return None
    turns: list[DemonstratedTurn] = []
    thought = PLAN if len(hops) == 1 else FIRST
    answer = ""
    for number, hop in enumerate(hops):
        read = yield from _look_up(hop, thought, turns, shelf, may_retry=len(hops) == 1)
        if read is None:
            return None
        place, said, answer = read
        last = number == len(hops) - 1
        thought = f"{cited(place, said)} So {'the answer is' if last else 'it is'} {answer}."
        if not last:
            thought += " Now I look further."
    question = gold.question
    turns.append(answer_turn(thought, answer))
    return Demonstration(question.id, question.question, question.golden_answers, len(hops), HOPS, tuple(turns), {})


def _look_up(
    hop: Hop, thought: str, turns: list[DemonstratedTurn], shelf: Shelf, *, may_retry: bool
) -> Generator[str, Sequence[Passage], tuple[int, str, str] | None]:
    """Add the turn that finds what ``hop`` needs; return the passage's place, the quote and the answer."""
    for query in hop.queries:
        found = yield query
        read = _read(hop, found)
        shown = shelf.shown(found, needed=() if read is None else (read[0],))
        if read is not None and shown is not None:
            turns.append(search_turn(thought, query, shown))
            return read
        if may_retry and not turns and shown:
            turns.append(search_turn(thought, query, shown))
            thought = AGAIN
    return None


def _read(hop: Hop, found: Sequence[Passage]) -> tuple[int, str, str] | None:
    """Return place, quote and answer of the best passage; a known one alone, where there is one."""
    for place, passage in enumerate(found):
        if hop.gold_id and passage.id != hop.gold_id:
            continue
        answer = held_answer(passage.text, hop.answers)
        said = None if answer is None else quote(passage.text, answer, f"{hop.about} {passage.title}")
        if answer is not None and said is not None:
            return place, said, answer
    return None


def hops_of(gold: GoldQuestion, passages: Mapping[str, Passage]) -> tuple[Hop, ...] | None:
    """Return the searches that lead to the answer; None where the row does not tell them."""
    if gold.steps:
        return _of_steps(gold)
    if gold.question.hops == 1:
        return _of_one(gold)
    known = [passages[gold_id] for gold_id in gold.gold_ids if gold_id in passages]
    if not 2 <= len(known) <= MAX_HOPS or len(known) < len(gold.gold_ids):
        return None
    chain = next((order for order in permutations(known) if _is_chain(order, gold)), None)
    return None if chain is None else _of_chain(chain, gold)


def _of_steps(gold: GoldQuestion) -> tuple[Hop, ...] | None:
    if not 2 <= len(gold.steps) <= MAX_HOPS:
        return None
    hops = []
    for number, step in enumerate(gold.steps, start=1):
        references = [int(reference) for reference in _REFERENCE.findall(step.question)]
        if any(reference >= number or reference < 1 for reference in references) or not is_short(step.answer):
            return None
        text = _REFERENCE.sub(lambda match: gold.steps[int(match[1]) - 1].answer, step.question).replace(" ?", "?")
        query = text.replace(" >> ", " ") if " >> " in text else asked(text)
        last = number == len(gold.steps)
        hops.append(Hop((query,), _short(gold) if last else (step.answer,), text))
    return tuple(hops)


def _of_one(gold: GoldQuestion) -> tuple[Hop, ...]:
    question = gold.question.question
    # A title that the question does not name can't be known yet, and may be the answer.
    named = [title for title in map(bare_title, gold.titles[:1]) if holds(question, title)]
    again = tuple(" ".join([title, *_relation(question, title, None)]) for title in named)
    gold_id = gold.gold_ids[0] if gold.gold_ids else ""
    return (Hop((asked(question), *again), _short(gold), question, gold_id),)


def _is_chain(order: Sequence[Passage], gold: GoldQuestion) -> bool:
    """Return whether each passage names the next title, which the question does not, and the last has the answer."""
    names = [_name_in(here.text, there.title) for here, there in pairwise(order)]
    known = {folded(answer) for answer in gold.question.golden_answers}
    question = gold.question.question
    if any(name is None or folded(name) in known or holds(question, name) for name in names):
        return False
    # An answer that the question names is one of the things that it compares.
    answer = held_answer(order[-1].text, _short(gold))
    return answer is not None and not holds(question, answer)


def _of_chain(chain: Sequence[Passage], gold: GoldQuestion) -> tuple[Hop, ...]:
    question = gold.question.question
    hops = []
    for number, passage in enumerate(chain):
        title = bare_title(passage.title)
        words = _relation(question, title, passage)
        query = " ".join([title, *words])
        # What the question does not name can't be known before something has been found.
        queries = (query, title) if number or holds(question, title) else (asked(question),)
        if number == len(chain) - 1:
            answers = _short(gold)
        else:
            name = _name_in(passage.text, chain[number + 1].title)
            assert name is not None, "it is a chain"
            answers = (name,)
        hops.append(Hop(tuple(dict.fromkeys(queries)), answers, f"{question} {title}", passage.id))
    return tuple(hops)


def _relation(question: str, title: str, passage: Passage | None) -> list[str]:
    """Return the words of the question that say what is asked of ``title``: those that its passage has, if any."""
    named = set(folded(title).split())
    said = None if passage is None else set(folded(passage.text).split())
    words = [
        word for key, word in content_words(question).items() if key not in named and (said is None or key in said)
    ]
    return words[:MAX_QUERY_WORDS]


def _name_in(text: str, title: str) -> str | None:
    """Return the spelling of a page's title by which ``text`` names it: without brackets, or before its comma."""
    bare = bare_title(title)
    spellings = (bare, bare.partition(",")[0])
    return next((name for name in spellings if any(holds(sentence, name) for sentence in sentences(text))), None)


def _short(gold: GoldQuestion) -> tuple[str, ...]:
    return tuple(answer for answer in gold.question.golden_answers if is_short(answer))
