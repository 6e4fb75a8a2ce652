"""The examples of docs/guides/sdk.md: they run as they stand but for the server's address, and their types hold."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.conftest import ADMIN_KEY, running_stage

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "sdk.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PRINTED = [
    ["West African CFA franc", "source [1]: Mali", "completed after 1 searches"],
    ["I need Mali.", "search: currency of Mali", "found: Mali", "answer: West African CFA franc", " ms"],
    ["West African CFA franc", "['completed', "],
    [" tokens", "events after the fourth: [4, 5, ", "the same answer: True", "'And in Chad?']", "run_not_found"],
    ["200 req_", " run_", "West African CFA franc"],
]


@pytest.mark.process
@pytest.mark.parametrize("number", range(len(PRINTED)))
async def test_the_examples_run(number: int, tmp_path: Path) -> None:
    assert len(EXAMPLES) == len(PRINTED)
    async with running_stage() as stage:
        script = tmp_path / "example.py"
        script.write_text(EXAMPLES[number].replace("http://127.0.0.1:8000", stage.url), encoding="utf-8")
        example = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", script),
            env=os.environ | {"SEARCHR1_API_KEY": ADMIN_KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await example.communicate()
    assert err.decode() == ""
    for text in PRINTED[number]:
        assert text in out.decode()


@pytest.mark.process
def test_the_examples_types_hold(tmp_path: Path) -> None:
    files = []
    for i, example in enumerate(EXAMPLES):
        files.append(tmp_path / f"example_{i}.py")
        files[-1].write_text(example, encoding="utf-8")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from searchr1_client import SearchR1\nSearchR1().research.create('?', max_turn=1)\n", "utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *files, wrong],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, checked.stdout + checked.stderr
    assert 'Unexpected keyword argument "max_turn"' in errors[0]
