"""Errors of stored runs. The routes word them for their API."""


class RunError(Exception):
    """Root of this module's errors."""


class RunNotFoundError(RunError):
    """There is no stored run of that id, or it is of another API or another caller's."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no stored run {run_id[:100]!r}")
        self.run_id = run_id


class RunsUnreachableError(RunError):
    """The run store does not answer; ``str()`` tells people what can't be reached. Its cause is the store's error."""
