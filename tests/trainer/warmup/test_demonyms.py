import numpy as np
import pytest

from searchr1.loop.types import Passage
from searchr1.trainer.warmup.demonstrations import DemonstratedTurn, Demonstration
from searchr1.trainer.warmup.demonyms import with_derived_name


def asked_for_currency(*, renamed: bool = True) -> Demonstration:
    passage = Passage("1", '"Borduria"', "The currency of Borduria is the Ottokar khor (BDK).")
    return Demonstration(
        "Which currency is used in Borduria?",
        (
            DemonstratedTurn("<think> a </think>\n<search> currency of Borduria </search>", (passage,)),
            DemonstratedTurn("<think> Ottokar khor. </think>\n<answer> Ottokar khor </answer>", ()),
        ),
        renamed=renamed,
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
        assert after.question == before.question


@pytest.mark.parametrize("index", range(3))
def test_other_demonstrations_stay_as_they_are(index: int) -> None:
    currency = asked_for_currency()
    others = (
        asked_for_currency(renamed=False),
        Demonstration("q?", currency.turns[1:], renamed=True),
        Demonstration(
            "q?",
            (DemonstratedTurn("<search> capital of Borduria </search>", ()), currency.turns[1]),
            renamed=True,
        ),
    )
    random = np.random.default_rng(0)
    assert all(with_derived_name(others[index], random) is others[index] for _ in range(20))
