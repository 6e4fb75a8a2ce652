"""The ``Retry-After`` header (RFC 9110, section 10.2.3).

The server, a distribution of its own, has the same reader in ``searchr1.retry_after``.
``tests/test_retry_after.py`` holds the two equal.
"""

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 86_400.0
"""Bound of what a header is taken to ask for, in seconds."""

_SECONDS = re.compile(r"[0-9]+", re.ASCII)


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds from now that the header names, as a number or as a date, from 0 to ``LONGEST_WAIT_S``.

    None where there is no header, or none that can be read.
    """
    if header is None:
        return None
    text = header.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT_S)
    try:
        at = parsedate_to_datetime(text)
        # HTTP's dates are in UTC, also in the old form that does not say so.
        wait_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, wait_s), LONGEST_WAIT_S)
