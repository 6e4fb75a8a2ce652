"""The opening of the store that holds the keys."""

from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.key_place import KeyPlace
from searchr1.keyring.key_store import KeyStore
from searchr1.keyring.redis_keys import RedisKeys
from searchr1.redis_client import open_redis


def open_keys(place: KeyPlace) -> KeyStore:
    """Return the store at ``place``, which connects or reads when it is asked. Raises ``ConfigurationError``."""
    if place.redis_url is not None:
        return RedisKeys(open_redis(place.redis_url))
    assert place.file is not None, "keys are in a file or in Redis"
    return KeyFile(place.file)
