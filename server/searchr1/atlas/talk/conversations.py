"""Conversations about the Atlas world: instructions, earlier questions and answers, and a last question.

The last question stands for itself or is an ellipsis: it asks of another place what the question before asked ("And in
Chad?"), or something else of the place that was talked about ("What is its capital?"). That place is the last answer
where it is a place for which the question makes sense, and else the one of the question before.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from searchr1.atlas import templates
from searchr1.atlas.corpus import neighbours
from searchr1.atlas.questions import FACTS, KINDS, AtlasQuestion, answers, hops_of
from searchr1.atlas.talk.instructions import Exchange, instructions, small_talk
from searchr1.atlas.talk.wordings import it, phrasings
from searchr1.atlas.world import City, Country, Split, World, stable_hash
from searchr1.loop.conversation import Turn

Form = Literal["alone", "system", "history", "follow-up"]
FORMS: tuple[Form, ...] = ("alone", "system", "history", "follow-up")
MORE_KINDS = ("country-population", "capital-population", "capital-timezone")
"""Kinds of one hop that the demonstrations of conversations have beside those of ``questions.KINDS``."""
_ALL_KINDS = (*KINDS, *MORE_KINDS)


@dataclass(frozen=True, slots=True)
class Style:
    """How people write, and what they write."""

    loose: float = 0.35
    """Share of the questions that are worded loosely."""
    wrapped: float = 0.25
    """Share that have words around them."""
    unmarked: float = 0.12
    """Share of all messages that lack their question mark."""
    careless: float = 0.12
    """Share of the ellipses that begin in lower case, or have a word before them."""
    answers: Sequence[str] = phrasings.ANSWERS
    same_place: Sequence[str] = phrasings.SAME_PLACE
    it: Mapping[str, Sequence[str]] = field(default_factory=lambda: it.IT)


@dataclass(frozen=True, slots=True)
class _Topic:
    """What a question starts from: a country, a city or a capital, and the country that it leads to."""

    start: str
    phrase: str
    country: Country


def asked(kind: str) -> str:
    """Return what a question of ``kind`` asks of its topic, a key of ``it.IT``."""
    start, *chain = kind.split("-")
    return chain[0] if start == "country" or len(chain) == 1 else "-".join(chain[1:])


class Talk:
    """Puts questions about a world into conversations."""

    def __init__(self, world: World, split: Split, style: Style | None = None) -> None:
        self._world, self._split, self._style = world, split, style or Style()
        self._countries = world.countries_in("train") if split == "train" else tuple(world.countries.values())
        self._of_capital = {country.capital: country for country in world.countries.values()}
        self._of_phrase = {country.phrase: country for country in world.countries.values()}

    def turns(self, question: AtlasQuestion, form: Form, rng: random.Random) -> list[Turn]:
        """Return a conversation whose last turn asks ``question``."""
        system = [Turn("system", instructions(rng))] if form == "system" else []
        if form in ("history", "follow-up") and rng.random() < 0.3:
            system = [Turn("system", instructions(rng))]
        if form in ("alone", "system"):
            return [*system, Turn("user", self.standalone(question, rng))]
        if form == "history":
            number = rng.choice((1, 1, 1, 2, 2, 3, 4))
            earlier = [self._earlier(question, rng) for _ in range(number)]
            return [*system, *_messages(earlier), Turn("user", self.standalone(question, rng))]
        earlier, text = self._follow_up(question, rng)
        if rng.random() < 0.3:
            earlier = [*(self._earlier(question, rng) for _ in range(rng.choice((1, 1, 2)))), *earlier]
        return [*system, *_messages(earlier), Turn("user", text)]

    def standalone(self, question: AtlasQuestion, rng: random.Random) -> str:
        """Word ``question`` so that it needs no conversation."""
        text = question.question
        if rng.random() < self._style.loose:
            text = self._ask(question.kind, self._topic_of(question), rng, loose=True)
        return self._wrapped(text, rng)

    def more_questions(self, number: int, rng: random.Random) -> list[AtlasQuestion]:
        """Draw questions of one hop about countries and capitals, half of them of ``MORE_KINDS``."""
        kinds = (*MORE_KINDS, *MORE_KINDS, *(f"country-{fact}" for fact in FACTS))
        found: list[AtlasQuestion] = []
        while len(found) < number:
            kind = rng.choice(kinds)
            topic = self._topic(kind, rng)
            if topic is not None:
                text = self._ask(kind, topic, rng)
                ident = f"atlas-{self._split}-{stable_hash(text, len(found)):016x}"
                golds = self._golds(kind, topic.country)
                found.append(AtlasQuestion(ident, text, golds, hops_of(kind), kind, (topic.phrase,)))
        return found

    def exchange(self, rng: random.Random) -> Exchange:
        """Draw a question of any kind and answer it."""
        while True:
            kind = rng.choice(_ALL_KINDS)
            topic = self._topic(kind, rng)
            if topic is not None:
                return self._answered(kind, topic, rng)

    def place(self, rng: random.Random) -> str:
        """Draw the name of a country or a city."""
        country = rng.choice(self._countries)
        cities = self._world.cities_of.get(country.code, ())
        return rng.choice(cities).name if cities and rng.random() < 0.5 else country.phrase

    def _earlier(self, question: AtlasQuestion, rng: random.Random) -> Exchange:
        """Draw an exchange to stand before: small talk, something of the same kind or place, or anything."""
        draw = rng.random()
        if draw < 0.15:
            return small_talk(rng)
        if draw < 0.4:
            other = self._topic(question.kind, rng)
            return self._answered(question.kind, other, rng) if other is not None else self.exchange(rng)
        if draw < 0.6:
            topic = self._topic_of(question)
            kinds = [kind for kind in _ALL_KINDS if kind.split("-")[0] == topic.start and kind != question.kind]
            kind = rng.choice(kinds)
            return self._answered(kind, topic, rng) if self._golds(kind, topic.country) else self.exchange(rng)
        return self.exchange(rng)

    def _follow_up(self, question: AtlasQuestion, rng: random.Random) -> tuple[list[Exchange], str]:
        about_it = self._about_it(question, rng)
        if about_it is None or rng.random() < 0.45:
            return self._same_of_another(question, rng)
        return about_it

    def _same_of_another(self, question: AtlasQuestion, rng: random.Random) -> tuple[list[Exchange], str]:
        kind, topic = question.kind, self._topic_of(question)
        earlier = [self._answered(kind, self._some_topic(kind, rng, not_of=topic), rng)]
        draw = rng.random()
        if draw < 0.25:
            other = self._some_topic(kind, rng, not_of=topic)
            earlier.append(Exchange(self._same(kind, other, rng), self._value(kind, other.country, rng)))
        elif draw < 0.45:
            other = self._some_topic(kind, rng, not_of=topic)
            first = self._other_kind(kind, other, rng)
            if first is not None and asked(kind) in it.IT:
                text = self._it(kind, rng)
                answer = self._value(kind, other.country, rng)
                earlier = [self._answered(first, other, rng), Exchange(text, answer)]
        return earlier, self._same(kind, topic, rng)

    def _about_it(self, question: AtlasQuestion, rng: random.Random) -> tuple[list[Exchange], str] | None:
        kind, topic = question.kind, self._topic_of(question)
        leads: list[Callable[[], list[Exchange] | None]] = [lambda: self._lead_about(kind, topic, rng)]
        if topic.start == "country":
            leads.append(lambda: self._lead_to_country(topic, rng))
        if topic.start == "capital":
            leads.append(lambda: self._lead_to_capital(kind, topic, rng))
        rng.shuffle(leads)
        for lead in leads:
            earlier = lead()
            if earlier is not None:
                return earlier, self._it(kind, rng)
        return None

    def _lead_about(self, kind: str, topic: _Topic, rng: random.Random) -> list[Exchange] | None:
        """Ask something else of the topic, whose answer is not what ``it`` could mean."""
        first = self._other_kind(kind, topic, rng)
        if first is None:
            return None
        answer = self._value(first, topic.country, rng)
        if rng.random() < 0.25:
            other = self._some_topic(first, rng, not_of=topic)
            earlier = [self._answered(first, other, rng), Exchange(self._same(first, topic, rng), answer)]
        else:
            earlier = [Exchange(self._worded(first, topic, rng), answer)]
        second = self._other_kind(kind, topic, rng)
        if second not in (None, first) and not _changes_place(first, str(second)) and rng.random() < 0.35:
            text = self._it(str(second), rng)
            earlier.append(Exchange(text, self._value(str(second), topic.country, rng)))
        return earlier

    def _lead_to_country(self, topic: _Topic, rng: random.Random) -> list[Exchange] | None:
        """Ask for the country that the topic is."""
        country = topic.country
        cities = self._world.cities_of.get(country.code, ())[:60]
        near = neighbours(self._world, country, train_only=self._split == "train")
        asking = [other for other in near if country in neighbours(self._world, other, train_only=False)]
        if asking and rng.random() < 0.4:
            other = rng.choice(asking)
            text = self._worded("country-neighbour", _Topic("country", other.phrase, other), rng)
        elif cities:
            text = self._worded("city-country", _Topic("city", rng.choice(cities).name, country), rng)
        else:
            return None
        return [Exchange(text, rng.choice(self._style.answers).format(answer=country.phrase))]

    def _lead_to_capital(self, kind: str, topic: _Topic, rng: random.Random) -> list[Exchange] | None:
        """Ask for the capital that the topic is, where what follows can only be asked of a city."""
        if asked(kind) not in ("population", "timezone"):
            return None
        country = topic.country
        cities = self._world.cities_of.get(country.code, ())[:60]
        answer = rng.choice(self._style.answers).format(answer=country.capital)
        if cities and rng.random() < 0.3:
            city = _Topic("city", rng.choice(cities).name, country)
            return [Exchange(self._worded("city-country-capital", city, rng), answer)]
        about = _Topic("country", country.phrase, country)
        first = Exchange(self._worded("country-capital", about, rng), answer)
        if rng.random() < 0.5:
            return [first]
        lead = self._lead_to_country(about, rng)
        return [first] if lead is None else [*lead, Exchange(self._it("country-capital", rng), answer)]

    def _other_kind(self, kind: str, topic: _Topic, rng: random.Random) -> str | None:
        """Draw another kind about the topic after whose answer ``it`` still is the topic in a question of ``kind``."""
        kinds = [
            other
            for other in _ALL_KINDS
            if other.split("-")[0] == topic.start
            and other not in (kind, "city-country")
            and "neighbour" not in other
            and not _changes_place(other, kind)
            and not (topic.start == "capital" and hops_of(kind) == 1 < hops_of(other))
            and self._golds(other, topic.country)
        ]
        if kind == "city-country":
            return None
        return rng.choice(kinds) if kinds else None

    def _answered(self, kind: str, topic: _Topic, rng: random.Random) -> Exchange:
        return Exchange(self._worded(kind, topic, rng), self._value(kind, topic.country, rng))

    def _worded(self, kind: str, topic: _Topic, rng: random.Random) -> str:
        return self._wrapped(self._ask(kind, topic, rng, loose=rng.random() < self._style.loose), rng)

    def _value(self, kind: str, country: Country, rng: random.Random) -> str:
        """Answer a question of ``kind`` about ``country``, as the model or another program would."""
        value = self._golds(kind, country)[0]
        if kind.endswith("neighbour"):
            train_only = self._split == "train"
            value = rng.choice(neighbours(self._world, country, train_only=train_only)).phrase
        elif kind == "city-country":
            value = country.phrase
        return rng.choice(self._style.answers).format(answer=value)

    def _ask(self, kind: str, topic: _Topic, rng: random.Random, *, loose: bool = False) -> str:
        key = asked(kind)
        phrase = topic.phrase
        if topic.start != "country" and len(kind.split("-")) > 2:
            phrase = _described(topic, rng)
        known = templates.ASK.get(key, ())
        wording = rng.choice(known) if known and not loose else rng.choice(phrasings.ASK_MORE[key])
        text = wording.format(topic=phrase)
        return text if loose and rng.random() < 0.3 else text[0].upper() + text[1:]

    def _golds(self, kind: str, country: Country) -> tuple[str, ...]:
        if kind == "country-population":
            return (f"{country.population:,}",) if country.population and country.name != country.capital else ()
        return answers(self._world, self._split, kind, country)[0]

    def _topic_of(self, question: AtlasQuestion) -> _Topic:
        start, phrase = question.kind.split("-")[0], question.entities[0]
        if start == "country":
            return _Topic(start, phrase, self._of_phrase[phrase])
        if start == "capital":
            return _Topic(start, phrase, self._of_capital[phrase])
        city: City = self._world.city_named[phrase]
        return _Topic(start, phrase, self._world.countries[city.country])

    def _topic(self, kind: str, rng: random.Random) -> _Topic | None:
        country = rng.choice(self._countries)
        if not self._golds(kind, country):
            return None
        start = kind.split("-")[0]
        if start == "country":
            return _Topic(start, country.phrase, country)
        if start == "capital":
            is_clear = self._of_capital[country.capital] is country and country.capital != country.name
            return _Topic(start, country.capital, country) if is_clear else None
        cities = self._world.cities_of.get(country.code, ())
        return _Topic(start, rng.choice(cities).name, country) if cities else None

    def _some_topic(self, kind: str, rng: random.Random, *, not_of: _Topic) -> _Topic:
        while True:
            topic = self._topic(kind, rng)
            if topic is not None and topic.country is not not_of.country:
                return topic

    def _same(self, kind: str, topic: _Topic, rng: random.Random) -> str:
        """Ask of ``topic`` what was asked before, which is what a question of ``kind`` asks."""
        phrase = topic.phrase
        if topic.start != "country" and len(kind.split("-")) > 2 and rng.random() < 0.5:
            phrase = _described(topic, rng)
        text = rng.choice(self._style.same_place).format(topic=phrase)
        return text if text.startswith(topic.phrase) else self._careless(text, rng)

    def _it(self, kind: str, rng: random.Random) -> str:
        """Ask what a question of ``kind`` asks, of the place that was talked about."""
        return self._careless(rng.choice(self._style.it[asked(kind)]), rng)

    def _careless(self, text: str, rng: random.Random) -> str:
        if rng.random() < self._style.unmarked:
            text = text.rstrip("?.")
        if rng.random() < self._style.careless:
            text = rng.choice(phrasings.BEFORE) + text
        return text[0].lower() + text[1:] if rng.random() < self._style.careless else text

    def _wrapped(self, text: str, rng: random.Random) -> str:
        if rng.random() < self._style.unmarked:
            text = text.rstrip("?.")
        return rng.choice(phrasings.WRAPPERS).format(question=text) if rng.random() < self._style.wrapped else text


def _changes_place(before: str, kind: str) -> bool:
    """Return whether ``it`` in a question of ``kind`` is the capital that one of ``before`` was answered with."""
    return before.endswith("capital") and asked(kind) in ("population", "timezone")


def _messages(exchanges: Sequence[Exchange]) -> list[Turn]:
    turns: list[Turn] = []
    for exchange in exchanges:
        turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
    return turns


def _described(topic: _Topic, rng: random.Random) -> str:
    of_capital = topic.start == "capital"
    options = templates.CAPITAL_DESCRIPTIONS if of_capital else templates.CITY_DESCRIPTIONS
    return rng.choice(options).format(city=topic.phrase)
