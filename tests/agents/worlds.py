"""A small trace, a tokenizer, and recorded runs, for the tests of this folder."""

import json
from pathlib import Path

from loadtests.agents.trace import Shape, Trace, drawn

SMALL = Shape(num_runs=6, num_searches=(1, 2), passage_chars=120)
TEXT = (
    "<think> Hm. </think> <search> capital of {place} </search>\n\n"
    '<information>Doc 1(Title: "{place}") It is (old) and large.\nDoc 2(Title: "Other") Nothing here.</information>\n\n'
    "So. <answer> {place} </answer> and more"
)


def small_trace() -> Trace:
    """Return six short runs."""
    return Trace(tuple(drawn(SMALL)))


def encode(text: str) -> list[int]:
    """Return the bytes of a text."""
    return list(text.encode())


def write_recorded(folder: Path, places: list[str], *, odd: tuple[str, ...] = ()) -> None:
    """Write recorded runs with one search each, and responses that are no such run."""
    responses = [(place, TEXT.format(place=place)) for place in places] + [("odd", text) for text in odd]
    records = [
        {"id": f"r{n}", "question": f"Where is {place}?", "response": r} for n, (place, r) in enumerate(responses)
    ]
    (folder / "runs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
