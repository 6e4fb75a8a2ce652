"""One question on the terminal: the answer on standard output and nothing else, the rest on standard error."""

import os
import sys
import unicodedata
from enum import IntEnum
from typing import TextIO

from rich.console import Console
from rich.text import Text

from searchr1_client import (
    APIConnectionError,
    APIStatusError,
    RunOptions,
    SearchR1,
    SearchR1Error,
    StreamError,
)
from searchr1_client.events import (
    ActionInvalid,
    AnswerCompleted,
    Citation,
    KnownEvent,
    RunCompleted,
    RunFailed,
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


class ExitCode(IntEnum):
    """What ``ask`` returns to the shell."""

    ANSWERED = 0
    NO_ANSWER = 1
    BAD_REQUEST = 2
    SERVER_FAILED = 3
    INTERRUPTED = 130


def ask(
    question: str,
    *,
    url: str,
    api_key: str | None = None,
    model: str | None = None,
    max_turns: int | None = None,
    max_searches: int | None = None,
    max_tokens: int | None = None,
    top_k: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    deadline_s: float | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Ask the server at ``url``, show the run as it streams, and return an ``ExitCode``.

    Options left None are the server's choice; ``RunOptions`` says what each means. Ctrl-C cancels
    the run on the server.
    """
    options = RunOptions(
        model=model,
        max_turns=max_turns,
        max_searches=max_searches,
        max_tokens=max_tokens,
        top_k=top_k,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        deadline_s=deadline_s,
    )
    view = _View(stdout or sys.stdout, stderr or sys.stderr)
    try:
        question.encode()
        (api_key or "").encode("ascii")
    except UnicodeEncodeError:
        view.error("The question or the API key holds characters that cannot be sent. Retype it.")
        return ExitCode.BAD_REQUEST
    return _stream_run(view, question, options, url, api_key)


def _stream_run(view: "_View", question: str, options: RunOptions, url: str, api_key: str | None) -> int:
    try:
        with (
            SearchR1(base_url=url, api_key=api_key or "", max_retries=0) as client,
            client.research.stream(question, **options) as stream,
        ):
            for event in stream:
                view.show(event)
    except KeyboardInterrupt:
        view.note("cancelled")
        return ExitCode.INTERRUPTED
    except APIStatusError as error:
        view.error(str(error))
        refused = error.status_code < 500 and not error.retryable
        return ExitCode.BAD_REQUEST if refused else ExitCode.SERVER_FAILED
    except StreamError as error:
        view.error(str(error))
        return ExitCode.SERVER_FAILED
    except APIConnectionError as error:
        view.error(f"No server answers at {url} ({error.__cause__ or error}). Start one with: searchr1 serve")
        return ExitCode.SERVER_FAILED
    except SearchR1Error as error:
        view.error(str(error))
        return ExitCode.BAD_REQUEST
    return view.exit_code


class _View:
    """Shows events. Text of models and passages loses its control characters, so it cannot steer the terminal."""

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._stdout = stdout
        plain = not stderr.isatty() or bool(os.environ.get("NO_COLOR"))
        self._console = Console(
            file=stderr, color_system=None if plain else "auto", highlight=False, markup=False, soft_wrap=True
        )
        self._in_thought = False
        self._urls: dict[int, str] = {}
        self.exit_code = ExitCode.NO_ANSWER

    def show(self, event: KnownEvent | UnknownEvent) -> None:
        """Show the next event. Answers are shown whole, because a streamed one is void until it is complete."""
        if isinstance(event, ThinkDelta):
            self._think(event.text)
            return
        self._end_thought()
        match event:
            case RunStarted():
                self.note(f"asking {event.model}")
            case SearchStarted():
                self._line(f"search: {event.query or '(empty query)'}", "bold cyan")
            case SearchCompleted():
                self._passages(event)
            case SearchFailed():
                self._line(f"  the search failed: {event.error.message}", "yellow")
            case ActionInvalid():
                self._line(f"  {_INVALID.get(event.reason, event.reason)}", "yellow")
            case AnswerCompleted():
                self._answer(event)
            case RunCompleted():
                self._usage(event.status, event.usage)
            case RunFailed():
                self.error(event.error.message)
                self._usage("failed", event.usage)
                self.exit_code = ExitCode.SERVER_FAILED
            case _:
                pass

    def note(self, text: str) -> None:
        """A line of no great weight."""
        self._end_thought()
        self._line(text, "dim")

    def error(self, text: str) -> None:
        """A line that says what went wrong."""
        self._end_thought()
        self._line(f"error: {text}", "bold red")

    def _think(self, text: str) -> None:
        self._in_thought = True
        self._console.print(Text(_printable(text), style="dim italic"), end="")
        self._console.file.flush()

    def _end_thought(self) -> None:
        if self._in_thought:
            self._console.print()
            self._in_thought = False

    def _passages(self, event: SearchCompleted) -> None:
        for passage in event.passages:
            self._line(f"  [{passage.index}] {_title(passage.title)}", "cyan")
            if passage.url:
                self._urls[passage.index] = passage.url
        found = "nothing found" if not event.passages else f"{len(event.passages)} found"
        self._line(f"  {found}, cache {event.cache}, {event.duration_ms:.0f} ms", "dim")

    def _answer(self, event: AnswerCompleted) -> None:
        encoding = self._stdout.encoding or "utf-8"
        answer = _printable(event.text).encode(encoding, errors="replace").decode(encoding)
        print(answer, file=self._stdout, flush=True)
        self.exit_code = ExitCode.ANSWERED
        for citation in _one_per_passage(event.citations):
            url = self._urls.get(citation.index) or citation.url
            self._line(f"source [{citation.index}] {_title(citation.title)}{f'  {url}' if url else ''}", "green")

    def _usage(self, status: str, usage: Usage) -> None:
        parts = [
            status,
            _count(usage.turns, "turn", "turns"),
            _count(usage.searches, "search", "searches"),
            f"tokens: {usage.prompt_tokens} prompt, {usage.completion_tokens} generated, "
            f"{usage.observation_tokens} observed, {usage.cached_tokens} cached",
            f"{usage.duration_ms / 1000:.2f} s",
        ]
        self.note(" · ".join(parts))

    def _line(self, text: str, style: str) -> None:
        self._console.print(Text(_printable(text), style=style))


def _printable(text: str) -> str:
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def _title(title: str) -> str:
    """Wiki-18 titles carry their own double quotes."""
    return title.strip().strip('"')


def _one_per_passage(citations: list[Citation]) -> list[Citation]:
    return list({citation.index: citation for citation in reversed(citations)}.values())[::-1]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
