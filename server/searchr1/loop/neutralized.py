"""Profiles for serving, where passages come from strangers; and the names under which records keep a profile.

Training and evaluation of what was trained keep the bare profile. A record says ``search-r1`` or
``search-r1+sanitized``; records from before there were other profiles say ``faithful`` and ``sanitized``.
"""

from dataclasses import replace
from functools import cache

from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.sanitize import neutralize

SUFFIX = "+sanitized"
_FORMER = {"faithful": "search-r1", "sanitized": f"search-r1{SUFFIX}"}


@cache
def neutralized(profile: Profile) -> Profile:
    """Return ``profile`` with tag-like text in passages neutralized before the model reads it; see ``sanitize.py``.

    Everything else, and every observation of passages without such text, is the same byte for byte.
    """
    return replace(
        profile,
        name=profile.name + SUFFIX,
        observation=lambda passages: profile.observation(neutralize(passages)),
    )


def recorded_profile(name: str) -> Profile:
    """Return the profile that a record names, in any version's words.

    Raises:
        ConfigurationError: it is not known here.
    """
    name = _FORMER.get(name, name)
    profile = profile_named(name.removesuffix(SUFFIX))
    return neutralized(profile) if name.endswith(SUFFIX) else profile
