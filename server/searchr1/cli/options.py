"""Options that several commands share: the gateway's address and key, where data lies, and how to run a question."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:  # at run time it costs the time that `--help` should not take
    from searchr1_client import RunOptions

DATA = Path("data")
URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(help="The gateway's address.", envvar="SEARCHR1_URL")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        help="Its API key, if it asks for one. Others see it in ps: better --api-key-file, or the variable.",
        envvar="SEARCHR1_API_KEY",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file that holds the API key; it wins over --api-key and its variable.",
        envvar="SEARCHR1_API_KEY_FILE",
    ),
]
DataDir = Annotated[Path, typer.Option(help="Where the demo world's data lies.", envvar="SEARCHR1_DATA_DIR")]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A TOML file of settings by their names.", envvar="SEARCHR1_CONFIG"),
]
Data = Annotated[
    str | None,
    typer.Option(help="File, folder or hub dataset with the seven sets.", show_default="PeterJinGo/nq_hotpotqa_train"),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")]
Force = Annotated[bool, typer.Option("--force", hidden=True)]
"""The old name of ``--overwrite``."""
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave malformed rows out, and say how many.")]


def chosen_key(api_key: str | None, api_key_file: Path | None) -> str | None:
    """Return the key in ``api_key_file`` where one is named, else ``api_key``.

    Raises:
        ConfigurationError: the file can't be read, or holds something else than one key. It is not quoted.
    """
    if api_key_file is None:
        return api_key
    from searchr1.errors import ConfigurationError
    from searchr1.keys import checked_key

    try:
        return checked_key(api_key_file.read_text(encoding="utf-8"))
    except ConfigurationError as error:
        raise ConfigurationError(f"the API key in {api_key_file} can't be used: {error}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the API key in {api_key_file} can't be used: it is not text") from None  # quotes it
    except OSError as error:
        raise ConfigurationError(f"{api_key_file} can't be read: {error.strerror or 'no reason is given'}") from error


def _chosen(
    model: Annotated[str | None, typer.Option(help="Default: the served one.")] = None,
    max_turns: Annotated[int | None, typer.Option(help="Turns in which the model may search.")] = None,
    max_searches: Annotated[int | None, typer.Option(help="Searches in all; 0 answers without searching.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens that the model may generate in all.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Passages per search.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds after which the run ends.")] = None,
    stream_interval_ms: Annotated[
        int | None, typer.Option(help="Milliseconds between two pieces of text; 0: each token as it comes.")
    ] = None,
    cache: Annotated[
        Literal["default", "only"] | None, typer.Option(help="only: answer searches from the server's cache alone.")
    ] = None,
    logprobs: Annotated[
        bool | None, typer.Option("--logprobs", help="Record the sampled tokens' logprobs in the stored run.")
    ] = None,
    store: Annotated[
        bool | None, typer.Option("--store/--no-store", help="Whether the server keeps the run.", show_default=False)
    ] = None,
) -> "RunOptions":
    """Return the options that were given; the server chooses the others."""
    return cast("RunOptions", {name: value for name, value in locals().items() if value is not None})


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` every option of a run on the command line; it gets the chosen ones as ``options``."""
    own = [p for name, p in inspect.signature(command).parameters.items() if name != "options"]
    shared = inspect.signature(_chosen).parameters

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        options = _chosen(**{name: values.pop(name) for name in shared})
        command(**values, options=options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared.values())]
    del wrapper.__wrapped__
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper
