"""Follow-ups about countries and cities, resolved by rules: "And in Chad?" becomes a question that stands for itself.

The demo's model is too small to find out what an ellipsis means. These rules know the few things that the demo's world
can be asked, in the words of people and not only in its own: what is asked is told by a key word, the place by what is
left when fillers are taken away, and ``it`` is the last answer where that is a place that can be asked so, and else the
place of the question before. Nothing is taken for ``it`` where a word is left that is none of asking, since that may be
what is asked about, and nothing but the world's own places for a new place. A message that the rules don't understand
stays as it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from searchr1.atlas import templates
from searchr1.atlas.talk.wordings import chatter, it, phrasings
from searchr1.atlas.world import load_world
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn

_KEYWORDS = (
    ("population", r"population|populous|inhabitants|how many people|people live|number of people|how big|in people"),
    ("timezone", r"time ?zones?|clocks"),
    ("currency", r"currenc|money|legal tender|\bpay\b"),
    ("language", r"language|speak|spoken|\bhear\b|tongue"),
    ("continent", r"continent"),
    ("neighbour", r"neighbou?r|border|next to"),
    ("capital", r"capital|seat of government|governed"),
    ("country", r"\bcountry\b|\bnation\b|^where\b|\bwhere is (it|that)\b"),
)
"""What is asked, by words that tell it; the first that occurs, in this order."""
_OF_CAPITAL = re.compile(r"\bcapital\b")
_FILLERS = frozenset(
    re.findall(
        r"\S+",
        "a about again ah alright also and as be but can case could do for got great hm how how's i if in instead "
        "is it know like me need next now of ok okay on one please question same say so tell thank thanks that then to "
        "too try us want well what what's with would you your",
    )
)
_WORDS_OF_ASKING = frozenset(
    re.findall(
        r"\S+",
        "actually any are at belong belongs big border bordering borders by called capital capitals cash citizens "
        "city clock clocks common continent continents countries country currencies currency did does find follow "
        "follows from give governed government has have hear home hows in inhabitants it's its just kind land "
        "language languages large legal lie lies live lives located main many maybe money most much nation "
        "national nations neighbor neighboring neighbors neighbour neighbouring neighbours next number official "
        "old other out part pay people person place population populous residents seat set share shares show sit "
        "sits size some someone speak spoken state still sure tender that's their them there there's they they're "
        "this time timezone timezones tongue total town types use used uses using was whats where where's which "
        "who who's whom whose will word world zone zones",
    )
)
"""Words in which people ask about a place, beside those of the wordings; none of them names one."""
_CUE = re.compile(
    r"^\W*(?:\w+[!.,]\s+)*(and|what about|how about|same|the same|now|also|then|next|ok|okay|alright|thanks|great|in|"
    r"for|can you|could you|please|got it|what would|try)\b",
    re.IGNORECASE,
)
_PRONOUN_TOPICS = re.compile(
    r"(?i:it|that|this|there|them|(?:that|this|the) (?:country|city|place|nation|capital|state))|"
    r".*\b(?:it|its|their|them)\b.*"
)
_ANSWER_LEADS = re.compile(r"^(?:.*\b(?:is|are|in|it's|borders)\b:?|answer:|that's)\s+", re.IGNORECASE | re.DOTALL)
_PLACE_WORDS = 6
_MOST_CHARS = 250
"""Longer messages are no follow-ups, nor are those of several lines."""
_OF_COUNTRIES = frozenset(("capital", "continent", "currency", "language", "neighbour", "population")) | {
    "capital-timezone",
    "capital-population",
    "neighbour-capital",
}


@dataclass(frozen=True, slots=True)
class _Talk:
    """What a conversation is about: what was asked last, of which place, and the answer."""

    key: str
    topic: str
    """A name, or a description such as ``the country where Lima is``."""
    answer: str = ""


def standalone(turns: Sequence[Turn]) -> str:
    """Return the last of ``turns``, which are no instructions, as a question that stands for itself."""
    talk: _Talk | None = None
    is_about_it = False
    dialogue = [turn for turn in turns if turn.role not in INSTRUCTION_ROLES]
    for turn in dialogue[:-1]:
        if turn.role == "user":
            before = talk
            _, talk = _resolve(turn.text, talk)
            is_about_it = talk is not before
        elif talk is not None and is_about_it:
            talk = _Talk(talk.key, talk.topic, _place_of(turn.text))
    return _resolve(dialogue[-1].text, talk)[0]


def _resolve(text: str, talk: _Talk | None) -> tuple[str, _Talk | None]:
    """Return ``text`` as a whole question, and what the conversation is about after it."""
    if not text.strip() or len(text) > _MOST_CHARS or "\n" in text.strip():
        return text, talk
    whole = _parsed(text)
    if whole is not None:
        return text, whole
    if talk is None or _is_chatter(text):
        return text, talk
    described = _description_in(text)
    asked = _asked(text.replace(described, "") if described else text)
    if asked is not None:
        other = described or _other_words(text)
        return (text, _Talk(asked, other)) if other else _worded(_about_it(asked, talk))
    place = described or _new_place(text)
    if place is not None:
        if talk.topic != _described(talk.topic) and place == _described(place):
            place = f"the country where {place} is"
        return _worded(_Talk(talk.key, place))
    return text, talk


def _worded(talk: _Talk) -> tuple[str, _Talk]:
    options = templates.ASK.get(talk.key) or phrasings.ASK_MORE[talk.key]
    return options[0].format(topic=talk.topic), talk


def _about_it(asked: str, talk: _Talk) -> _Talk:
    """Return a question about the place that was talked about."""
    answered_country = talk.key in ("country", "neighbour") and talk.answer
    answered_city = talk.key in ("capital", "neighbour-capital") and talk.answer
    if asked in _OF_COUNTRIES and answered_country:
        return _Talk(asked, talk.answer)
    if asked in ("population", "timezone", "country") and answered_city:
        return _Talk(asked, talk.answer)
    topic = talk.topic
    if asked in ("population", "timezone", "country"):
        return _Talk(asked, _described(topic) if asked != "population" else topic)
    if talk.key in ("country", "timezone") and topic == _described(topic):
        topic = f"the country where {topic} is"
    return _Talk(asked, topic)


def _asked(text: str) -> str | None:
    """Return what ``text`` asks, by its words."""
    lower = text.lower().strip()
    found = next((key for key, words in _KEYWORDS if re.search(words, lower)), None)
    if found in ("population", "timezone") and _OF_CAPITAL.search(lower):
        return f"capital-{found}"
    if found == "neighbour" and _OF_CAPITAL.search(lower):
        return "neighbour-capital"
    return found


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the forms of whole questions, each with what it asks."""
    found = []
    for table in (templates.ASK, phrasings.ASK_MORE):
        for key, texts in table.items():
            for text in texts:
                before, after = (re.escape(part) for part in text.rstrip("?.").split("{topic}"))
                found.append(
                    (key, re.compile(rf"(?:|.*[:.!,]\s){before}(?P<topic>.+?){after}", re.IGNORECASE | re.DOTALL))
                )
    return tuple(found)


def _parsed(text: str) -> _Talk | None:
    """Return what a whole question asks of which topic; the reading with the shortest topic is the right one."""
    bare = _unwrapped(text)
    readings = [
        _Talk(key, match["topic"].strip())
        for key, pattern in _patterns()
        if (match := pattern.fullmatch(bare)) is not None and not _PRONOUN_TOPICS.fullmatch(match["topic"].strip())
    ]
    return min(readings, key=lambda talk: len(talk.topic), default=None)


@cache
def _endings() -> tuple[str, ...]:
    ends = {wrapper.split("{question}")[1].strip() for wrapper in phrasings.WRAPPERS}
    return tuple(sorted((end for end in ends if end), key=len, reverse=True))


def _unwrapped(text: str) -> str:
    bare = text.strip()
    for end in _endings():
        bare = bare.removesuffix(end).strip()
    return bare.strip("*\"' \n").rstrip("?.! ")


def _described(topic: str) -> str:
    """Return the name in a description, or the topic itself where it is a name."""
    for form in (*templates.CITY_DESCRIPTIONS, *templates.CAPITAL_DESCRIPTIONS):
        before, after = (re.escape(part) for part in form.split("{city}"))
        match = re.fullmatch(f"{before}(.+){after}", topic, re.IGNORECASE)
        if match is not None:
            return match[1]
    return topic


def _description_in(text: str) -> str | None:
    """Return the description of a country that ``text`` holds, the longest one."""
    found = [match[0] for pattern in _descriptions() if (match := pattern.search(text)) is not None]
    return max(found, key=len, default=None)


@cache
def _descriptions() -> tuple[re.Pattern[str], ...]:
    """Return the forms of descriptions within a text; a name has capitals, and small words between them."""
    word = r"[^\W\d_a-z][\w'’.-]*"
    name = rf"{word}(?:[ -](?:(?:de|da|do|del|la|el|of|an|der|the|am|sur|en|ye|al)[ -])*{word})*"
    forms = (*templates.CITY_DESCRIPTIONS, *templates.CAPITAL_DESCRIPTIONS)
    parts = [[re.escape(part) for part in form.split("{city}")] for form in forms]
    return tuple(re.compile(f"{before}{name}{after}") for before, after in parts)


def _new_place(text: str) -> str | None:
    """Return the place that is left of ``text`` without its fillers; None where it is no ellipsis."""
    has_cue = _CUE.match(text) is not None
    words = text.strip().strip('*"').split()
    while words and _bare(words[0]) in _FILLERS | {"the"}:
        if _bare(words[0]) == "the" and len(words) > 1 and _bare(words[1]) not in _FILLERS:
            break
        words.pop(0)
    while words and _bare(words[-1]) in _FILLERS:
        words.pop()
    place = " ".join(words).rstrip("?.!, ").removesuffix("'s")
    is_described = place != _described(place)
    if not place or (len(words) > _PLACE_WORDS and not is_described) or re.search(r"[.!?;:]\s", place):
        return None
    if is_described:
        return place
    names = _names_of_world()
    if place.removeprefix("the ").lower() not in names.places:
        return None
    is_country = place.lower() in names.countries
    return place if has_cue or is_country or (text.rstrip().endswith("?") and _is_name(place.split())) else None


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of the world in lower case, without ``the``."""

    countries: frozenset[str]
    places: frozenset[str]
    """Of countries and cities."""


@cache
def _names_of_world() -> _Names:
    world = load_world()
    phrases = (name for country in world.countries.values() for name in (country.name, country.phrase))
    countries = frozenset(name.lower().removeprefix("the ") for name in phrases)
    capitals = {country.capital.lower() for country in world.countries.values()}
    return _Names(countries, countries | capitals | {city.name.lower() for city in world.cities})


@cache
def _asking() -> frozenset[str]:
    """Return the words in which something can be asked about ``it``."""
    of_wordings = {_bare(word) for texts in it.IT.values() for text in texts for word in text.split()}
    return _FILLERS | _WORDS_OF_ASKING | of_wordings


def _other_words(text: str) -> str:
    """Return the words of ``text`` that are none of asking: perhaps what it asks about."""
    words = re.split(r"[\s/-]+", text.strip())
    others = (word for word in words if _bare(word) and _bare(word).removesuffix("'s") not in _asking())
    return " ".join(word.strip(',.!?:;*"()') for word in others)


def _bare(word: str) -> str:
    return word.strip(',.!?:;*"').lower()


def _is_name(words: Sequence[str]) -> bool:
    """Return whether words that begin with a capital are a name, and no sentence: all but small ones have capitals."""
    return all(
        word[:1].isupper() or _bare(word) in ("of", "and", "the", "de", "la", "da", "del", "do") for word in words
    )


@cache
def _bare_texts(texts: Sequence[str]) -> frozenset[str]:
    return frozenset(text.lower().rstrip("?!. ") for text in texts)


def _is_chatter(text: str) -> bool:
    bare = text.strip().lower().rstrip("?!. ")
    kinds = (chatter.GREETINGS, chatter.THANKS, chatter.ABOUT_YOU, chatter.OTHER)
    return any(bare in _bare_texts(texts) for texts in kinds)


def _place_of(answer: str) -> str:
    """Return the place that an answer names: a short one itself, of a sentence what follows its last ``is``."""
    line = answer.strip().split("\n")[0]
    line = re.sub(r"\s*\[\d+\]", "", line).strip('*" ')
    line = re.split(r"(?<=\w)[.!] ", line)[0].rstrip(".!")
    return _ANSWER_LEADS.sub("", line).strip('*" ')
