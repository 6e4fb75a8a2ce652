"""Exit codes of ``searchr1 ask``."""

from enum import IntEnum

import searchr1_client as sdk
from searchr1.errors import SearchR1Error


class ExitCode(IntEnum):
    """The command's exit codes; docs/reference/cli.md describes them to users."""

    ANSWERED = 0
    NO_ANSWER = 1
    """The run ended without an answer: out of turns, tokens or time, or cancelled by somebody else."""
    USAGE = 2
    """Nothing was sent: the command line, the question or the address can't be right."""
    UNREACHABLE = 3
    """No server answers, the connection was lost for good, or what answers is no Search-R1 server."""
    REFUSED = 4
    """The server refuses the request (4xx)."""
    FAILED = 5
    """The engine failed the run, or the server can't serve now (5xx)."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""
    BROKEN_OUTPUT = 141
    """Standard output can't be written; the number is that of SIGPIPE in shells."""


class UsageError(SearchR1Error):
    """A call that can't be right, as far as the command line can tell."""


def exit_code_of(error: sdk.SearchR1Error) -> ExitCode:
    """Return the exit code for an error of the SDK's."""
    match error:
        case sdk.APIStatusError():
            return ExitCode.REFUSED if error.status_code < 500 else ExitCode.FAILED
        case sdk.APIConnectionError() | sdk.StreamError() | sdk.APIResponseValidationError():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.USAGE
