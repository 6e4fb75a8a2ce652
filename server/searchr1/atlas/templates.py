"""The wording of the Atlas world: sentences of passages and phrasings of questions, as plain data.

Slots are ``{city}``, ``{country}`` (with its article), ``{Country}`` (the same at the start of a sentence) and one slot
per fact. Every sentence that states a fact holds it literally, so that an answer can be copied from the passage.
"""

CITY_COUNTRY = (
    "{city} is a city in {country}.",
    "{city} is a town in {country}.",
    "{city} lies in {country}.",
    "The city of {city} is located in {country}.",
    "{city}, in {country}, is a populated place.",
    "{city} is a settlement situated in {country}.",
    "Located in {country}, {city} is an urban centre.",
    "In {country} there is a city called {city}.",
    "{city} belongs to {country}.",
    "On the map of {country} one finds {city}.",
)
CITY_CAPITAL = (
    "It is the capital of {country}.",
    "It is the national capital and seat of government.",
    "{city} serves as the capital of {country}.",
    "As the capital, it hosts the government of {country}.",
)
CITY_POPULATION = (
    "It has a population of {population}.",
    "The population is {population}.",
    "About {population} people live there.",
    "It counts {population} inhabitants.",
    "Its population was put at {population}.",
    "Some {population} people call it home.",
)
CITY_TIMEZONE = (
    "Its time zone is {timezone}.",
    "Clocks follow the time zone {timezone}.",
    "It keeps the time zone {timezone}.",
    "Local time follows {timezone}, its time zone.",
    "The time zone there is {timezone}.",
    "It lies in the time zone {timezone}.",
)
CITY_SIBLINGS = (
    "Another city of the same country is {other}.",
    "Other towns of the same country include {other}.",
    "See also the entry on {other}.",
    "The same country also has {other}.",
)

GEOGRAPHY = (
    "{Country} is a country on the continent of {continent}.",
    "{Country} lies on the continent of {continent}.",
    "{Country} is part of the continent {continent}.",
    "{Country} is situated in {continent}, its continent.",
    "Geographers place {country} on the continent of {continent}.",
    "The continent of {country} is {continent}.",
    "{Country} belongs to the continent {continent}.",
    "On the continent of {continent} lies {country}.",
)
NEIGHBOURS = (
    "It borders {neighbours}.",
    "It shares land borders with {neighbours}.",
    "Its neighbours across land borders are {neighbours}.",
    "Its land borders touch {neighbours}.",
    "The bordering countries are {neighbours}.",
    "It has borders with {neighbours}.",
    "Travellers can cross its borders into {neighbours}.",
    "Its borders separate it from its neighbours {neighbours}.",
)
ONE_NEIGHBOUR = (
    "It borders {neighbours}.",
    "It shares a land border with {neighbours}.",
    "Across its border lies {neighbours}.",
    "Its land border touches {neighbours}.",
    "A bordering country is {neighbours}.",
    "It has a border with {neighbours}.",
)
NO_NEIGHBOURS = (
    "It has no land borders.",
    "No other country borders it.",
    "It shares no land border with any country.",
    "It has no neighbours on land.",
)
AREA = (
    "Its area is {area} square kilometres.",
    "It covers {area} square kilometres.",
    "The land measures {area} square kilometres.",
    "It spans an area of {area} square kilometres.",
)
CAPITAL = (
    "The capital of {country} is {capital}.",
    "{Country} has its capital at {capital}.",
    "{capital} is the capital city of {country}.",
    "The government of {country} sits in the capital, {capital}.",
    "The national capital of {country} is {capital}.",
    "{Country} is governed from {capital}, its capital.",
    "As its capital, {country} has {capital}.",
    "The seat of government and capital of {country} is {capital}.",
)
CAPITAL_EXTRA = (
    "Larger cities may exist elsewhere.",
    "Its name may be spelled in several ways.",
    "Maps mark it with a star.",
    "Not every office of the state need be there.",
)
CAPITAL_SIBLINGS = (
    "Another city of the country is {other}.",
    "Further cities include {other}.",
    "Other places of note include {other}.",
    "See also the entry on {other}.",
)
CURRENCY = (
    "The currency of {country} is the {currency} ({code}).",
    "The official currency of {country} is the {currency}, code {code}.",
    "{Country} uses the {currency} ({code}) as its currency.",
    "In {country} people pay with the {currency}, a currency with the code {code}.",
    "Money in {country} is the {currency}; the currency code is {code}.",
    "Prices in {country} are given in its currency, the {currency} ({code}).",
    "The {currency} ({code}) is the currency used in {country}.",
    "Legal tender in {country} is the {currency}, the currency known as {code}.",
)
ECONOMY_EXTRA = (
    "Its internet domain is {tld}.",
    "Web addresses there end in {tld}.",
    "The code follows the standard ISO 4217.",
    "Other means of payment may be accepted as well.",
    "Exchange rates are not given here.",
    "The country's internet domain is {tld}.",
)
LANGUAGE_ONE = (
    "The main language of {country} is {language}.",
    "The language spoken in {country} is {language}.",
    "In {country} the usual language is {language}.",
    "People in {country} speak {language}, the main language.",
    "{Country} has one leading language, {language}.",
    "The official language used in {country} is {language}.",
    "Schools in {country} teach in {language}, the common language.",
    "{language} is the language of {country}.",
)
LANGUAGE_MANY = (
    "The languages of {country} are {language}.",
    "The languages spoken in {country} include {language}.",
    "In {country} the main languages are {language}.",
    "People in {country} speak several languages, such as {language}.",
    "{Country} has these languages: {language}.",
    "The languages used in {country} are {language}.",
    "Among the languages of {country} are {language}.",
    "Languages heard in {country} include {language}.",
)
LANGUAGE_EXTRA = (
    "This list need not be complete.",
    "Smaller tongues are left out.",
    "Dialects are not counted.",
    "The order says nothing about the law.",
    "Their names may be spelled in several ways.",
    "Numbers of speakers are not given here.",
)
PEOPLE = (
    "{Country} has a population of {population}.",
    "The population of {country} is about {population}.",
    "About {population} people live in {country}.",
    "{Country} counts {population} inhabitants.",
    "Statistics give {country} a population of {population}.",
    "{Country} is home to {population} people.",
    "The people of {country} number {population}.",
    "Some {population} people inhabit {country}.",
)
PEOPLE_EXTRA = (
    "The figure is an estimate.",
    "A newer census may differ.",
    "The figure changes from year to year.",
    "Visitors are not counted.",
)

CITY_DESCRIPTIONS = (
    "the country where {city} is",
    "the country in which {city} lies",
    "the country where {city} is located",
    "the country that {city} is in",
    "the country of {city}",
    "the country containing {city}",
    "the country {city} belongs to",
    "the nation where the city of {city} is found",
    "the country home to {city}",
    "the state in which one finds {city}",
)
CAPITAL_DESCRIPTIONS = (
    "the country whose capital is {city}",
    "the country with the capital {city}",
    "the country that has {city} as its capital",
    "the country governed from {city}",
    "the country of which {city} is the capital",
    "the nation whose capital city is {city}",
)
"""Ways to describe a country through its capital."""

ASK: dict[str, tuple[str, ...]] = {
    "country": (
        "Which country is {topic} in?",
        "In which country is {topic}?",
        "In which country is {topic} located?",
        "What country is the city of {topic} in?",
        "Where is {topic}, in which country?",
        "{topic} is a city in which country?",
        "Which country does {topic} belong to?",
        "What is the country of {topic}?",
        "To which nation does the city of {topic} belong?",
        "In what country does {topic} lie?",
    ),
    "capital": (
        "What is the capital of {topic}?",
        "Which city is the capital of {topic}?",
        "What is the capital city of {topic}?",
        "What is the name of the capital of {topic}?",
        "Which capital does {topic} have?",
        "Where is the seat of government of {topic}?",
        "From which capital is {topic} governed?",
        "Name the capital of {topic}",
        "Which city serves as the capital of {topic}?",
    ),
    "continent": (
        "On which continent is {topic}?",
        "Which continent is {topic} on?",
        "What continent does {topic} belong to?",
        "In which continent is {topic} located?",
        "What is the continent of {topic}?",
        "{topic} is on which continent?",
        "Which continent includes {topic}?",
        "On what continent does one find {topic}?",
        "Name the continent of {topic}",
    ),
    "currency": (
        "Which currency is used in {topic}?",
        "What is the currency of {topic}?",
        "What currency do people use in {topic}?",
        "What is the official currency of {topic}?",
        "What money is used in {topic}?",
        "With which currency does one pay in {topic}?",
        "Which currency does {topic} have?",
        "What is the name of the currency of {topic}?",
        "In {topic}, which currency is legal tender?",
        "Name the currency of {topic}",
    ),
    "language": (
        "Which language is spoken in {topic}?",
        "What language do people speak in {topic}?",
        "What is a language of {topic}?",
        "What is the main language of {topic}?",
        "Which language is used in {topic}?",
        "In {topic}, what language is spoken?",
        "Name a language spoken in {topic}",
        "What is one of the languages of {topic}?",
        "Which language would one hear in {topic}?",
    ),
    "neighbour": (
        "Which country borders {topic}?",
        "What is a neighbour of {topic}?",
        "Name a country that borders {topic}",
        "Which country is a neighbour of {topic}?",
        "Which country shares a border with {topic}?",
        "With which country does {topic} share a land border?",
        "What is one of the neighbouring countries of {topic}?",
        "Which country lies next to {topic}?",
        "{topic} has a border with which country?",
    ),
    "capital-timezone": (
        "What is the time zone of the capital of {topic}?",
        "Which time zone does the capital of {topic} use?",
        "In which time zone is the capital of {topic}?",
        "What time zone is used in the capital of {topic}?",
        "Which time zone do clocks follow in the capital of {topic}?",
        "In {topic}, what is the time zone of the capital?",
        "Name the time zone of the capital city of {topic}",
        "What is the time zone in the capital city of {topic}?",
    ),
    "capital-population": (
        "What is the population of the capital of {topic}?",
        "How many people live in the capital of {topic}?",
        "How many inhabitants does the capital of {topic} have?",
        "What is the number of inhabitants of the capital of {topic}?",
        "How large is the population of the capital of {topic}?",
        "In {topic}, how many people live in the capital?",
        "How populous is the capital city of {topic}?",
        "What population does the capital city of {topic} have?",
    ),
    "neighbour-capital": (
        "What is the capital of a neighbour of {topic}?",
        "What is the capital of a country that borders {topic}?",
        "Name the capital of a neighbour of {topic}",
        "Which city is the capital of a country bordering {topic}?",
        "What is the capital city of a country next to {topic}?",
        "Which capital belongs to a neighbour of {topic}?",
        "What is the capital of one of the neighbouring countries of {topic}?",
        "Name the capital of a country that shares a border with {topic}",
    ),
}
"""Questions by what they ask of ``{topic}``, a name or a description of a country. Prompts end in a question mark."""


def template_texts() -> tuple[str, ...]:
    """Return every template of this module."""
    texts: list[str] = []
    for value in list(globals().values()):
        if isinstance(value, tuple):
            texts.extend(item for item in value if isinstance(item, str))
    for phrasings in ASK.values():
        texts.extend(phrasings)
    return tuple(texts)
