"""The table of docs/guides/clients.md, and its cells as a client's reports make them."""

from pathlib import Path
from typing import Any

from .stages import ANSWER, FAILURE, THOUGHTS, URL

DOCS = Path(__file__).parents[2] / "docs" / "guides" / "clients.md"
COLUMNS = ["text", "streaming", "reasoning", "citations", "sources", "usage", "errors"]


def documented() -> dict[str, dict[str, str]]:
    """The rows of the table by client; footnote marks are left out."""
    lines = DOCS.read_text("utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| client |"))
    header = _cells(lines[start])
    assert header == ["client", *COLUMNS]
    rows: dict[str, dict[str, str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = _cells(line)
        rows[name] = dict(zip(COLUMNS, cells, strict=True))
    return rows


def _cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return [cell.rstrip("¹²³⁴⁵⁶⁷⁸⁹") for cell in cells]


def observed(
    whole: dict[str, Any], stream: dict[str, Any], bad: dict[str, Any], broken: dict[str, Any]
) -> dict[str, str]:
    """The row that four reports make: a whole run, a streamed one, a refused request, a stream that broke."""
    both = (whole, stream)
    return {
        "text": _yes(all(shown["text"] == ANSWER for shown in both)),
        "streaming": _streaming(stream),
        "reasoning": _yes(all(thought in shown["reasoning"] for shown in both for thought in THOUGHTS)),
        "citations": _yes(all(shown["citations"] == [{"title": "Mali", "url": URL}] for shown in both)),
        "sources": _sources(both),
        "usage": _usage(both),
        "errors": _yes(_tells_errors(bad, broken)),
    }


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _streaming(stream: dict[str, Any]) -> str:
    if not stream["text_deltas"]:
        return "no"
    return "yes" if stream["reasoning_deltas"] > 1 else "answer"


def _sources(both: tuple[dict[str, Any], ...]) -> str:
    found = [{"title": "Mali", "url": URL}, {"title": "Niger", "url": f"{URL}/niger"}]
    if all(shown["sources"] == found for shown in both):
        return "yes"
    urls = [one["url"] for one in found]
    return "URLs" if all([one["url"] for one in shown["sources"]] == urls for shown in both) else "no"


def _usage(both: tuple[dict[str, Any], ...]) -> str:
    for shown in both:
        assert shown["usage"]["input"] > 0
        assert shown["usage"]["output"] > 0
        assert shown["usage"]["reasoning"] is not None
    return "yes" if all(shown["usage"]["searches"] == 1 for shown in both) else "tokens"


def _tells_errors(bad: dict[str, Any], broken: dict[str, Any]) -> bool:
    refused, died = bad["error"], broken["error"]
    return refused["status"] == 400 and "The question is empty" in refused["message"] and FAILURE in died["message"]
