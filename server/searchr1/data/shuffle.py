"""A shuffle of more questions than memory holds: they wait in a file, and their places are shuffled."""

import random
from array import array
from collections.abc import Generator, Iterable
from pathlib import Path
from tempfile import TemporaryFile

from pydantic import TypeAdapter

from searchr1.data.questions import Question

_QUESTION = TypeAdapter(Question)


def shuffled(questions: Iterable[Question], seed: int, folder: Path) -> Generator[Question]:
    """Yield all questions in an order that depends on ``seed`` and their number alone.

    Memory holds eight bytes a question, an unnamed file in ``folder`` the rest.
    """
    with TemporaryFile(dir=folder) as file:
        places = array("Q")
        place = 0
        for question in questions:
            places.append(place)
            place += file.write(_QUESTION.dump_json(question) + b"\n")
        random.Random(seed).shuffle(places)
        for place in places:
            file.seek(place)
            yield _QUESTION.validate_json(file.readline())
