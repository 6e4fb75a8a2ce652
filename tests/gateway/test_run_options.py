"""The options of a run have the same names on the HTTP route, in the SDK and on the command line."""

import inspect
from typing import get_type_hints

from searchr1.cli import options
from searchr1.gateway.routes.research import ResearchRequest, RunRequest
from searchr1_client import RunOptions
from searchr1_client._request import ReplayOptions


def test_the_sdk_has_every_option() -> None:
    assert get_type_hints(RunOptions).keys() == ResearchRequest.model_fields.keys() - {"question", "stream"}
    assert get_type_hints(ReplayOptions).keys() == RunRequest.model_fields.keys() - {"stream"}


def test_the_command_line_has_every_option() -> None:
    """``searchr1 ask --after`` is ``previous_run_id``."""
    shared = inspect.signature(options._chosen).parameters
    assert shared.keys() == get_type_hints(RunOptions).keys() - {"previous_run_id"}
