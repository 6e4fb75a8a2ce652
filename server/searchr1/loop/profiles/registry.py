"""The profiles by name. Each module of this package registers its own as it is imported; all are imported here."""

import importlib
import pkgutil
from functools import cache

from searchr1.errors import ConfigurationError
from searchr1.loop import profiles
from searchr1.loop.profiles.base import Profile

_PROFILES: dict[str, Profile] = {}


def register(profile: Profile) -> Profile:
    """Make ``profile`` known by its name, and return it.

    Raises:
        ValueError: another profile has that name, or it holds a plus sign, which parts names in records.
    """
    if "+" in profile.name or _PROFILES.setdefault(profile.name, profile) is not profile:
        raise ValueError(f"there is a profile named {profile.name!r} already, or the name holds a '+'")
    return profile


def profile_named(name: str) -> Profile:
    """Return the profile registered as ``name``.

    Raises:
        ConfigurationError: there is none.
    """
    _import_all()
    if name not in _PROFILES:
        raise ConfigurationError(f"there is no profile {name!r}; there are {', '.join(sorted(_PROFILES))}")
    return _PROFILES[name]


def registered() -> tuple[Profile, ...]:
    """Return all profiles, by name."""
    _import_all()
    return tuple(_PROFILES[name] for name in sorted(_PROFILES))


@cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(profiles.__path__):
        importlib.import_module(f"{profiles.__name__}.{module.name}")
