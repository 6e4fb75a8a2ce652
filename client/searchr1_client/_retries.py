"""Retries: which failed calls are sent again, and after how long.

Only a request that got no answer, or one that says "later", is sent again: once an answer's first byte is there,
nothing is. A question that is asked again starts no second run: it carries its idempotency key again.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from searchr1_client._errors import APIConnectionError, APIStatusError

Failure = APIConnectionError | APIStatusError


def is_retryable(failure: Failure) -> bool:
    """Return the failure's own ``retryable``: no answer came, or the status is 408, 429 or at least 500."""
    return failure.retryable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Rules of sending a failed call again; ``max_retries`` of the client says how often."""

    first_wait_s: float = 0.5
    """Seconds before the second try, where the server asks for no wait of its own. Each later wait is twice as long."""
    longest_wait_s: float = 8.0
    """Bound of the doubled waits, in seconds."""
    longest_retry_after_s: float = 60.0
    """Bound of the waits that the server asks for, in seconds: one that asks for more is tried again after this."""
    may_pass: Callable[[Failure], bool] = is_retryable
    """True for a failure after which the same call may succeed."""

    def wait_s(self, failure: Failure | None, attempt: int) -> float:
        """Return the seconds to wait after the ``attempt``-th failure, from 1.

        That is what the server asks for, else twice as long each time. Chance is added, so that clients that failed
        together do not come back together.
        """
        asked_s = failure.retry_after_s if isinstance(failure, APIStatusError) else None
        if asked_s is not None:
            return min(asked_s, self.longest_retry_after_s) * random.uniform(1.0, 1.1)
        # The exponent is bounded: 2.0 to the power of 1024 is no float.
        doubled_s = self.first_wait_s * 2.0 ** min(attempt - 1, 60)
        return min(doubled_s, self.longest_wait_s) * random.uniform(0.5, 1.0)
