"""Keys that clients present to the server: what can be one, and whose each is.

No message quotes a key.
"""

import re
from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from searchr1.errors import ConfigurationError

_NO_KEY = "it is set but holds no key; give it one, or unset it"
ADEQUATE_CHARS = 16
"""Length under which a key can be guessed by trying."""
_KEY = re.compile(r"[!-~]+")
_PLACEHOLDER = re.compile(
    r"none|null|nil|undefined|\$\{.*\}|\$\(.*\)|\{\{.*\}\}|<.*>|%.*%|\[.*\]|\{.*\}", re.IGNORECASE
)


def checked_key(key: str) -> str:
    """Return ``key`` without the white space around it.

    Raises:
        ConfigurationError: it is empty, or nothing that a client could send as a bearer token.
    """
    key = key.strip()
    if not key:
        raise ConfigurationError(_NO_KEY)
    if not _KEY.fullmatch(key):
        raise ConfigurationError("no client can send this key: it must be printable ASCII without spaces")
    if _PLACEHOLDER.fullmatch(key) or not any(c.isalnum() for c in key):
        raise ConfigurationError(_NO_KEY)
    return key


def split_keys(text: str) -> tuple[str, ...]:
    """Return the comma-separated keys in ``text``. Raises ``ConfigurationError`` where there is none."""
    if text.strip()[:1] in ("[", "{"):
        raise ConfigurationError("keys are separated by commas, and not written as JSON")
    keys = tuple(part.strip() for part in text.split(",") if part.strip())
    if not keys:
        raise ConfigurationError(_NO_KEY)
    return keys


def owners(
    plain: Sequence[SecretStr], of_tenants: Mapping[str, Sequence[SecretStr]], admin: SecretStr | None
) -> dict[str, str]:
    """Return the tenant of each key; keys of no tenant have the empty one.

    Raises:
        ConfigurationError: a key has two owners, or is the admin's too.
    """
    found: dict[str, str] = {}
    for tenant, keys in [("", plain), *of_tenants.items()]:
        for key in keys:
            if found.setdefault(key.get_secret_value(), tenant) != tenant:
                raise ConfigurationError(
                    "SEARCHR1_API_KEYS and SEARCHR1_TENANT_KEYS give one key to two owners: each key needs one"
                )
    if admin is not None and admin.get_secret_value() in found:
        raise ConfigurationError("SEARCHR1_ADMIN_KEY is an API key too: give the admin a key of its own")
    return found


def check_tenants(of_tenants: Mapping[str, Sequence[object]]) -> None:
    """Refuse tenants without a name or without a key. Raises ``ConfigurationError``."""
    for tenant, keys in of_tenants.items():
        if not tenant.strip() or not tenant.isprintable():
            raise ConfigurationError("a tenant's name is empty or holds control characters")
        if not keys:
            raise ConfigurationError("a tenant has no key; give it one, or leave the tenant out")
