"""What the SDK costs to have: the size of its wheel and of a clean install, and the time of its import.

    python -m loadtests.sdk_import

Builds the wheel, installs it by pip into an empty virtual environment, and times imports there, each in a process of
its own and taken in turn: ``import httpx, pydantic`` and ``import searchr1_client``. The difference of the medians is
the SDK's own. Prints one line of JSON.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

CLIENT = Path(__file__).parents[1] / "client"
REPEATS = 15
_BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def import_ms(python: Path, modules: str) -> float:
    """Wall time of one process that imports ``modules``, in milliseconds."""
    started = time.perf_counter()
    subprocess.run([python, "-I", "-c", f"import {modules}"], check=True)
    return (time.perf_counter() - started) * 1e3


def folder_bytes(folder: Path, pattern: str = "*") -> int:
    """Size of the files below the folders in ``folder`` that match ``pattern``, compiled modules left out."""
    return sum(
        path.stat().st_size
        for top in folder.glob(pattern)
        for path in top.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )


def main() -> None:
    """Build, install, measure, print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        built = subprocess.run(
            [sys.executable, "-c", _BUILD, scratch], cwd=CLIENT, check=True, capture_output=True, text=True
        )
        wheel = folder / built.stdout.split()[-1]
        home = folder / "venv"
        venv.create(home, with_pip=True)
        python = home / "bin" / "python"
        packages = next((home / "lib").glob("python*/site-packages"))
        before = folder_bytes(packages)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel], check=True)
        times: dict[str, list[float]] = {"sys": [], "httpx, pydantic": [], "searchr1_client": []}
        for modules in times:
            import_ms(python, "sys" if modules == "sys" else modules)
        for _ in range(REPEATS):
            for modules, taken in times.items():
                taken.append(import_ms(python, "sys" if modules == "sys" else modules))
        start, base, ours = (statistics.median(taken) for taken in times.values())
        print(
            json.dumps(
                {
                    "wheel_kb": round(wheel.stat().st_size / 1e3, 1),
                    "sdk_installed_kb": round(folder_bytes(packages, "searchr1_client*") / 1e3, 1),
                    "all_installed_mb": round((folder_bytes(packages) - before) / 1e6, 1),
                    "interpreter_ms": round(start),
                    "httpx_and_pydantic_ms": round(base - start),
                    "searchr1_client_ms": round(ours - start),
                    "own_import_ms": round(ours - base),
                }
            )
        )


if __name__ == "__main__":
    main()
