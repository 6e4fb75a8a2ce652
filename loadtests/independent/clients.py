"""Load clients of others: how each is run against one server, and the figures in the report that it writes.

Nothing here measures: every figure is the client's own, in the words of its report, and a figure that a report lacks is
None.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchr1.demo.bundle import CHECKPOINT
from searchr1.errors import SearchR1Error

_TOLD = 4000
"""Characters of a client's output that an error shows."""
_DIES_S = 10.0


class ClientError(SearchR1Error):
    """A load client is missing, failed, or wrote a report that can't be read."""


@dataclass(frozen=True)
class Load:
    """What a client shall send, and to whom."""

    url: str
    model: str
    body: Mapping[str, Any]
    """Fields of each request beside the model and the messages."""
    prompts: Path
    """JSON Lines with a ``text`` each, as many as there are requests."""
    num_requests: int
    concurrency: int
    max_s: float
    """After which no more is sent."""


@dataclass(frozen=True)
class Figures:
    """What a client says about one server. Times are in milliseconds."""

    num_done: float | None
    """Requests that ended well."""
    num_errors: float | None
    """Requests that failed, and those that were cut off at the time limit."""
    requests_per_s: float | None
    first_p50: float | None
    """To the first token, of reasoning or of text."""
    first_p95: float | None
    between_tokens: float | None
    """Mean of the requests' times between two tokens."""
    latency_p50: float | None
    latency_p95: float | None
    output_tokens_per_s: float | None
    output_tokens: float | None
    """Mean of a request: servers that do the same work have the same."""


@dataclass(frozen=True)
class Client:
    """A load client."""

    program: str
    arguments: Callable[[Load], Sequence[str]]
    """They have it write ``report`` in the folder where it runs."""
    report: str
    read: Callable[[Any], Figures]

    def path(self, folder: Path) -> Path:
        """Return where the program is; raise ``ClientError`` where it is not in ``folder``."""
        path = folder / self.program
        if not os.access(path, os.X_OK):
            raise ClientError(f"{path} is not there: scripts/setup-programs installs {self.program} (or --programs)")
        return path.absolute()

    def figures(self, path: Path) -> Figures:
        """Return what a report says; raise ``ClientError`` where it has another form."""
        try:
            return self.read(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ClientError(f"{self.program}'s report {path} can't be read: {error!r}") from error

    def measure(self, programs: Path, load: Load, folder: Path, spare_s: float) -> Figures:
        """Run the client in ``folder``, which is empty, for ``max_s`` and ``spare_s`` seconds at most."""
        command = [str(self.path(programs)), *self.arguments(load)]
        told = _run(command, folder, load.max_s + spare_s)
        if not (folder / self.report).is_file():
            raise ClientError(f"{self.program} wrote no {self.report}:\n{told}")
        return self.figures(folder / self.report)


def _run(command: Sequence[str], folder: Path, timeout_s: float) -> str:
    """Run a program to its end, in a process group of which nothing is left; return the end of what it said."""
    log = folder / "output.log"
    name = Path(command[0]).name
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(folder), stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ClientError(f"{name} did not end in {timeout_s:g} s:\n{_end_of(log)}") from error
        finally:
            _kill_group(process)
    if code != 0:
        raise ClientError(f"{name} ended with status {code}:\n{_end_of(log)}")
    return _end_of(log)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + _DIES_S
    with suppress(ProcessLookupError):
        while time.monotonic() < give_up_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.05)


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", errors="replace")[-_TOLD:]


def _environment(folder: Path) -> dict[str, str]:
    """The environment of a client that keeps to its folder and asks no hub."""
    # aiperf 0.13 takes the folder of a tokenizer for a name on the hub where HF_HUB_OFFLINE is set; so the hub is
    # nowhere instead.
    given = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    own = {"HOME": str(folder), "HF_HOME": str(folder / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    return {**given, **own, "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1", "NO_PROXY": "127.0.0.1,localhost"}


def _aiperf_arguments(load: Load) -> list[str]:
    return [
        *("profile", "--model", load.model, "--url", load.url, "--endpoint-type", "chat", "--streaming"),
        *("--concurrency", str(load.concurrency), "--request-count", str(load.num_requests)),
        *("--benchmark-duration", f"{load.max_s:g}", "--benchmark-grace-period", "0"),
        *("--input-file", str(load.prompts), "--custom-dataset-type", "single_turn"),
        *("--extra-inputs", json.dumps(dict(load.body))),
        # The gateway's chat template and retrieved passages are the server's, so only the server counts right.
        *("--use-server-token-count", "--tokenizer", str(CHECKPOINT)),
        *("--no-server-metrics", "--no-gpu-telemetry", "--ui", "none", "--output-artifact-dir", "aiperf"),
    ]


def _aiperf_figures(report: Any) -> Figures:
    def at(metric: str, statistic: str = "avg") -> float | None:
        found = report.get(metric)
        return None if found is None else float(found[statistic])

    num_done = at("request_count") or 0.0
    return Figures(
        num_done=num_done,
        num_errors=float(sum(error["count"] for error in report["error_summary"])),
        requests_per_s=at("request_throughput"),
        first_p50=at("time_to_first_token", "p50"),
        first_p95=at("time_to_first_token", "p95"),
        between_tokens=at("inter_token_latency"),
        latency_p50=at("request_latency", "p50"),
        latency_p95=at("request_latency", "p95"),
        output_tokens_per_s=at("output_token_throughput"),
        output_tokens=at("output_sequence_length"),
    )


def _guidellm_arguments(load: Load) -> list[str]:
    extras = {"body": dict(load.body)}
    backend = {"kind": "openai_http", "target": load.url, "model": load.model, "extras": extras}
    return [
        *("run", "--backend", json.dumps(backend), "--profile", f"kind=concurrent,streams={load.concurrency}"),
        *("--constraint", f"kind=max_requests,count={load.num_requests}"),
        *("--constraint", f"kind=max_duration,seconds={load.max_s:g}"),
        *("--data", f"kind=json_file,path={load.prompts}", "--tokenizer", f"kind=huggingface_auto,model={CHECKPOINT}"),
        *("--output", "kind=json,path=guidellm.json", "--disable-console"),
    ]


def _guidellm_figures(report: Any) -> Figures:
    [benchmark] = report["benchmarks"]
    metrics = benchmark["metrics"]
    totals = metrics["request_totals"]
    has_any = totals["successful"] > 0

    def at(metric: str, statistic: str = "mean", scale: float = 1.0) -> float | None:
        if not has_any:
            return None
        found = metrics[metric]["successful"]
        return scale * float(found[statistic] if statistic in found else found["percentiles"][statistic])

    return Figures(
        num_done=float(totals["successful"]),
        num_errors=float(totals["errored"] + totals["incomplete"]),
        requests_per_s=at("requests_per_second"),
        first_p50=at("time_to_first_token_ms", "p50"),
        first_p95=at("time_to_first_token_ms", "p95"),
        between_tokens=at("inter_token_latency_ms"),
        latency_p50=at("request_latency", "p50", 1000.0),
        latency_p95=at("request_latency", "p95", 1000.0),
        output_tokens_per_s=at("output_tokens_per_second"),
        output_tokens=at("output_token_count"),
    )


CLIENTS: Mapping[str, Client] = {
    "aiperf": Client("aiperf", _aiperf_arguments, "aiperf/profile_export_aiperf.json", _aiperf_figures),
    "guidellm": Client("guidellm", _guidellm_arguments, "guidellm.json", _guidellm_figures),
}
