"""Chat Completions through ``curl -N`` (whole, stream)."""

from tests.clients.programs.raw_chat import StatusError, body_of, show_stream, show_whole
from tests.clients.programs.report import Job, Shown, main


def show(job: Job, shown: Shown) -> None:
    """Ask as the mode says."""
    command = ["curl", "-sN", f"{job.url}/chat/completions", "-H", "content-type: application/json", "-d", body_of(job)]
    if job.mode == "whole":
        show_whole([*command, "--write-out", r"\n%{http_code}"], shown)
    else:
        show_stream(command, job, shown)


if __name__ == "__main__":
    main(show, StatusError)
