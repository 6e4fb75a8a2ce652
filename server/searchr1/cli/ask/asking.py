"""One run from question to exit code: send it, follow it, and on Ctrl-C cancel it on the server."""

import os
import sys
from dataclasses import dataclass, field
from typing import TextIO, assert_never, cast

import httpx

import searchr1_client as sdk
from searchr1.cli.ask.exit_codes import ExitCode, UsageError, exit_code_of
from searchr1.cli.ask.interrupts import Interrupts
from searchr1.cli.ask.output import Output, OutputError
from searchr1.cli.ask.screen import Screen
from searchr1.cli.ask.subject import Subject, SubjectKind
from searchr1.cli.ask.views import OutputFormat, View, view_of
from searchr1.cli.faults import HOW_TO_GIVE_A_KEY
from searchr1_client.events import AnswerCompleted, KnownEvent, RunCompleted, RunFailed, UnknownEvent

CANCEL_TIMEOUT_S = 3.0
"""Time of each step of cancelling: a server that is gone must not hold a user who wants to leave."""

_NO_ANSWER = {
    "exhausted": "the model used up its turns",
    "truncated": "the model used up its tokens",
    "deadline": "the time was up",
    "cancelled": "the run was cancelled",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of the command. Options left out are the server's choice; a resumed run has its own."""

    subject: Subject
    url: str
    api_key: str | None = None
    options: sdk.RunOptions = field(default_factory=sdk.RunOptions)
    format: OutputFormat = OutputFormat.STEPS
    show_thinking: bool = False


def ask(call: Ask, *, stdout: TextIO | None = None, stderr: TextIO | None = None) -> ExitCode:
    """Ask the server, show the run as it streams, and say how it ended.

    The first Ctrl-C cancels the run on the server; a second one leaves at once. A run whose reader of ``stdout`` is
    gone is cancelled too. The streams default to the process's own.

    Raises:
        UsageError: ``call`` can't be right.
    """
    output = Output(stdout or sys.stdout)
    screen = Screen(stderr or sys.stderr, os.environ)
    view = view_of(call.format, output, screen, show_thinking=call.show_thinking)
    try:
        with (
            Interrupts() as interrupts,
            sdk.SearchR1(base_url=call.url, api_key=call.api_key or "", max_retries=0) as client,
        ):
            return _Asking(client, call, view, screen, interrupts).to_end()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OutputError as error:
        screen.error(str(error))
        return ExitCode.BROKEN_OUTPUT
    except sdk.SearchR1Error as error:
        code = exit_code_of(error)
        if code is ExitCode.USAGE:
            raise UsageError(str(error)) from error
        screen.error(_told(error, call.url))
        return code
    finally:
        screen.close()


class _Asking:
    def __init__(self, client: sdk.SearchR1, call: Ask, view: View, screen: Screen, interrupts: Interrupts) -> None:
        self._client, self._call = client, call
        self._view, self._screen, self._interrupts = view, screen, interrupts
        self._last_seq = -1
        self._answered = False
        self._status = "running"
        self._error = ""

    def to_end(self) -> ExitCode:
        with self._stream() as stream:
            try:
                self._read(stream)
            except KeyboardInterrupt:
                self._cancel(stream.run_id)
                return ExitCode.INTERRUPTED
            except OutputError:
                self._cancel_unseen(stream.run_id)
                raise
        return self._outcome()

    def _stream(self) -> sdk.ResearchStream:
        """Return the subject's stream, not yet sent. Leaving it cancels nothing: that is decided in this class."""
        research, options = self._client.research, self._call.options
        subject = self._call.subject
        match subject.kind:
            case SubjectKind.QUESTION:
                return research.stream(subject.text, cancel_on_exit=False, **options)
            case SubjectKind.REPLAYED:
                return research.stream_replay(subject.text, cancel_on_exit=False, **_replay_options(options))
            case SubjectKind.RESUMED:
                return self._resumed(subject.text, options)
        assert_never(subject.kind)

    def _resumed(self, run_id: str, options: sdk.RunOptions) -> sdk.ResearchStream:
        if options:
            raise UsageError(f"a resumed run has its options already; leave out {', '.join(sorted(options))}")
        try:
            return self._client.research.resume(run_id)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _read(self, stream: sdk.ResearchStream) -> None:
        for event in stream:
            with self._interrupts.held_back():
                self._last_seq = event.seq
                self._note_outcome(event)
                self._view.show(event)
        self._view.end(stream)

    def _note_outcome(self, event: KnownEvent | UnknownEvent) -> None:
        match event:
            case AnswerCompleted():
                self._answered = True
            case RunCompleted():
                self._status = event.status
            case RunFailed():
                self._status, self._error = "failed", event.error.message
            case _:
                pass

    def _outcome(self) -> ExitCode:
        if self._status == "failed":
            self._screen.error(self._error)
            return ExitCode.FAILED
        if self._answered:
            return ExitCode.ANSWERED
        self._screen.error(f"no answer: {_NO_ANSWER.get(self._status, f'the run ended as {self._status}')}")
        return ExitCode.NO_ANSWER

    def _cancel(self, run_id: str | None) -> None:
        """End the run on the server, unless it has ended, and show how it ended."""
        if run_id is None or self._status != "running":
            return
        self._screen.status("cancelling; Ctrl-C again leaves at once")
        research = self._client.with_options(timeout=CANCEL_TIMEOUT_S).research
        try:
            research.cancel(run_id)
            with research.resume(run_id, after=self._last_seq, reconnect=False) as rest:
                self._read(rest)
        except sdk.SearchR1Error as error:
            self._screen.error(f"the run may go on for a while: it could not be cancelled ({error})")

    def _cancel_unseen(self, run_id: str | None) -> None:
        if run_id is None:
            return
        try:
            self._client.with_options(timeout=CANCEL_TIMEOUT_S).research.cancel(run_id)
        except sdk.SearchR1Error as error:
            self._screen.error(f"the run may go on for a while: it could not be cancelled ({error})")


def _replay_options(options: sdk.RunOptions) -> sdk.ReplayOptions:
    if alien := options.keys() - sdk.ReplayOptions.__annotations__:
        raise UsageError(f"a replayed run can't be given {', '.join(sorted(alien))}")
    return cast(sdk.ReplayOptions, options)


def _told(error: sdk.SearchR1Error, url: str) -> str:
    match error:
        case sdk.APITimeoutError():
            return f"{error}. Is it busy, or the address wrong?"
        case sdk.APIConnectionError() if not isinstance(error.__cause__, httpx.RequestError):
            return str(error)
        case sdk.APIConnectionError():
            return f"No server answers at {url} ({error.__cause__ or error}). Start one with: searchr1 serve"
        case sdk.AuthenticationError():
            return f"{error} {HOW_TO_GIVE_A_KEY}"
        case sdk.StreamError() if error.run_id is not None:
            return f"{error}. To take the run up again: searchr1 ask --resume {error.run_id}"
        case _:
            return str(error)
