"""What can go wrong between a client and the server."""

import json

import httpx

_MAX_ERROR_CHARS = 300


class ClientError(Exception):
    """The root of every error that this package raises on purpose."""


class ApiStatusError(ClientError):
    """The server answered with an HTTP error. ``str()`` is its message, which says what to do."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        """The same request may succeed later: the server is limiting, overloaded or starting."""
        return self.status in (429, 503)


class StreamError(ClientError):
    """The event stream broke."""


class StreamFormatError(StreamError):
    """The stream holds something that is not an event of a run."""


class StreamEndedError(StreamError):
    """The stream ended before the run did. The run's outcome is unknown."""


def status_error(response: httpx.Response) -> ApiStatusError:
    """The error for a response whose body has been read; a body that is not in OpenAI's shape is quoted."""
    message, code, param = _error_fields(response)
    return ApiStatusError(
        response.status_code,
        message,
        code=code,
        param=param,
        retry_after_s=_retry_after_s(response.headers.get("retry-after")),
    )


def _error_fields(response: httpx.Response) -> tuple[str, str | None, str | None]:
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and isinstance(message := error.get("message"), str):
        return message, _text_or_none(error.get("code")), _text_or_none(error.get("param"))
    quoted = response.text.strip()[:_MAX_ERROR_CHARS]
    return f"HTTP {response.status_code} {response.reason_phrase}: {quoted or 'no body'}", None, None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _retry_after_s(header: str | None) -> float | None:
    """Seconds only; the date form is left to the caller's own back-off."""
    return float(header) if header is not None and header.strip().isdecimal() else None
