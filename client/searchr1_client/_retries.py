"""When to try again, and after how long.

Only a request that got no answer, or one that says "later", is sent again: once an answer's first byte is there,
nothing is. A question that is asked again may run twice on the server; the first of the two has lost its reader, so
the server ends it.
"""

import random

from searchr1_client._errors import APIConnectionError, APIStatusError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
"""A server that asks for a longer wait is asked again after this one."""


def wait_s(failure: APIConnectionError | APIStatusError | None, attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th failure, from 1: what the server asks for, else twice as long each time.

    Chance is added, so that clients that failed together do not come back together.
    """
    asked_s = failure.retry_after_s if isinstance(failure, APIStatusError) else None
    if asked_s is not None:
        return min(asked_s, LONGEST_RETRY_AFTER_S) * random.uniform(1.0, 1.1)
    return float(min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S) * random.uniform(0.5, 1.0))
