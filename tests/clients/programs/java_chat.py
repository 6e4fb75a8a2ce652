"""Chat Completions through the client of a JDK, ``java.net.http`` (whole, stream)."""

import subprocess
import tempfile
from pathlib import Path

from tests.clients.programs.raw_chat import StatusError, body_of, show_stream, show_whole
from tests.clients.programs.report import Job, Shown, main

SOURCE = Path(__file__).parents[1] / "java" / "Ask.java"


def show(job: Job, shown: Shown, classes: str) -> None:
    """Ask as the mode says."""
    command = ["java", "-cp", classes, "Ask", f"{job.url}/chat/completions", body_of(job)]
    if job.mode == "whole":
        show_whole(command, shown)
    else:
        show_stream(command, job, shown)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["javac", "-d", folder, str(SOURCE)], check=True)
        main(lambda job, shown: show(job, shown, folder), StatusError)
