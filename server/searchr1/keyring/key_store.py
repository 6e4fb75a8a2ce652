"""The contract of what keeps keys: a file, or Redis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from searchr1.errors import ConfigurationError
from searchr1.keyring.key_text import ID_CHARS, PREFIX
from searchr1.keyring.stored_key import StoredKey


class KeysUnreadableError(ConfigurationError):
    """Keys that can't be read or written: their store is broken or out of reach. No message quotes a record."""


class UnknownKeyError(ConfigurationError):
    """A key that is not in the store."""


def unknown_key(store_name: str, key_id: str) -> UnknownKeyError:
    """Return the error of an id that no key has. What may hold a secret is not quoted."""
    if len(key_id) > ID_CHARS or key_id.strip().lower().startswith(f"{PREFIX}_"):
        return UnknownKeyError(f"{store_name}: no key is known by what was given; an id has {ID_CHARS} characters")
    return UnknownKeyError(f"{store_name}: no key has the id {key_id!r}")


@dataclass(frozen=True, slots=True)
class Reading:
    """The keys as they were read."""

    mark: str
    """Differs whenever the keys may."""
    keys: Sequence[StoredKey]
    faults: Sequence[str] = ()
    """What is wrong with records that were left out: whoever has such a key is refused."""


class KeyStore(Protocol):
    """Keys that outlive the process. Every method raises ``KeysUnreadableError``."""

    @property
    def name(self) -> str:
        """The store in words; it holds no password."""

    async def read(self, since: str | None = None) -> Reading | None:
        """Return all keys; None where nothing has changed since the reading whose mark is ``since``."""
        ...

    async def add(self, key: StoredKey) -> None:
        """Store a new key."""
        ...

    async def revoke(self, key_id: str, *, now: int) -> StoredKey:
        """Have a key open nothing from now on, and return it; one that was revoked before stays as it is.

        Raises:
            UnknownKeyError: there is none of that id.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what it holds."""
        ...
