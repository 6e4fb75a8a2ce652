"""Errors of stored runs. The routes word them for their API."""


class RunNotFoundError(Exception):
    """A stored run that does not exist, or is of another API or another caller's."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no stored run {run_id[:100]!r}")
        self.run_id = run_id


class RunsUnreachableError(Exception):
    """Silence of the run store; ``str()`` tells people what can't be reached. Its cause is the store's error."""
