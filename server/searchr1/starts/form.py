"""The weakest start, of form alone: one search whose query is the question, then an answer quoted from a passage.

It teaches tags, turns and reading. It does not teach when or what to search: what reinforcement learning is for. There
is a demonstration only where a shown passage says the answer in a sentence that is about the question, and few whose
answer is a shown passage's title, or the model would learn to name titles.
"""

from collections.abc import Sequence

from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.data.evidence import GoldQuestion
from searchr1.data.questions import asked
from searchr1.loop.types import Passage
from searchr1.starts.shelf import Shelf
from searchr1.starts.words import bare_title, folded, held_answer, num_shared, quote

FORM = "form"
PLAN = "I do not know this, so I search for it."
MIN_SHARED = 2
"""Words of the question that the quoted sentence must have, where nothing but the answer marks the passage."""
MAX_ANSWER_WORDS = 8
YES_NO = frozenset({" yes ", " no "})


def demonstrate_form(gold: GoldQuestion, found: Sequence[Passage], shelf: Shelf) -> Demonstration | None:
    """Return the demonstration of a question and what searching for it finds; None where no passage says the answer."""
    question = gold.question
    read = read_answer(gold, found)
    if read is None:
        return None
    place, said, answer = read
    # The answer of several hops is said by all of their passages together.
    hops = [here for here, passage in enumerate(found) if passage.id in gold.gold_ids]
    if question.hops != 1 and (not hops or len(hops) < len(gold.gold_ids)):
        return None
    shown = shelf.shown(found, needed=(place, *hops))
    if shown is None:
        return None
    query = asked(question.question)
    turns = (
        search_turn(PLAN, query, shown),
        answer_turn(f"{cited(place, said)} So the answer is {answer}.", answer),
    )
    return Demonstration(question.id, question.question, question.golden_answers, question.hops or 1, FORM, turns, {})


def is_short(answer: str) -> bool:
    """Return whether an answer is a name, a date or the like, rather than yes, no or a sentence."""
    words = folded(answer).split()
    return bool(words) and len(words) <= MAX_ANSWER_WORDS and folded(answer) not in YES_NO


def read_answer(gold: GoldQuestion, passages: Sequence[Passage]) -> tuple[int, str, str] | None:
    """Return the place of the passage that says the answer, the quote of it, and the answer; gold passages go first."""
    text = gold.question.question
    answers = [answer for answer in gold.question.golden_answers if is_short(answer)]
    titles = {folded(bare_title(title)) for title in gold.titles}
    best: tuple[int, int, str, str] | None = None
    for place, passage in enumerate(passages):
        is_gold = passage.id in gold.gold_ids
        if gold.gold_ids and not is_gold:
            continue
        answer = held_answer(passage.text, answers)
        said = None if answer is None else quote(passage.text, answer, text)
        if answer is None or said is None:
            continue
        is_named = folded(bare_title(passage.title)) in titles
        shared = num_shared(f"{passage.title} {said}", text)
        if shared < MIN_SHARED and not is_gold:
            continue
        rank = shared + 2 * is_named
        if best is None or rank > best[0]:
            best = (rank, place, said, answer)
    return None if best is None else best[1:]


def names_a_title(demonstration: Demonstration) -> bool:
    """Return whether the answer is the title of a passage that is shown."""
    answers = set(map(folded, demonstration.golden_answers))
    return any(
        {folded(bare_title(passage.title)), folded(passage.title)} & answers
        for turn in demonstration.turns
        for passage in turn.passages
    )


def cited(place: int, said: str) -> str:
    """Return the words in which a thought quotes the passage at ``place``, counted from 0."""
    return f'Doc {place + 1} says: "{said}"'


def search_turn(thought: str, query: str, passages: Sequence[Passage]) -> DemonstratedTurn:
    """Return a turn that thinks and searches."""
    return DemonstratedTurn(f"<think> {thought} </think>\n<search> {query} </search>", query, tuple(passages))


def answer_turn(thought: str, answer: str) -> DemonstratedTurn:
    """Return a turn that thinks and answers."""
    return DemonstratedTurn(f"<think> {thought} </think>\n<answer> {answer} </answer>")
