"""The best rows of a vector of scores."""

import numpy as np
import numpy.typing as npt


def top_rows(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Return the rows of the ``k`` highest ``scores`` (shape: passages), in rising order.

    Of equal scores the lowest rows win, whatever the CPU's partition does.
    """
    if k >= len(scores):
        return np.arange(len(scores))
    threshold = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores > threshold)
    level = np.flatnonzero(scores == threshold)[: k - len(above)]
    return np.sort(np.concatenate((above, level)))
