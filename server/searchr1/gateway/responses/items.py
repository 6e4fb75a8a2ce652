"""The objects of OpenAI's Responses, as plain JSON."""

from collections.abc import Sequence
from typing import Any

from searchr1.gateway.openai.sources import url_of
from searchr1_client.events import Citation, Usage, WirePassage

Json = dict[str, Any]

SOURCES = "web_search_call.action.sources"
RESULTS = "web_search_call.results"


def reasoning_item(item_id: str, text: str | None, *, status: str, summarized: bool) -> Json:
    """Return one turn's reasoning item; ``text`` is None before any came. A summary is the whole text."""
    parts = [] if text is None else [text]
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [summary_part(part) for part in parts if summarized],
        "content": [reasoning_part(part) for part in parts],
        "status": status,
    }


def reasoning_part(text: str) -> Json:
    """Return reasoning as a content part."""
    return {"type": "reasoning_text", "text": text}


def summary_part(text: str) -> Json:
    """Return reasoning as a summary part."""
    return {"type": "summary_text", "text": text}


def search_item(
    item_id: str, query: str, passages: Sequence[WirePassage], *, status: str, include: frozenset[str]
) -> Json:
    """Return one search's item. Sources are the URLs of its passages, each once."""
    action: Json = {"type": "search", "query": query, "queries": [query]}
    item: Json = {"id": item_id, "type": "web_search_call", "status": status, "action": action}
    if status == "completed" and SOURCES in include:
        urls = dict.fromkeys(url_of(p) for p in passages)
        action["sources"] = [{"type": "url", "url": url} for url in urls]
    if status == "completed" and RESULTS in include:
        item["results"] = [{"title": p.title, "url": url_of(p), "text": p.snippet, "score": p.score} for p in passages]
    return item


def message_item(item_id: str, parts: list[Json], *, status: str) -> Json:
    """Return the answer's item."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": parts}


def text_part(text: str, annotations: list[Json]) -> Json:
    """Return the answer's text as a content part."""
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def url_citations(answer: str, citations: Sequence[Citation]) -> list[Json]:
    """Return citations of the whole answer."""
    return [
        {"type": "url_citation", "start_index": 0, "end_index": len(answer), "title": c.title, "url": url_of(c)}
        for c in citations
    ]


def usage_object(usage: Usage) -> Json:
    """Return OpenAI's usage. The input counts all that was put in: the question's prompt and the observations."""
    put_in = usage.prompt_tokens + usage.observation_tokens
    return {
        "input_tokens": put_in,
        "input_tokens_details": {"cached_tokens": min(usage.cached_tokens, put_in), "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": put_in + usage.completion_tokens,
        "num_searches": usage.searches,
    }
