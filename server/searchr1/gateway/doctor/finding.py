"""What a check found: a line for people, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well as it could, or not always."""
    WRONG = "wrong"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """What was looked at: ``engine``, ``redis``, …"""
    verdict: Verdict
    told: str
    fix: str = ""
    """What to do, for a finding that is not ok."""


def ok(check: str, told: str) -> Finding:
    """Return the finding that something is as it should be."""
    return Finding(check, Verdict.OK, told)


def warning(check: str, told: str, fix: str) -> Finding:
    """Return the finding that something could be better."""
    return Finding(check, Verdict.WARNING, told, fix)


def wrong(check: str, told: str, fix: str) -> Finding:
    """Return the finding that something does not work."""
    return Finding(check, Verdict.WRONG, told, fix)
