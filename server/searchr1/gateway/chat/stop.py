"""Stop sequences: the answer ends before the first of them. Reasoning is not cut, and neither is the run."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from searchr1.gateway.errors import invalid
from searchr1_client.events import AnswerCompleted, KnownEvent

MAX_STOPS = 4
"""As many as OpenAI takes."""
MAX_STOP_CHARS = 1000


def read_stops(given: Any) -> tuple[str, ...]:
    """Return the stop sequences of a request; blank entries are none.

    Raises:
        ApiError: they are no strings, too many, or too long.
    """
    stops = [given] if isinstance(given, str) else given or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise invalid("'stop': Send a string, or a list of strings.", param="stop", code="invalid_type")
    if len(stops) > MAX_STOPS:
        message = f"'stop' has {len(stops)} entries; at most {MAX_STOPS} are taken."
        raise invalid(message, param="stop", code="above_maximum")
    if (longest := max(map(len, stops), default=0)) > MAX_STOP_CHARS:
        message = f"'stop' has an entry of {longest} characters; at most {MAX_STOP_CHARS} are taken."
        raise invalid(message, param="stop", code="string_too_long")
    return tuple(stop for stop in stops if stop)


def cut(answer: str, stops: Sequence[str]) -> str:
    """Return ``answer`` up to the first stop sequence in it.

    >>> cut("Bamako. Observation: x", ["Obs", "\\n"])
    'Bamako. '
    """
    return answer[: min((at for stop in stops if (at := answer.find(stop)) >= 0), default=len(answer))]


async def stopped(
    events: AsyncGenerator[tuple[int, KnownEvent], None], stops: Sequence[str]
) -> AsyncGenerator[tuple[int, KnownEvent], None]:
    """Yield the events of choices with their answers cut. An answer of which nothing is left cites nothing."""
    async with aclosing(events):
        async for index, event in events:
            if isinstance(event, AnswerCompleted) and (text := cut(event.text, stops)) != event.text:
                yield index, event.model_copy(update={"text": text, "citations": event.citations if text else []})
            else:
                yield index, event
