"""A key as a file or Redis holds it: whose it is, what it may do, and a hash of its secret.

Fields that this release does not know make a record unreadable: a limit that is misspelt, or a newer release's, must
not be overlooked.
"""

from typing import Annotated, Final, Literal

import msgspec

from searchr1.identity import KeyLimits
from searchr1.keyring.key_text import ID_PATTERN, digest_of, key_text, new_id, new_salt, new_secret

Scope = Literal["infer", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("infer", "read", "admin")
"""``infer`` makes, cancels and deletes runs; ``read`` reads stored runs; ``admin`` opens ``/admin``."""
MAX_NAME_CHARS = 100

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
UnixTime = Annotated[int, msgspec.Meta(ge=0)]
"""Seconds since 1970."""


class StoredLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The limits of a key as they are stored; see ``KeyLimits``."""

    requests_per_minute: AtLeastOne | None = None
    concurrent_runs: AtLeastOne | None = None
    tokens_per_day: AtLeastOne | None = None
    searches_per_window: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """0 refuses every request; ``searchr1 keys create`` makes no such key any more."""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key, without its secret."""

    id: Annotated[str, msgspec.Meta(pattern=rf"^{ID_PATTERN}\Z")]
    name: str
    tenant: str = ""
    """Keys of one tenant share cached searches, runs and budgets; a key of none has its own."""
    scopes: tuple[Scope, ...]
    created_at: UnixTime
    expires_at: UnixTime | None = None
    """From then on it opens nothing."""
    revoked_at: UnixTime | None = None
    limits: StoredLimits = StoredLimits()
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for a name or tenant that can't be shown, and for scopes that are none."""
        _check_name(self.name, "the name", at_least=1)
        _check_name(self.tenant, "the tenant", at_least=0)
        if not self.scopes or len(set(self.scopes)) < len(self.scopes):
            raise ValueError(f"scopes must be one or more of {', '.join(SCOPES)}, each once")

    def __repr__(self) -> str:
        return f"StoredKey(id={self.id!r}, name={self.name!r}, tenant={self.tenant!r})"

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Return whether it opens anything at the Unix time ``now``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"

    def key_limits(self) -> KeyLimits:
        """Return its limits as callers have them."""
        limits = self.limits
        return KeyLimits(
            requests_per_minute=limits.requests_per_minute,
            concurrent_runs=limits.concurrent_runs,
            tokens_per_day=limits.tokens_per_day,
            searches_per_window=limits.searches_per_window,
        )


def made_key(
    name: str,
    *,
    now: int,
    tenant: str = "",
    scopes: tuple[Scope, ...] = ("infer", "read"),
    expires_at: int | None = None,
    limits: StoredLimits | None = None,
) -> tuple[str, StoredKey]:
    """Return a new key's text, which nobody can find again, and what is stored of it.

    Raises:
        ValueError: the name or the tenant can't be shown, or the scopes are none.
    """
    key_id, secret, salt = new_id(), new_secret(), new_salt()
    key = StoredKey(
        id=key_id,
        name=name,
        tenant=tenant,
        scopes=scopes,
        created_at=now,
        expires_at=expires_at,
        limits=limits or StoredLimits(),
        salt=salt.hex(),
        digest=digest_of(salt, secret.encode()).hex(),
    )
    return key_text(key_id, secret), key


def _check_name(name: str, what: str, *, at_least: int) -> None:
    if not at_least <= len(name) <= MAX_NAME_CHARS or name != name.strip() or not name.isprintable():
        raise ValueError(f"{what} must be {at_least} to {MAX_NAME_CHARS} printable characters")
