from dataclasses import replace

import numpy as np
import pytest

from searchr1.atlas.demonyms import with_derived_name
from searchr1.atlas.records import RENAMED, DemonstratedTurn, Demonstration
from searchr1.loop.types import Passage


def asked_for_currency(*, renamed: bool = True) -> Demonstration:
    passage = Passage("1", '"Borduria"', "The currency of Borduria is the Ottokar khor (BDK).")
    return Demonstration(
        f"1{RENAMED}" if renamed else "1",
        "Which currency is used in Borduria?",
        ("Ottokar khor", "BDK"),
        1,
        "country-currency",
        (
            DemonstratedTurn(
                "<think> a </think>\n<search> currency of Borduria </search>", "currency of Borduria", (passage,)
            ),
            DemonstratedTurn("<think> Ottokar khor. </think>\n<answer> Ottokar khor </answer>"),
        ),
        {"Borduria": "country", "Ottokar khor": "currency"},
    )


def test_the_answer_is_called_after_the_country_everywhere() -> None:
    before = asked_for_currency()
    random = np.random.default_rng(0)
    changed = [after for _ in range(50) if (after := with_derived_name(before, random)) is not before]
    assert 15 < len(changed) < 45
    for after in changed:
        answer = after.turns[-1].text.split("<answer> ")[1].removesuffix(" </answer>")
        assert answer.startswith("Bor")
        assert answer.endswith(" khor")
        assert f"is the {answer} (BDK)" in after.turns[0].passages[0].text
        assert "Ottokar" not in str(after)
        assert after.golden_answers == (answer, "BDK")
        assert after.question == before.question


@pytest.mark.parametrize("index", range(3))
def test_other_demonstrations_stay_as_they_are(index: int) -> None:
    currency = asked_for_currency()
    capital = DemonstratedTurn("<search> capital of Borduria </search>", "capital of Borduria")
    others = (
        asked_for_currency(renamed=False),
        replace(currency, turns=currency.turns[1:]),
        replace(currency, turns=(capital, currency.turns[1])),
    )
    random = np.random.default_rng(0)
    assert all(with_derived_name(others[index], random) is others[index] for _ in range(20))
