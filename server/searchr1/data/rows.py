"""Rows of questions in the shapes that people have: upstream's, verl's, SkyRL's, FlashRAG's, and hand-written ones.

Where a row says the same in several places, the first place that is not empty counts.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Values = Mapping[str, Any]

COLUMNS = (
    *("id", "_id", "qid", "question_id", "question", "query", "prompt", "extra_info"),
    *(
        "golden_answers",
        "golden_answer",
        "answers",
        "target",
        "reward_model",
        "reward_spec",
        "answer",
        "answer_aliases",
    ),
    *("answer_aliases", "data_source", "dataset", "hops", "kind"),
)
"""Columns of a table that ``row_values`` looks into."""
_ID_FIELDS = ("id", "_id", "qid", "question_id")
_ANSWER_FIELDS = ("golden_answers", "golden_answer", "answers", "target")
_REWARD_FIELDS = ("reward_model", "reward_spec")
ANSWER_COLUMNS = (*_ANSWER_FIELDS, *_REWARD_FIELDS, "answer")
QUESTION_COLUMNS = ("question", "query", "prompt", "extra_info")
RUN = "research.run"
"""The ``object`` of an exported run, which knows no golden answers: its ``answer`` is the model's."""
_ASKS = "Question:"
"""The last words of upstream's template before the question."""


def row_values(row: Values, *, place: str) -> dict[str, Any]:
    """Return id, question, answers and the rest of ``row`` under our names; what is not there is left out.

    Without an id of its own a row is called by its split and index, or by ``place``. Answers are a list of texts, where
    they are texts or numbers, however deep they lie; anything else is left to validation.
    """
    extra = _object(row.get("extra_info"))
    found = {name: row[name] for name in ("hops", "kind", "data_source", "object", "trajectory") if name in row}
    if found.get("data_source") is None and isinstance(row.get("dataset"), str):
        found["data_source"] = row["dataset"]
    found["id"] = _first(row, _ID_FIELDS) or _index(extra) or place
    question = _first(row, ("question", "query")) or extra.get("question") or _asked(row.get("prompt"))
    if question is not None:
        found["question"] = question
    answers = next((texts for texts in map(_texts, _answers(row)) if texts), None)
    if answers is not None:
        found["golden_answers"] = answers
    return found


def _first(row: Values, names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _index(extra: Values) -> str | None:
    index, split = extra.get("index"), extra.get("split")
    if isinstance(index, bool) or not isinstance(index, int | str):
        return None
    return f"{split}_{index}" if isinstance(split, str) and split else str(index)


def _asked(prompt: object) -> Any:
    """Return the question at the end of a prompt: a text, or messages of which the last one of the user asks it."""
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    said = [one.get("content") for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    if not said or not isinstance(said[-1], str):
        return None
    return said[-1].rpartition(_ASKS)[2].strip()


def _answers(row: Values) -> Iterator[Any]:
    """Yield all places where answers may stand, the likeliest first."""
    yield from (row.get(name) for name in _ANSWER_FIELDS)
    for name in _REWARD_FIELDS:
        rewarded = _object(row.get(name))
        truth = _json(rewarded.get("ground_truth", row.get(name) if not rewarded else None))
        yield truth.get("target") if isinstance(truth, dict) else truth
    if row.get("object") != RUN and not any(name in row for name in (*_ANSWER_FIELDS, *_REWARD_FIELDS)):
        aliases = row.get("answer_aliases")
        yield [row.get("answer"), *aliases] if isinstance(aliases, list) else row.get("answer")


def _texts(value: Any) -> Any:
    """Return the texts of a plain value or of nested lists; None where there are none, other values as they are."""
    value = _json(value)
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return [str(value)] if value not in (None, "") else None
    if not isinstance(value, list | tuple):
        return value
    texts: list[Any] = []
    for one in value:
        found = _texts(one) if isinstance(one, list | tuple | int | float) else one
        texts += found if isinstance(found, list) else [found]
    return texts


def _object(value: Any) -> Values:
    value = _json(value)
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> Any:
    """Return what a JSON text of an object or of texts holds, as tables without nested columns keep them."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    is_texts = isinstance(parsed, list) and all(isinstance(one, str) for one in parsed)
    return parsed if isinstance(parsed, dict) or is_texts else value
