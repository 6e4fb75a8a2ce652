"""``scripts/check-api``: Schemathesis, with keys and without, where it is installed; and that a fault is seen."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.openapi import PASSES, check

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-schemathesis" / "bin" / "schemathesis"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(3600)
def test_schemathesis_finds_nothing() -> None:
    if not (ROOT / ".venv-schemathesis" / ".setup").exists():
        pytest.skip("needs scripts/check-api to have set itself up")
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.openapi", "--program", PROGRAM, "--max-examples", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


@pytest.mark.process
def test_a_pass_that_fails_is_told(tmp_path: Path) -> None:
    program = tmp_path / "finds-a-fault"
    program.write_text('#!/bin/sh\ncase "$*" in *--include-path-regex*) exit 1;; esac\n')
    program.chmod(0o755)
    [admin] = [one.name for one in PASSES if "--include-path-regex" in one.options]
    assert check(program, max_examples=1, seed=1) == [admin]
