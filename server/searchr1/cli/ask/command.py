"""``searchr1 ask``: one question on the terminal."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.cli.options import URL, ApiKey, ApiKeyFile, Url, chosen_key, with_run_options

if TYPE_CHECKING:
    from searchr1_client import RunOptions

EPILOG = (
    "Exit codes: 0 answered; 1 the run ended without an answer; 2 usage; 3 the server can't be reached; 4 it refuses "
    "the request; 5 the run or the server failed; 130 Ctrl-C; 141 standard output can't be written."
)


@with_run_options
def ask(
    question: Annotated[
        str | None, typer.Argument(help="What to find out. '-', or nothing before a pipe, reads standard input.")
    ] = None,
    url: Url = URL,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run as one JSON object.")] = False,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="Print every event as it comes, one JSON a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone, and errors.")] = False,
    show_thinking: Annotated[
        bool, typer.Option("--show-thinking", help="Show the reasoning as it is written.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option("--after", "--follow-up", metavar="RUN_ID", help="Ask it after this run's question and answer."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Show this run again, or take it up where it is.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Run this run again with the searches of its record.")
    ] = None,
    *,
    options: "RunOptions",
) -> None:
    """Ask one question: the answer goes to stdout, the steps to stderr. Ctrl-C cancels the run on the server.

    More in docs/reference/cli.md.
    """
    from searchr1.cli.ask.asking import Ask
    from searchr1.cli.ask.asking import ask as run
    from searchr1.cli.ask.exit_codes import UsageError
    from searchr1.cli.ask.subject import chosen_format, chosen_subject

    try:
        call = Ask(
            chosen_subject(question, sys.stdin, resume=resume, replay=replay),
            url=url,
            api_key=chosen_key(api_key, api_key_file),
            options=options if after is None else {**options, "previous_run_id": after},
            format=chosen_format(json=json, ndjson=ndjson, quiet=quiet),
            show_thinking=show_thinking,
        )
        raise SystemExit(run(call))
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
