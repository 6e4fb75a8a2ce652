"""Errors, named after the boundary that they crossed. Each keeps its cause through ``raise ... from``."""

from collections.abc import Iterator
from contextlib import contextmanager


class SearchR1Error(Exception):
    """The root of every error that this package raises on purpose."""


class IllegalInputError(SearchR1Error):
    """The loop was given something that it had not asked for: a bug in the caller, never bad user input."""


class ConfigurationError(SearchR1Error):
    """A setting, a path or a combination of both that cannot work. The message says what to change."""


def missing_package(what: str, package: str, extra: str) -> str:
    """Return the message that ``what`` needs a package which is not installed; ``extra`` of this project brings it."""
    return f"{what} needs {package}, which is not installed: pip install '.[{extra}]' in a checkout of searchr1"


@contextmanager
def as_value_error() -> Iterator[None]:
    """Turn a ``ConfigurationError`` into the ``ValueError`` that pydantic takes for a fault of the field."""
    try:
        yield
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


class EngineError(SearchR1Error):
    """The engine failed to produce a completion. The message is for the log: it may quote the engine."""

    def __init__(self, message: str, *, passing: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether the same request, or the rest of it, may well work in a moment."""
        self.retry_after_s = retry_after_s
        """Seconds that the engine asks to wait, or is expected to need, where one knows."""


class EngineUnavailableError(EngineError):
    """The engine cannot be reached, is not ready yet, does not move, or has died."""


class EngineClosedError(EngineUnavailableError):
    """The engine has been closed by its owner: it does not come back."""


class EngineDrainedError(EngineUnavailableError):
    """The engine's owner moves its completions elsewhere: ask for the rest at once."""

    def __init__(self, message: str) -> None:
        super().__init__(message, passing=True)


class EngineOverloadedError(EngineError):
    """The engine refused the request because its queue is full; the same request may succeed later."""

    def __init__(self, message: str, *, passing: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(message, passing=passing, retry_after_s=retry_after_s)


class CorpusError(SearchR1Error):
    """A corpus or an index on disk is missing, malformed or of another version."""


class DatasetError(SearchR1Error):
    """A file of questions or of results is missing or malformed. The message names the file and the line."""


class EvaluationError(SearchR1Error):
    """An evaluation that gives no score, because nothing that it asked ran."""


class GatewayError(SearchR1Error):
    """The gateway cannot be reached, or refuses every request for the same reason."""


class TrainingError(SearchR1Error):
    """A training run that cannot go on: its numbers are no numbers any more. What it saved before is whole."""
