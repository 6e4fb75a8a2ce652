"""Runs in the shapes of OpenAI's Chat Completions: whole, and in chunks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from searchr1.gateway.openai.sources import url_of
from searchr1_client import events as wire
from searchr1_client.fold import RunFold

T = TypeVar("T")

TEXT_MARK = "\0the text stands here"
"""No id and no model's name is like it: what comes from the environment holds no NUL."""
_CUT_SHORT = ("truncated", "deadline")


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Builds the objects of one completion."""

    completion_id: str
    model: str
    created: int
    """Unix time, seconds."""
    include_usage: bool = False
    """True for a stream that ends with the usage; its other chunks then say null."""

    def completion(self, runs: Sequence[wire.Run]) -> dict[str, Any]:
        """Return the object of a completion that is not streamed, with a choice for each run."""
        return {
            **self._head("chat.completion"),
            "choices": [_choice(index, run) for index, run in enumerate(runs)],
            **sources_of(runs),
            "usage": usage_of([run.usage for run in runs]),
        }

    def chunk(self, index: int, event: wire.KnownEvent, fold: RunFold) -> dict[str, Any] | None:
        """Return the chunk that an event adds to choice ``index``, or None. ``fold`` has taken the event already."""
        match event:
            case wire.RunStarted():
                return self._chunk(index, {"role": "assistant", "content": ""})
            case wire.ThinkDelta():
                return self._chunk(index, _reasoning(event.text))
            case wire.SearchStarted():
                return self._chunk(index, _reasoning(_search_line(event.query)))
            case wire.AnswerCompleted():
                return {**self._chunk(index, {"content": event.text}), **sources_of([fold.so_far()])}
            case wire.RunCompleted():
                return self._last_chunk(index, fold.run())
            case _:
                return None

    def reasoning_template(self, index: int) -> dict[str, Any]:
        """Return the chunk of some reasoning of choice ``index``, with ``TEXT_MARK`` where the text stands."""
        return self._chunk(index, _reasoning(TEXT_MARK))

    def usage_chunk(self, runs: Sequence[wire.Run]) -> dict[str, Any]:
        """Return the chunk that ``stream_options.include_usage`` asks for."""
        return {
            **self._head("chat.completion.chunk"),
            "choices": [],
            "usage": usage_of([run.usage for run in runs]),
        }

    def _last_chunk(self, index: int, run: wire.Run) -> dict[str, Any]:
        delta = {"content": "", "annotations": annotations_of(run)}
        chunk = self._chunk(index, delta, _finish_reason(run))
        # Without an answer no content chunk has carried them.
        return chunk if run.answer is not None else {**chunk, **sources_of([run])}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self.include_usage else chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.completion_id, "object": kind, "created": self.created, "model": self.model}


def annotations_of(run: wire.Run) -> list[dict[str, Any]]:
    """Return a ``url_citation`` over the whole answer for each cited passage."""
    end = len(run.answer or "")
    return [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 0, "end_index": end, "title": c.title, "url": url_of(c)},
        }
        for c in run.citations
    ]


def sources_of(runs: Sequence[wire.Run]) -> dict[str, Any]:
    """Return what was cited and all that searches found, each once, in order."""
    passages = (passage for run in runs for step in run.steps for passage in step.passages)
    found = _unique((p.title, url_of(p), p.snippet) for p in passages)
    return {
        "citations": _unique(url_of(c) for run in runs for c in run.citations),
        "search_results": [{"title": title, "url": url, "snippet": snippet} for title, url, snippet in found],
    }


def usage_of(usages: Sequence[wire.Usage]) -> dict[str, Any]:
    """Return OpenAI's usage, summed over choices.

    The prompt counts all that was put in: the question and the observations.
    """
    prompt = sum(usage.prompt_tokens + usage.observation_tokens for usage in usages)
    completion = sum(usage.completion_tokens for usage in usages)
    # The engine counts the context of every turn, of which the earlier turns are part each time.
    cached = min(prompt, sum(usage.cached_tokens for usage in usages))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": sum(usage.reasoning_tokens for usage in usages)},
        "num_searches": sum(usage.searches for usage in usages),
    }


def _choice(index: int, run: wire.Run) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": run.answer or "",
        "refusal": None,
        **_reasoning(_whole_reasoning(run)),
        "annotations": annotations_of(run),
    }
    return {"index": index, "message": message, "finish_reason": _finish_reason(run), "logprobs": None}


def _finish_reason(run: wire.Run) -> str:
    return "length" if run.status in _CUT_SHORT else "stop"


def _whole_reasoning(run: wire.Run) -> str:
    """Return the reasoning of all turns, the queries among it, exactly as the deltas add up."""
    return "".join(step.reasoning + (_search_line(step.query) if step.query is not None else "") for step in run.steps)


def _reasoning(text: str) -> dict[str, Any]:
    return {"reasoning": text, "reasoning_content": text}


def _search_line(query: str) -> str:
    return f"\n[search] {query}\n"


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
