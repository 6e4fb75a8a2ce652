"""A soak of a few seconds, with one fault: it starts everything, counts, draws, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.redis, pytest.mark.process, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def test_a_short_soak(tmp_path: Path) -> None:
    plot, logs = tmp_path / "soak.png", tmp_path / "logs"
    command = [sys.executable, "-m", "loadtests.soak", "--minutes", "0.1", "--warm-up", "0", "--burst-s", "8"]
    command += ["--rate", "10", "--plot", str(plot), "--logs", str(logs)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    told = ran.stdout + ran.stderr
    assert ran.returncode == 0, told
    assert "| research | " in told
    assert " 1 faults, " in told
    assert plot.read_bytes().startswith(b"\x89PNG")
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert [command for command in commands if str(logs).encode() in command] == []
