"""Made-up names: of syllables, or after a country, as currencies and languages are called ("Egyptian" after Egypt)."""

import random

_ONSETS = (*"bcdfghjklmnprstvwyz", "br", "ch", "dr", "gr", "kh", "kr", "ny", "sh", "st", "th", "tr")
_VOWELS = (*"aeiouaeiouaeiouaeiouáéíóöüã", "ai", "ei", "ou", "ia")
_CODAS = ("", "", "", "", "l", "m", "n", "r", "s", "t", "k", "ng", "nd")

UNITS = ("dollar", "franc", "pound", "peso", "dinar", "rupee", "crown", "mark", "lira", "real", "dirham", "shilling")
"""Units of made-up currencies."""
SUFFIXES = (
    *("an", "ian", "n", "i", "ese", "ish", "ic", "er", "ti", "tian", "ni", "ean", "se", "ch", "a", "ari", "in"),
    *("vian", "egian", "dian", "rian", "lian", "sian", "nian", "bian", "gian", "nese", "lese", "dese", "ais", "k", "o"),
)
"""Endings of derived names."""
MAX_CUT_LETTERS = 4
"""Letters of the country's name that a derived one may drop, at most."""


def made_up_name(rng: random.Random) -> str:
    """Compose a capitalized name of syllables, now and then of two parts."""
    parts = [_made_up_word(rng)]
    if rng.random() < 0.2:
        parts.append(_made_up_word(rng))
    return rng.choice((" ", " ", "-")).join(parts)


def _made_up_word(rng: random.Random) -> str:
    syllables = rng.choice((2, 2, 2, 3, 3, 4))
    letters = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    return "".join(letters).capitalize()


def doubled_name(rng: random.Random) -> str:
    """Compose a name that says its word twice, as Pago Pago does."""
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS[:10]) for _ in range(rng.choice((1, 2, 2)))).capitalize()
    return rng.choice((f"{word} {word}", f"{word}-{word}", word + word.lower()))


def derived_name(country: str, cut_letters: int, suffix: str) -> str:
    """Return ``country`` without its last ``cut_letters``, but for its first three, and with ``suffix``."""
    return country[: max(3, len(country) - cut_letters)].rstrip() + suffix
