"""The examples of docs/reference/chat.md, run as they stand but for the server's address and the model's name."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from tests.gateway.conftest import MODEL, Stage

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "chat.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CURL = re.findall(r"```console\n\$ (.*?)```", PAGE, re.DOTALL)


def localized(example: str, stage: Stage) -> str:
    """The example, aimed at the stage."""
    return example.replace("http://127.0.0.1:8000", stage.url).replace("searchr1-atlas", MODEL)


async def test_the_python_examples_run(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(PYTHON) == 2
    for example in PYTHON:
        await asyncio.to_thread(exec, localized(example, stage), {})
    printed = capsys.readouterr().out
    assert "West African CFA franc\nsource: Mali" in printed
    assert "1 searches" in printed
    assert "[search] currency of Mali" in printed
    assert " tokens" in printed


@pytest.mark.process
async def test_the_curl_example_runs(stage: Stage) -> None:
    (example,) = CURL
    curl = await asyncio.create_subprocess_exec(
        *shlex.split(localized(example, stage)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await curl.communicate()
    assert curl.returncode == 0
    assert b'"content":"West African CFA franc"' in out
    assert out.endswith(b"data: [DONE]\n\n")
