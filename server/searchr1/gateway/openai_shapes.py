"""Runs in the shapes of OpenAI's Chat Completions: whole, and in chunks."""

import json
from dataclasses import dataclass
from typing import Any

from searchr1_client import events as wire

_FINISH = {"completed": "stop", "truncated": "length", "deadline": "length", "exhausted": "stop"}


def encode_data(payload: dict[str, Any]) -> bytes:
    """One ``data:`` line, without ``id`` or ``event``: some OpenAI clients fail on those."""
    return f"data: {json.dumps(payload, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


@dataclass(frozen=True, slots=True)
class ChatShape:
    """Builds the objects of one completion."""

    completion_id: str
    model: str
    created: int

    def completion(self, run: wire.Run) -> dict[str, Any]:
        """The non-streaming object."""
        reasoning = reasoning_of(run)
        message = {
            "role": "assistant",
            "content": run.answer or "",
            "reasoning": reasoning,
            "reasoning_content": reasoning,
            "annotations": annotations_of(run),
        }
        choice = {"index": 0, "message": message, "finish_reason": _FINISH.get(run.status, "stop"), "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], **_sources(run), "usage": usage_of(run.usage)}

    def delta(self, event: wire.KnownEvent) -> dict[str, Any] | None:
        """What an event adds to the message; None when it adds nothing."""
        match event:
            case wire.RunStarted():
                return {"role": "assistant", "content": ""}
            case wire.ThinkDelta():
                return _reasoning(event.text)
            case wire.SearchStarted():
                return _reasoning(_search_line(event.query))
            case wire.AnswerCompleted():
                return {"content": event.text}
            case _:
                return None

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One streamed chunk."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def last_chunk(self, run: wire.Run) -> dict[str, Any]:
        """The chunk that ends the message: no content, the citations, the finish reason."""
        delta = {"content": "", "annotations": annotations_of(run)}
        return {**self.chunk(delta, _FINISH.get(run.status, "stop")), **_sources(run)}

    def usage_chunk(self, run: wire.Run) -> dict[str, Any]:
        """The chunk that ``stream_options.include_usage`` asks for."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(run.usage)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.completion_id, "object": kind, "created": self.created, "model": self.model}


def reasoning_of(run: wire.Run) -> str:
    """The reasoning of all turns, the searches among it, exactly as the deltas add up."""
    parts: list[str] = []
    for step in run.steps:
        parts.append(step.reasoning)
        if step.query is not None:
            parts.append(_search_line(step.query))
    return "".join(parts)


def annotations_of(run: wire.Run) -> list[dict[str, Any]]:
    """``url_citation`` annotations over the answer. A passage without a URL is named by its title alone."""
    end = len(run.answer or "")
    return [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 0, "end_index": end, "title": c.title, "url": c.url or ""},
        }
        for c in run.citations
    ]


def usage_of(usage: wire.Usage) -> dict[str, Any]:
    """OpenAI's usage. The prompt counts what was put in: the question's prompt and the observations."""
    prompt = usage.prompt_tokens + usage.observation_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": prompt + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "num_searches": usage.searches,
    }


def _reasoning(text: str) -> dict[str, Any]:
    return {"reasoning": text, "reasoning_content": text}


def _search_line(query: str) -> str:
    return f"\n[search] {query}\n"


def _sources(run: wire.Run) -> dict[str, Any]:
    passages = [p for step in run.steps for p in step.passages]
    return {
        "citations": [c.url or c.title for c in run.citations],
        "search_results": [{"title": p.title, "url": p.url, "snippet": p.snippet} for p in passages],
    }
