"""Prometheus metrics of HTTP requests, by the route that took them and the status that they got."""

import time
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Receive, Scope, Send

from searchr1.gateway.request_scope import status_of

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE: Final = "other"
"""The route of a request that none took: it was refused before, or there is none."""


class HttpMetrics:
    """The metrics of HTTP requests. Their labels are bounded: a path that no route knows is ``other``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge(
            "searchr1_http_requests_in_flight",
            "HTTP requests whose response has not ended.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._requests = Counter(
            "searchr1_http_requests",
            "HTTP requests by route and status; left is one whose client went before its answer.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_s = Histogram(
            "searchr1_http_request_seconds",
            "From an HTTP request's headers to the end of its response, streams included.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )

    def count(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count a request; its ``status`` is 0 where none was sent."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status or "left")).inc()
        self._request_s.labels(route).observe(duration_s)


class CountRequests:
    """ASGI middleware that counts each request when its response ends, and costs the messages of it nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = _metrics_of(scope) if scope["type"] == "http" else None
        if metrics is None:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            with metrics.in_flight.track_inprogress():
                await self._app(scope, receive, send)
        finally:
            metrics.count(scope["method"], route_of(scope), status_of(scope), time.perf_counter() - started)


def route_of(scope: Scope) -> str:
    """Return the template of the path that a request was routed by, such as ``/v1/research/{run_id}``."""
    return getattr(scope.get("route"), "path", _NO_ROUTE)


def _metrics_of(scope: Scope) -> HttpMetrics | None:
    """Return the metrics of the app that serves a request, None while its services are not open."""
    services: Any = getattr(scope["app"].state, "services", None)
    return None if services is None else services.metrics.http
