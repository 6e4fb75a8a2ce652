"""The locust scenarios, for a few seconds. They are skipped where ``scripts/setup-programs`` has not been run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCUST = ROOT / ".venv-programs" / "bin" / "locust"
NAMES = ("chat", "chat, left", "chat, slowly", "responses", "research")


@pytest.mark.process
@pytest.mark.skipif(not LOCUST.exists(), reason="locust is not there: scripts/setup-programs")
def test_every_kind_of_user_is_served() -> None:
    command = [sys.executable, "-m", "loadtests.locust", "--locust", str(LOCUST), "--users", "11", "--seconds", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert [name for name in NAMES if f"POST     {name} " not in told] == []
