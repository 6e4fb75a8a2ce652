"""Each example of ``docs/reference/responses.md`` runs alone, as it stands but for the server's address and model."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.gateway.conftest import MODEL, Stage

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "responses.md"


def run(code: str) -> None:
    """Run an example, and close the clients that it leaves to the end of its program."""
    names: dict[str, Any] = {}
    try:
        exec(compile(code, str(PAGE), "exec"), names)
    finally:
        for value in names.values():
            if isinstance(value, OpenAI):
                value.close()


async def test_every_example_runs_alone(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        code = block.replace("http://127.0.0.1:8000", stage.url).replace("searchr1-atlas", MODEL)
        await asyncio.to_thread(run, code)
    said = capsys.readouterr().out
    assert "searched: currency of Mali" in said
    assert "[currency of Mali: completed]" in said
    assert "\n6 response." in said
    assert "\n5 response." not in said
    assert said.rstrip().endswith("West African CFA franc")
