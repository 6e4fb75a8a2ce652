"""All stored keys at one moment, and which of them a text is."""

import hmac
import secrets
from collections.abc import Iterable, Iterator

from searchr1.keyring.key_text import digest_of, new_salt, parts_of
from searchr1.keyring.stored_key import StoredKey


class KeyRing:
    """The keys of a store, by their ids."""

    def __init__(self, keys: Iterable[StoredKey] = ()) -> None:
        self._keys = {key.id: (key, bytes.fromhex(key.salt), bytes.fromhex(key.digest)) for key in keys}
        self._nobody = (None, new_salt(), secrets.token_bytes(32))
        """What an unknown id is compared with, so that it takes as long as a known one."""

    def __iter__(self) -> Iterator[StoredKey]:
        return (key for key, _, _ in self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def match(self, presented: bytes) -> StoredKey | None:
        """Return the key whose text was presented, in whatever state it is. It is compared in constant time."""
        parts = parts_of(presented)
        if parts is None:
            return None
        key_id, secret = parts
        key, salt, digest = self._keys.get(key_id, self._nobody)
        return key if hmac.compare_digest(digest_of(salt, secret), digest) else None
