"""Errors as OpenAI's API shapes them: ``{"error": {"message", "type", "param", "code"}}``, for every failure."""

import math
import random
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from searchr1.gateway.failures import run_failure
from searchr1.gateway.hints import methods_at, suggestion
from searchr1.gateway.sse import JsonResponse

RETRY_AFTER_S = 2
"""Least seconds that a client is told to wait; chance adds up to as many, so that not all come back at once."""
_LONGEST_RETRY_S = 60
"""OpenAI's client takes no notice of a longer wait, and would try again at once."""
_MAX_PARAM_CHARS = 200
_MAX_QUOTE_CHARS = 500
"""Bound of a validator's message, which may quote the request."""
_CODES = {
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    503: "overloaded",
}


class ErrorDetail(BaseModel):
    """An error, in OpenAI's shape."""

    message: str = Field(description="What happened and what to do, for people.")
    type: str = Field(description="The kind of error, as OpenAI names it.")
    param: str | None = Field(description="The part of the request that is at fault.")
    code: str | None = Field(description="What happened, for programs.")


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that can't be served, with all that its answer needs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_s: float = RETRY_AFTER_S,
        is_exact: bool = False,
    ) -> None:
        """``retry_after_s`` is for a 429 or a 503: the least time after which to try again.

        Chance adds up to as much, unless it ``is_exact``: the time of one client, who is alone with it.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.is_exact = is_exact

    @property
    def body(self) -> dict[str, Any]:
        """Return the JSON object to send."""
        return error_body(self.status, self.message, code=self.code, param=self.param)

    def response(self) -> JsonResponse:
        """Return the HTTP response to send."""
        return JsonResponse(self.body, status_code=self.status, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        if self.status not in (429, 503):
            return {}
        seconds = max(1, math.ceil(self.retry_after_s)) if self.is_exact else _jittered(self.retry_after_s)
        headers = {"Retry-After": str(seconds)}
        if self.is_exact and seconds > _LONGEST_RETRY_S:
            headers["x-should-retry"] = "false"
        return headers


def error_body(status: int, message: str, *, code: str, param: str | None = None) -> dict[str, Any]:
    """Return the error object for an HTTP status."""
    kind = "invalid_request_error"
    if status == 401:
        kind = "authentication_error"
    elif status == 403:
        kind = "permission_error"
    elif status == 429:
        kind = "rate_limit_error"
    elif status >= 500:
        kind = "server_error"
    return {"error": {"message": _sendable(message), "type": kind, "param": _sendable(param), "code": code}}


def _sendable(text: str | None) -> Any:
    """Return ``text`` as valid Unicode: it may quote the request, whose text need not be."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Return a 400: the request itself is wrong; ``message`` says what to do."""
    return ApiError(400, message, code=code, param=param)


def nothing_at(method: str, path: str) -> str:
    """Return what is told of a path at which there is nothing."""
    return f"There is nothing at {method} {path}."


def engine_status(code: str) -> int:
    """Return the HTTP status of a failed run's code: 503 where the same request may work later."""
    return run_failure(code).status


def run_error(code: str) -> ApiError:
    """Return the error of a run that failed with ``code`` before any of its answer was sent."""
    failure = run_failure(code)
    return ApiError(failure.status, failure.message, code=code)


def _jittered(seconds: float) -> int:
    """Return whole seconds between ``seconds`` and twice as many, at least one."""
    return max(1, round(seconds * random.uniform(1, 2)))


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of ``app`` the same shape."""

    async def on_api_error(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, ApiError)
        if error.status == 401:
            services = request.app.state.services
            services.metrics.keys_refused.labels(error.code).inc()
            services.refusals.note(f"keys are refused: {error.code}")
        return error.response()

    async def on_validation(_: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, RequestValidationError)
        return _from_validation(error).response()

    async def on_http(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "bad_request")
        message = str(error.detail)
        if error.status_code == 404:
            path = request.scope["path"]
            message = nothing_at(request.method, path)
            if meant := suggestion(path, request.method, request.app.routes):
                message = f"{message[:-1]}; did you mean {meant}?"
        elif error.status_code == 405:
            message = f"{request.scope['path']} does not take {request.method}."
            allowed = ", ".join(methods_at(request.scope, request.app.routes))
            return JsonResponse(error_body(405, message, code=code), status_code=405, headers={"Allow": allowed})
        body = error_body(error.status_code, message, code=code)
        return JsonResponse(body, status_code=error.status_code, headers=error.headers)

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)


def _from_validation(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return invalid('The body is not valid JSON. Send an object such as {"question": "…"}.', code="invalid_json")
    param = ".".join(where)[:_MAX_PARAM_CHARS] or None
    subject = f"'{param}': " if param else "The body: "
    return invalid(f"{subject}{first['msg'][:_MAX_QUOTE_CHARS]}.", param=param, code=str(first["type"]))
