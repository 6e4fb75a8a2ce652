"""The Hugging Face hub's snapshots; what its client says where it gives none, in one line."""

import os
import ssl
from pathlib import Path
from typing import Any

_PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class HubRefusedError(Exception):
    """The hub gave nothing; ``str()`` says why in one line."""


def snapshot(name: str, **options: Any) -> Path:
    """Return the folder of a hub's snapshot; ``options`` are those of ``huggingface_hub.snapshot_download``.

    Raises:
        HubRefusedError: it can't be had.
        ImportError: huggingface_hub is not installed.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **options))
    except Exception as error:  # the errors of its HTTP library come through, of its disk, and its own: no common base
        raise HubRefusedError(_refusal(error)) from error


def _refusal(error: Exception) -> str:
    """Return the first line of what the hub's client raised, and the variables that may be why.

    It raises errors of its own, of its HTTP library, for a proxy or a certificate, and of the disk, without a common
    base. Its texts go on at length. Values of variables are never quoted: they may hold passwords.
    """
    said = error.__cause__ or error
    line = (str(said).strip().splitlines() or [type(said).__name__])[0].rstrip(". ")
    found = [name for one in _blamed(said) for name in (one, one.lower()) if os.environ.get(name)]
    return f"{line} (set here: {', '.join(found)})" if found else line


def _blamed(error: BaseException) -> tuple[str, ...]:
    """Return the variables that an error does not name and may stem from."""
    if type(error).__module__.startswith("huggingface_hub"):
        return ()  # It says what it means.
    return _CERTIFICATES if isinstance(error, FileNotFoundError | ssl.SSLError) else _PROXIES
