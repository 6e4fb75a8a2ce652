"""Who can call the server: refused where it would stand open by oversight, and told in the log at every start."""

import logging
from collections.abc import Mapping

from searchr1.errors import ConfigurationError
from searchr1.keys import ADEQUATE_CHARS
from searchr1.settings import Settings
from searchr1.sockets import is_loopback

logger = logging.getLogger(__name__)

CLIENTS_KEY = "SEARCHR1_API_KEY"


def check_exposure(settings: Settings, environ: Mapping[str, str]) -> None:
    """Refuse to serve without API keys to more than this machine, unless ``open`` says so.

    Raises:
        ConfigurationError: there are no keys, and the host is no loopback address or ``environ`` holds a client's key,
            which is easily taken for the server's.
    """
    if settings.asks_for_keys or settings.open:
        return
    if CLIENTS_KEY in environ:
        raise ConfigurationError(
            f"{CLIENTS_KEY} is the key that clients send; the server's keys are SEARCHR1_API_KEYS, which is not set. "
            "Set that, or serve without keys by --open"
        )
    if not is_loopback(settings.host):
        raise ConfigurationError(
            f"without API keys, everyone who reaches {settings.host or 'this host'} could use this server. "
            "Set SEARCHR1_API_KEYS, serve on 127.0.0.1, or allow it by --open (SEARCHR1_OPEN=1)"
        )


def log_exposure(settings: Settings) -> None:
    """Log who may call the server where it asks for no key, and keys that are easily guessed; never a key."""
    if not settings.asks_for_keys:
        reach = "this machine" if is_loopback(settings.host) else f"everyone who reaches {settings.host}"
        logger.warning("This server asks for no API key: it is open to %s. Set SEARCHR1_API_KEYS to close it.", reach)
    keys = [*settings.api_keys, *(key for keys in settings.tenant_keys.values() for key in keys)]
    for name, given in (("API", keys), ("admin", [settings.admin_key] if settings.admin_key else [])):
        if num_short := sum(len(key.get_secret_value()) < ADEQUATE_CHARS for key in given):
            logger.warning(
                "%d of the %s keys can be guessed: under %d characters. Take random ones.",
                num_short,
                name,
                ADEQUATE_CHARS,
            )
