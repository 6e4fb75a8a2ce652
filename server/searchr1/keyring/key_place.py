"""Where stored keys are: in a file, or in Redis."""

from dataclasses import dataclass, field
from pathlib import Path

from searchr1.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """The place of stored keys: one of both."""

    file: Path | None = None
    redis_url: str | None = field(default=None, repr=False)


def key_place(file: Path | None, *, in_redis: bool, redis_url: str | None) -> KeyPlace | None:
    """Return where the settings say that stored keys are; None where there are none.

    Raises:
        ConfigurationError: two places are named, or a Redis that is not there.
    """
    if file is not None and in_redis:
        raise ConfigurationError(
            "SEARCHR1_KEYS_FILE and SEARCHR1_KEYS_IN_REDIS exclude each other: keys have one place"
        )
    if in_redis and redis_url is None:
        raise ConfigurationError("SEARCHR1_KEYS_IN_REDIS is on without SEARCHR1_REDIS_URL: name the Redis")
    if in_redis:
        return KeyPlace(redis_url=redis_url)
    return None if file is None else KeyPlace(file=file)
