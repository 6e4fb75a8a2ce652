"""The gateway's bounds on connections, from its settings."""

import json

from searchr1.gateway.errors import error_body
from searchr1.http_server.bounds import HttpBounds, connections_that_fit
from searchr1.models_file import model_configs
from searchr1.settings import Settings

_PROBES = frozenset({"/healthz", "/readyz", "/health", "/ping", "/metrics"})
_FILES_PER_RUN = 2
"""Open files of a run besides its client's: the engine's connection, and a search's."""
_OTHER_FILES = 64
OPS_CONNECTIONS = 64
"""Connections at once to the operators' port."""


def http_bounds(settings: Settings) -> HttpBounds:
    """Return the bounds; fewer connections than the setting where the process may not open so many files.

    Raises:
        ConfigurationError: the file of models can't be read.
    """
    reserved = _num_reserved(settings)
    return HttpBounds(
        max_connections=connections_that_fit(settings.max_connections, reserved),
        keep_alive_s=settings.keep_alive_s,
        header_timeout_s=settings.header_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        probes=_PROBES,
        refusal=_refusal,
    )


def num_files(settings: Settings) -> int:
    """Return how many files the process may have open at once. Raises as ``http_bounds`` does."""
    return settings.max_connections + _num_reserved(settings)


def _num_reserved(settings: Settings) -> int:
    num_runs = sum(model.settings.max_concurrent_runs for model in model_configs(settings))
    of_operators = 0 if settings.ops_port is None else OPS_CONNECTIONS
    return _OTHER_FILES + of_operators + _FILES_PER_RUN * num_runs


def _refusal(status: int, message: str, code: str) -> bytes:
    return json.dumps(error_body(status, message, code=code)).encode()
