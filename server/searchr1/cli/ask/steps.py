"""The view for people: a run's steps on standard error, its answer on standard output."""

from searchr1.cli.ask.output import Output
from searchr1.cli.ask.screen import Screen
from searchr1.printable import printable
from searchr1_client import ResearchStream
from searchr1_client.events import (
    ActionInvalid,
    AnswerCompleted,
    AnswerDelta,
    Citation,
    KnownEvent,
    RunCompleted,
    RunFailed,
    RunQueued,
    RunStarted,
    SearchCompleted,
    SearchFailed,
    SearchStarted,
    ThinkDelta,
    UnknownEvent,
    Usage,
)

_INVALID = {
    "no_action": "the model gave neither a search nor an answer",
    "search_off": "the model asked for a search where only an answer was left to give",
}


class StepsView:
    """Shows each step as it comes. Reasoning is counted in the status, or shown with ``show_thinking``."""

    def __init__(self, output: Output, screen: Screen, *, show_thinking: bool) -> None:
        self._output = output
        self._screen = screen
        self._show_thinking = show_thinking
        self._thought_turn = 0
        self._num_thought_chars = 0
        self._urls: dict[int, str] = {}

    def show(self, event: KnownEvent | UnknownEvent) -> None:
        """Show the next event. Answers are shown whole, because a streamed one is void until it is complete."""
        match event:
            case RunStarted():
                self._screen.note(f"asking {event.model} · {event.run_id}")
                self._screen.status("thinking")
            case RunQueued():
                self._screen.status(f"waiting to start, {event.place} before this one")
            case ThinkDelta():
                self._think(event)
            case SearchStarted():
                self._screen.line(f"search: {event.query or '(empty query)'}", "bold cyan")
                self._screen.status("searching")
            case SearchCompleted():
                self._passages(event)
                self._screen.status("reading")
            case SearchFailed():
                self._screen.line(f"  the search failed: {event.error.message}", "yellow")
                self._screen.status("thinking")
            case ActionInvalid():
                self._screen.line(f"  {_INVALID.get(event.reason, event.reason)}", "yellow")
                self._screen.status("thinking")
            case AnswerDelta():
                self._screen.status("answering")
            case AnswerCompleted():
                self._answer(event)
            case RunCompleted():
                self._usage(event.status, event.usage)
            case RunFailed():
                self._usage("failed", event.usage)
            case _:
                pass

    def end(self, stream: ResearchStream) -> None:
        """Do nothing: every step has been shown."""

    def _think(self, event: ThinkDelta) -> None:
        if self._show_thinking:
            self._screen.text(event.text, "dim italic")
            return
        if event.turn != self._thought_turn:
            self._thought_turn, self._num_thought_chars = event.turn, 0
        self._num_thought_chars += len(event.text)
        self._screen.status(f"thinking, turn {event.turn}, {self._num_thought_chars:,} characters")

    def _passages(self, event: SearchCompleted) -> None:
        for passage in event.passages:
            self._screen.line(f"  [{passage.index}] {_title(passage.title)}", "cyan")
            if passage.url:
                self._urls[passage.index] = passage.url
        found = "nothing found" if not event.passages else f"{len(event.passages)} found"
        provider = f" by {event.provider}" if event.provider else ""
        cache = "" if event.cache == "miss" else f", cache {event.cache}"
        self._screen.note(f"  {found}{provider}{cache}, {event.duration_ms:.0f} ms")

    def _answer(self, event: AnswerCompleted) -> None:
        self._screen.hide_status()
        self._output.text(printable(event.text))
        for citation in _one_per_passage(event.citations):
            url = self._urls.get(citation.index) or citation.url
            source = f"source [{citation.index}] {_title(citation.title)}{f'  {url}' if url else ''}"
            self._screen.line(source, "green")

    def _usage(self, status: str, usage: Usage) -> None:
        self._screen.hide_status()
        parts = [
            status,
            _count(usage.turns, "turn", "turns"),
            _count(usage.searches, "search", "searches"),
            f"tokens: {usage.prompt_tokens} prompt, {usage.completion_tokens} generated, "
            f"{usage.observation_tokens} observed, {usage.cached_tokens} cached",
            f"{usage.duration_ms / 1000:.2f} s",
        ]
        if usage.first_token_ms is not None:
            parts.append(f"first token after {usage.first_token_ms:.0f} ms")
        if usage.cost_usd is not None:
            parts.append(f"searches cost {usage.cost_usd:.4f} USD")
        self._screen.note(" · ".join(parts))


def _title(title: str) -> str:
    """Return a title without double quotes, which titles of wiki-18 carry."""
    return title.strip().strip('"')


def _one_per_passage(citations: list[Citation]) -> list[Citation]:
    return list({citation.index: citation for citation in reversed(citations)}.values())[::-1]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
