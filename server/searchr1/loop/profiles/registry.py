"""The profiles by name. Each module of this package registers its own as it is imported; all are imported here."""

from searchr1.loop.profiles.base import Profile
from searchr1.registry import Registry

PROFILES: Registry[Profile] = Registry("profile", "searchr1.loop.profiles.*")


def register(profile: Profile) -> Profile:
    """Make ``profile`` known by its name, and return it.

    Raises:
        ValueError: another profile has that name, or it holds a plus sign, which parts names in records.
    """
    if "+" in profile.name:
        raise ValueError(f"a profile's name has no '+': {profile.name!r}")
    PROFILES.add(profile.name, profile)
    return profile


def profile_named(name: str) -> Profile:
    """Return the profile registered as ``name``.

    Raises:
        ConfigurationError: there is none.
    """
    return PROFILES.named(name)


def registered() -> tuple[Profile, ...]:
    """Return all profiles, by name."""
    return tuple(PROFILES.all().values())
