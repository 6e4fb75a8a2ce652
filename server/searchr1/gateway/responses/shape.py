"""The projection of a run to OpenAI's Responses: the stream of events, and the response that they add up to.

Rules
-----
1. It is a projection: the same native events always give the same Responses events, numbers and ids. There is no
   second log, and any replica can take up any stream.
2. Ids come from the run's: ``resp_X`` has the items ``rs_X_N`` and ``ws_X_N`` (reasoning and search of turn N) and
   ``msg_X``.
3. The answer leaves as a whole, when it is final: text inside an ``<answer>`` that the model never closes is none.
4. Every item that was added is done before the response ends.
5. Searches are items of their own where the request names the web search, in its tools or in ``include``. Elsewhere a
   client need not know such items, and a search is a line of its turn's reasoning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from searchr1.gateway.openai.tools import is_web_search
from searchr1.gateway.responses import items
from searchr1.gateway.responses.items import Json
from searchr1.gateway.runs.store.base import RunMeta
from searchr1_client import events as wire

_ENDS = {
    "completed": ("completed", None),
    "exhausted": ("incomplete", "max_messages"),
    "truncated": ("incomplete", "max_output_tokens"),
    "deadline": ("incomplete", "max_output_tokens"),
    "cancelled": ("cancelled", None),
}
"""Status of the response, and why it is incomplete, by status of the run."""


@dataclass(slots=True)
class _Reasoning:
    """The reasoning item that is being written."""

    index: int
    item_id: str
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@dataclass(frozen=True, slots=True)
class _Search:
    """The search that is under way."""

    index: int
    item_id: str
    query: str


class ResponseShape:
    """The shape of a Response, made of one run's events in order.

    ``add`` returns a stream's events, ``response`` the object they add up to.
    """

    def __init__(self, meta: RunMeta, *, include: frozenset[str] | None = None) -> None:
        """``include`` adds to what the request itself included."""
        self._meta = meta
        self._include = frozenset(meta.request["include"]) | (include or frozenset())
        self._shows_searches = _names_search(meta.request)
        self._summarized = meta.request["fields"]["reasoning"]["summary"] is not None
        self._key = key_of(meta.id)
        self._sequence = 0
        self._output: list[Json] = []
        self._reasoning: _Reasoning | None = None
        self._search: _Search | None = None
        self._status = "in_progress"
        self._incomplete: str | None = None
        self._error: Json | None = None
        self._usage: wire.Usage | None = None

    @property
    def num_sent(self) -> int:
        """Number of Responses events so far: the next one's ``sequence_number``."""
        return self._sequence

    @property
    def ended(self) -> bool:
        """True once the last event came."""
        return self._status != "in_progress"

    def add(self, event: wire.KnownEvent) -> list[Json]:
        """Return the Responses events of a native event; none where it has no counterpart."""
        made = []
        for one in self._told(event):
            made.append({**one, "sequence_number": self._sequence})
            self._sequence += 1
        return made

    def response(self) -> Json:
        """Return the response object as it stands."""
        if self._reasoning is not None:
            self._output[self._reasoning.index] = self._reasoning_item("in_progress")
        ended_after_s = 0.0 if self._usage is None else self._usage.duration_ms / 1000
        return {
            **self._meta.request["fields"],
            "id": self._meta.id,
            "object": "response",
            "created_at": self._meta.created,
            "completed_at": int(self._meta.created + ended_after_s) if self._status == "completed" else None,
            "status": self._status,
            "model": self._meta.model,
            "output": list(self._output),
            "error": self._error,
            "incomplete_details": None if self._incomplete is None else {"reason": self._incomplete},
            "usage": None if self._usage is None else items.usage_object(self._usage),
        }

    def _told(self, event: wire.KnownEvent) -> Iterator[Json]:
        match event:
            case wire.RunStarted():
                yield self._life("created")
                yield self._life("in_progress")
            case wire.ThinkDelta():
                yield from self._think(event.turn, event.text)
            case wire.SearchStarted():
                if not self._shows_searches:
                    yield from self._think(event.turn, f"\n[search] {event.query}\n")
                yield from self._close_reasoning()
                if self._shows_searches:
                    yield from self._open_search(event.turn, event.query)
            case wire.SearchCompleted():
                yield from self._close_search("completed", event.passages)
            case wire.SearchFailed():
                yield from self._close_search("failed", [])
            case wire.ActionInvalid():
                yield from self._close_reasoning()
            case wire.AnswerCompleted():
                yield from self._close_reasoning()
                yield from self._answer(event)
            case wire.RunCompleted():
                yield from self._close_all()
                self._status, self._incomplete = _ENDS[event.status]
                self._usage = event.usage
                # OpenAI has no event for a cancelled response: the status in it tells.
                yield self._life("completed" if self._status == "completed" else "incomplete")
            case wire.RunFailed():
                yield from self._close_all()
                self._status, self._usage = "failed", event.usage
                self._error = {"code": "server_error", "message": event.error.message}
                yield self._life("failed")

    def _life(self, what: Literal["created", "in_progress", "completed", "incomplete", "failed"]) -> Json:
        return {"type": f"response.{what}", "response": self.response()}

    def _think(self, turn: int, text: str) -> Iterator[Json]:
        if self._reasoning is None:
            text = text.lstrip()
            if not text:
                return
            yield from self._open_reasoning(turn)
        reasoning = cast(_Reasoning, self._reasoning)
        reasoning.texts.append(text)
        where = {"item_id": reasoning.item_id, "output_index": reasoning.index}
        yield {"type": "response.reasoning_text.delta", **where, "content_index": 0, "delta": text}
        if self._summarized:
            yield {"type": "response.reasoning_summary_text.delta", **where, "summary_index": 0, "delta": text}

    def _open_reasoning(self, turn: int) -> Iterator[Json]:
        index, item_id = len(self._output), f"rs_{self._key}_{turn}"
        self._reasoning = _Reasoning(index, item_id)
        yield self._add_item(items.reasoning_item(item_id, None, status="in_progress", summarized=False))
        where = {"item_id": item_id, "output_index": index}
        yield {"type": "response.content_part.added", **where, "content_index": 0, "part": items.reasoning_part("")}
        if self._summarized:
            part = items.summary_part("")
            yield {"type": "response.reasoning_summary_part.added", **where, "summary_index": 0, "part": part}

    def _close_reasoning(self, status: str = "completed") -> Iterator[Json]:
        if self._reasoning is None:
            return
        index, item_id, text = self._reasoning.index, self._reasoning.item_id, self._reasoning.text
        item = self._reasoning_item(status)
        self._reasoning = None
        where = {"item_id": item_id, "output_index": index}
        yield {"type": "response.reasoning_text.done", **where, "content_index": 0, "text": text}
        yield {"type": "response.content_part.done", **where, "content_index": 0, "part": items.reasoning_part(text)}
        if self._summarized:
            part = items.summary_part(text)
            yield {"type": "response.reasoning_summary_text.done", **where, "summary_index": 0, "text": text}
            yield {"type": "response.reasoning_summary_part.done", **where, "summary_index": 0, "part": part}
        yield self._finish_item(index, item)

    def _reasoning_item(self, status: str) -> Json:
        open_item = cast(_Reasoning, self._reasoning)
        return items.reasoning_item(open_item.item_id, open_item.text, status=status, summarized=self._summarized)

    def _open_search(self, turn: int, query: str) -> Iterator[Json]:
        index, item_id = len(self._output), f"ws_{self._key}_{turn}"
        self._search = _Search(index, item_id, query)
        yield self._add_item(self._search_item("in_progress", []))
        where = {"item_id": item_id, "output_index": index}
        yield {"type": "response.web_search_call.in_progress", **where}
        self._output[index] = self._search_item("searching", [])
        yield {"type": "response.web_search_call.searching", **where}

    def _close_search(self, status: str, passages: list[wire.WirePassage]) -> Iterator[Json]:
        if self._search is None:
            return
        index, item_id = self._search.index, self._search.item_id
        item = self._search_item(status, passages)
        self._search = None
        if status == "completed":
            yield {"type": "response.web_search_call.completed", "item_id": item_id, "output_index": index}
        yield self._finish_item(index, item)

    def _search_item(self, status: str, passages: list[wire.WirePassage]) -> Json:
        search = cast(_Search, self._search)
        return items.search_item(search.item_id, search.query, passages, status=status, include=self._include)

    def _answer(self, event: wire.AnswerCompleted) -> Iterator[Json]:
        index, item_id, text = len(self._output), f"msg_{self._key}", event.text
        citations = items.url_citations(text, event.citations)
        part = items.text_part(text, citations)
        yield self._add_item(items.message_item(item_id, [], status="in_progress"))
        where = {"item_id": item_id, "output_index": index, "content_index": 0}
        yield {"type": "response.content_part.added", **where, "part": items.text_part("", [])}
        if text:
            yield {"type": "response.output_text.delta", **where, "delta": text, "logprobs": []}
        for i, citation in enumerate(citations):
            said: dict[str, Any] = {"annotation_index": i, "annotation": citation}
            yield {"type": "response.output_text.annotation.added", **where, **said}
        yield {"type": "response.output_text.done", **where, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}
        yield self._finish_item(index, items.message_item(item_id, [part], status="completed"))

    def _close_all(self) -> Iterator[Json]:
        """Close what the run's end broke off."""
        yield from self._close_reasoning("incomplete")
        yield from self._close_search("incomplete", [])

    def _add_item(self, item: Json) -> Json:
        self._output.append(item)
        return {"type": "response.output_item.added", "output_index": len(self._output) - 1, "item": item}

    def _finish_item(self, index: int, item: Json) -> Json:
        self._output[index] = item
        return {"type": "response.output_item.done", "output_index": index, "item": item}


def response_of(meta: RunMeta, run: wire.Run, *, include: frozenset[str] | None = None) -> Json:
    """Return the response object of a run as it stands: the same that its events add up to."""
    shape = ResponseShape(meta, include=include)
    for event in _events_of(run):
        shape.add(event)
    return shape.response()


def key_of(response_id: str) -> str:
    """Return the part that a response's id and the ids of its items share."""
    return response_id.removeprefix("resp_")


def _names_search(request: Json) -> bool:
    tools, include = request["fields"]["tools"], request["include"]
    return any(map(is_web_search, tools)) or any(name.startswith("web_search_call.") for name in include)


def _events_of(run: wire.Run) -> Iterator[wire.KnownEvent]:
    """Yield events that add up to ``run``. Their numbers and times do not matter."""
    last_turn = run.steps[-1].turn if run.steps else 0
    for step in run.steps:
        at = _stamp(run, step.turn)
        if step.reasoning:
            yield wire.ThinkDelta(**at, text=step.reasoning)
        if step.query is not None:
            yield wire.SearchStarted(**at, query=step.query)
            took_ms = step.duration_ms or 0.0
            if step.search_error is not None:
                yield wire.SearchFailed(**at, query=step.query, error=step.search_error, duration_ms=took_ms)
            elif step.cache is not None:
                passages = step.passages
                yield wire.SearchCompleted(
                    **at, query=step.query, passages=passages, cache=step.cache, duration_ms=took_ms
                )
        if step.invalid is not None:
            yield wire.ActionInvalid(**at, reason=step.invalid)
    at = _stamp(run, last_turn)
    if run.answer is not None:
        yield wire.AnswerCompleted(**at, text=run.answer, citations=run.citations)
    if run.error is not None:
        yield wire.RunFailed(**at, error=run.error, usage=run.usage)
    elif run.status != "running":
        yield wire.RunCompleted(**at, status=run.status, usage=run.usage)


def _stamp(run: wire.Run, turn: int) -> dict[str, Any]:
    return {"seq": 0, "run_id": run.id, "turn": turn, "t_ms": 0.0}
