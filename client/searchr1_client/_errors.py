"""Errors of the SDK, one class for each thing that can go wrong between a client and the server."""

import json

import httpx

from searchr1_client._retry_after import retry_after_s

_MAX_ERROR_CHARS = 300
_RETRYABLE_STATUSES = (408, 429)
_LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors of a request that failed before an answer came, and not by being slow."""


class SearchR1Error(Exception):
    """The root of every error that this package raises on purpose."""


class APIConnectionError(SearchR1Error):
    """Failure to get an answer. ``__cause__`` is httpx's own error."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class InvalidArgumentError(SearchR1Error, ValueError):
    """A call that can't be sent: an id that is none, a value that JSON or HTTP has no form for."""


class ClientClosedError(SearchR1Error, RuntimeError):
    """A call through a client that was closed."""


class APITimeoutError(APIConnectionError):
    """A server that could not be reached, or was silent, for longer than ``timeout``."""


class APIStatusError(SearchR1Error):
    """An HTTP error that the server answered with. ``str()`` is its message, which says what to do."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        param: str | None = None,
        body: object = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        """The server's name for the error, such as ``above_maximum``."""
        self.param = param
        """The field of the request that is at fault, where one is."""
        self.body = body
        """The answer's JSON; None where it held none."""
        self.request_id = request_id
        """Value of the answer's ``x-request-id`` header."""
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        """True where the same request may succeed later: the server is limiting, overloaded, starting or failing."""
        return self.status_code in _RETRYABLE_STATUSES or self.status_code >= 500


class BadRequestError(APIStatusError):
    """400: the request itself is wrong; ``param`` names the field."""


class AuthenticationError(APIStatusError):
    """401: the server wants an API key, or another one."""


class PermissionDeniedError(APIStatusError):
    """403: the key is good, but not for this."""


class NotFoundError(APIStatusError):
    """404: no such run (``run_not_found``), model (``model_not_found``) or address."""


class ConflictError(APIStatusError):
    """409: what is asked for does not fit the state of things."""


class PayloadTooLargeError(APIStatusError):
    """413: the request's body is over the server's limit."""


class UnprocessableEntityError(APIStatusError):
    """422: an idempotency key came with another request before (``idempotency_key_reused``)."""


class RateLimitError(APIStatusError):
    """429: too many requests; ``retry_after_s`` says when to come back."""


class InternalServerError(APIStatusError):
    """Any status of 500 and above."""


class ServiceUnavailableError(InternalServerError):
    """503: no free slot, or the engine is starting or down; ``retry_after_s`` says when to come back."""


class APIResponseValidationError(SearchR1Error):
    """A successful answer that this version of the package does not know."""


class StreamError(SearchR1Error):
    """Failure of an event stream.

    ``run_id`` and ``last_seq`` are those of the last event that was read, for ``research.resume(run_id,
    after=last_seq)``; None where there was none.
    """

    def __init__(self, message: str, *, run_id: str | None = None, last_seq: int | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.last_seq = last_seq


class StreamFormatError(StreamError):
    """A stream that holds something that is not an event of a run, or lacks one."""


class StreamEndedError(StreamError):
    """A stream that ended before its run did. The run's outcome is unknown."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}


def status_error(response: httpx.Response) -> APIStatusError:
    """Return the error for a response whose body has been read; a body that is not in OpenAI's shape is quoted."""
    default = InternalServerError if response.status_code >= 500 else APIStatusError
    body = _json_or_none(response)
    message, code, param = _error_fields(response, body)
    return _BY_STATUS.get(response.status_code, default)(
        message,
        status_code=response.status_code,
        code=code,
        param=param,
        body=body,
        request_id=response.headers.get("x-request-id"),
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


def connection_error(error: httpx.RequestError) -> APIConnectionError:
    """Return the error for a request without an answer.

    A timeout while waiting for the answer is not retryable: the next wait would be as long.
    """
    where = _where(error)
    detail = str(error) or type(error).__name__
    kind = APITimeoutError if isinstance(error, httpx.TimeoutException) else APIConnectionError
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return kind(f"{where} did not answer in time ({detail})", retryable=False)
    return kind(f"no answer from {where} ({detail})", retryable=isinstance(error, _LOST))


def _where(error: httpx.RequestError) -> str:
    try:
        url = error.request.url
    except RuntimeError:  # httpx names no request in some of its errors
        return "the server"
    return f"{url.scheme}://{url.netloc.decode()}"


def _json_or_none(response: httpx.Response) -> object:
    try:
        body: object = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return body


def _error_fields(response: httpx.Response, body: object) -> tuple[str, str | None, str | None]:
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and isinstance(message := error.get("message"), str):
        return message, _text_or_none(error.get("code")), _text_or_none(error.get("param"))
    quoted = response.text.strip()[:_MAX_ERROR_CHARS]
    return f"HTTP {response.status_code} {response.reason_phrase}: {quoted or 'no body'}", None, None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
