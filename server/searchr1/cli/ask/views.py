"""Views on standard output: the answer, the run as one JSON object, or every event as it comes."""

import json
from enum import StrEnum
from typing import Protocol

from searchr1.cli.ask.output import Output
from searchr1.cli.ask.screen import Screen
from searchr1.cli.ask.steps import StepsView
from searchr1.printable import printable
from searchr1_client import ResearchStream
from searchr1_client.events import AnswerCompleted, KnownEvent, UnknownEvent


class OutputFormat(StrEnum):
    """The command's ways to show a run."""

    STEPS = "steps"
    """The answer on standard output, the steps on standard error."""
    QUIET = "quiet"
    """The answer alone."""
    JSON = "json"
    """The run as one JSON object, when it has ended."""
    NDJSON = "ndjson"
    """Each event as one line of JSON, when it comes."""


class View(Protocol):
    """Shows a run. Methods raise ``OutputError``."""

    def show(self, event: KnownEvent | UnknownEvent) -> None:
        """Take the next event."""

    def end(self, stream: ResearchStream) -> None:
        """Take the end of the run; ``stream`` has all of it."""


def view_of(format: OutputFormat, output: Output, screen: Screen, *, show_thinking: bool) -> View:
    """Return the view for a format; ``show_thinking`` is for ``STEPS``."""
    match format:
        case OutputFormat.STEPS:
            return StepsView(output, screen, show_thinking=show_thinking)
        case OutputFormat.QUIET:
            return AnswerView(output)
        case OutputFormat.JSON:
            return RunView(output)
        case OutputFormat.NDJSON:
            return EventsView(output)


class AnswerView:
    """The view of those who want the answer alone."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: KnownEvent | UnknownEvent) -> None:
        """Write the answer when it is final."""
        if isinstance(event, AnswerCompleted):
            self._output.text(printable(event.text))

    def end(self, stream: ResearchStream) -> None:
        """Do nothing: everything has been written."""


class RunView:
    """The view of the whole run: on one line, or over many for a person at a terminal."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: KnownEvent | UnknownEvent) -> None:
        """Wait for the end."""

    def end(self, stream: ResearchStream) -> None:
        """Write the run, as ``POST /v1/research`` would give it: without its trajectory."""
        run = stream.get_final_run().model_copy(update={"trajectory": None})
        indent = 2 if self._output.is_terminal else None
        self._output.json(json.dumps(run.model_dump(mode="json"), ensure_ascii=False, indent=indent))


class EventsView:
    """The view of every event."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: KnownEvent | UnknownEvent) -> None:
        """Write the event."""
        self._output.json(event.model_dump_json())

    def end(self, stream: ResearchStream) -> None:
        """Do nothing: everything has been written."""
