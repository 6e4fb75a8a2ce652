"""Errors of runs that wait for their start, and of stored ones. The routes word them for their API."""


class NoSlotError(Exception):
    """Lack of room for a run, in the queue too. ``str()`` tells people to try again."""

    def __init__(self, retry_after_s: float) -> None:
        """``retry_after_s`` is when there may be room again for whoever was refused."""
        super().__init__("The server runs as many requests as it can; try again shortly.")
        self.retry_after_s = retry_after_s


class PromptTooLargeError(NoSlotError):
    """Refusal of a prompt that no replica's KV cache holds, however empty. ``str()`` tells people what to change."""

    def __init__(self, num_ids: int, largest_tokens: int) -> None:
        """``num_ids`` is the prompt's length, ``largest_tokens`` the largest KV cache, both in tokens."""
        super().__init__(retry_after_s=60.0)
        self.args = (
            f"The question makes a prompt of {num_ids} tokens; the engine's cache holds {largest_tokens}. Shorten it.",
        )


class SeatExpiredError(Exception):
    """A run's deadline passed while it waited for its start."""


class RunNotFoundError(Exception):
    """A stored run that does not exist, or is of another API or another caller's."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no stored run {run_id[:100]!r}")
        self.run_id = run_id


class RunsUnreachableError(Exception):
    """Silence of the run store; ``str()`` tells people what can't be reached. Its cause is the store's error."""
