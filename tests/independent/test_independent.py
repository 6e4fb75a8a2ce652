"""Reports of load clients, read and tabled: those that aiperf 0.13 and guidellm 0.8 wrote, cut to their figures."""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.independent.__main__ import Side, measure, median_of, row_of, sides_of
from loadtests.independent.clients import CLIENTS, Client, ClientError, Figures, Load
from loadtests.processes import ROOT, Server
from searchr1.demo.bundle import EXAMPLES
from searchr1.loop.profiles.search_r1 import SEARCH_R1

pytestmark = pytest.mark.process

REPORTS = Path(__file__).parent / "reports"
PROGRAMS = ROOT / ".venv-programs"
NONE = Figures(0.0, 8.0, None, None, None, None, None, None, None, None)
FAKE = f"""#!{sys.executable}
import json, shutil, sys
from pathlib import Path
arguments = " ".join(sys.argv)
rate = 2.0 if "straight" in arguments else 1.0
name = Path(sys.argv[0]).name
if name == "aiperf":
    Path("aiperf").mkdir()
    report = json.loads(Path("{REPORTS}/aiperf.json").read_text())
    report["request_throughput"]["avg"] = rate
    Path("aiperf/profile_export_aiperf.json").write_text(json.dumps(report))
else:
    report = json.loads(Path("{REPORTS}/guidellm.json").read_text())
    report["benchmarks"][0]["metrics"]["requests_per_second"]["successful"]["mean"] = 10 * rate
    Path("guidellm.json").write_text(json.dumps(report))
"""


def install(folder: Path, name: str, source: str) -> None:
    """Put a program of this Python into ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source, "utf-8")
    (folder / name).chmod(0o755)


def load(folder: Path, max_s: float = 30.0) -> Load:
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"text": "Who?"}\n', "utf-8")
    return Load("http://127.0.0.1:9", "paced", {"temperature": 0}, prompts, 1, 1, max_s)


@pytest.mark.parametrize(
    ("name", "first_p50", "latency_p95", "output_tokens_per_s"),
    [("aiperf", 40.250314, 956.477230, 183.160068), ("guidellm", 15.348911, 909.549, 195.336456)],
)
def test_figures_are_those_of_the_clients_report(
    name: str, first_p50: float, latency_p95: float, output_tokens_per_s: float
) -> None:
    figures = CLIENTS[name].figures(REPORTS / f"{name}.json")
    assert (figures.num_done, figures.num_errors, figures.output_tokens) == (8, 0, 45)
    assert figures.first_p50 == pytest.approx(first_p50)
    assert figures.latency_p95 == pytest.approx(latency_p95)
    assert figures.output_tokens_per_s == pytest.approx(output_tokens_per_s)
    assert figures.between_tokens == pytest.approx(20.0, abs=0.1), "the engine sent 50 tokens a second"
    ordered = [figures.first_p50, figures.first_p95, figures.latency_p50, figures.latency_p95]
    assert ordered == sorted(value for value in ordered if value is not None)
    assert figures.requests_per_s == pytest.approx(4.2, abs=0.2), "four at once, of 0.9 s each"


@pytest.mark.parametrize("name", CLIENTS)
def test_requests_that_failed_are_counted(name: str) -> None:
    figures = CLIENTS[name].figures(REPORTS / f"{name}-two-of-eight-failed.json")
    assert (figures.num_done, figures.num_errors) == (6, 2)
    assert figures.first_p50 is not None


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": [], "request_count": 3}', '{"error_summary": 3}'])
def test_a_report_of_another_form_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text, "utf-8")
    with pytest.raises(ClientError, match=f"{name}'s report .*can't be read"):
        CLIENTS[name].figures(tmp_path / "report.json")


def test_medians_are_by_figure_and_requests_are_summed() -> None:
    one = CLIENTS["aiperf"].figures(REPORTS / "aiperf.json")
    rounds = [
        replace(one, requests_per_s=rate, first_p50=first) for rate, first in [(1.0, 9.0), (5.0, 2.0), (3.0, 4.0)]
    ]
    median = median_of(rounds)
    assert (median.requests_per_s, median.first_p50, median.num_done, median.num_errors) == (3.0, 4.0, 24, 0)
    assert median_of([*rounds, NONE]).first_p50 is None
    assert median_of([*rounds, NONE]).num_errors == 8


def test_what_a_client_did_not_say_is_a_dash() -> None:
    assert row_of("aiperf", "engine", NONE) == "| aiperf | engine | 0 | 8 |" + " – |" * 8


def test_all_are_asked_for_the_same_completion() -> None:
    servers = {name: Server(f"http://{name}", 1) for name in ("gateway", "LiteLLM")}
    engine, gateway, proxy = sides_of(Server("http://engine", 1), servers, 50)
    assert gateway.prompts == EXAMPLES
    assert engine.prompts == proxy.prompts == tuple(map(SEARCH_R1.prompt, EXAMPLES))
    assert (engine.body, engine.url) == (proxy.body, "http://engine")
    assert engine.body["max_tokens"] == gateway.body["max_tokens"] == 50
    assert gateway.body["max_searches"] == 0


def test_clients_ask_in_turns_and_one_table_has_their_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in CLIENTS:
        install(tmp_path / "bin", name, FAKE)
    options = argparse.Namespace(
        rounds=2, requests=3, concurrency=2, max_s=30.0, spare_s=60.0, programs=tmp_path / "bin"
    )
    sides = [Side(name, f"http://127.0.0.1:9/{name}", {}, ("Who?", "Where?")) for name in ("straight", "gateway")]
    measure(options, list(CLIENTS.values()), sides, tmp_path)
    told = capsys.readouterr()
    asked = [tuple(line.split(" | ")[:2]) for line in told.err.splitlines()]
    once = [("| aiperf", "straight"), ("| aiperf", "gateway"), ("| guidellm", "straight"), ("| guidellm", "gateway")]
    assert asked == [*once, once[1], once[0], once[3], once[2]]
    head, rule, *rows = told.out.splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [(row[0], row[1], row[2], row[3], row[4]) for row in cells] == [
        ("aiperf", "straight", "16", "0", "2.00"),
        ("aiperf", "gateway", "16", "0", "1.00"),
        ("guidellm", "straight", "16", "0", "20.00"),
        ("guidellm", "gateway", "16", "0", "10.00"),
    ]
    lines = (tmp_path / "0-aiperf-gateway" / "prompts.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["Who?", "Where?", "Who?"]


@pytest.fixture
def client() -> Client:
    return CLIENTS["guidellm"]


def test_a_client_that_fails_is_quoted(client: Client, tmp_path: Path) -> None:
    install(tmp_path / "bin", "guidellm", f"#!{sys.executable}\nraise SystemExit('no such option')\n")
    with pytest.raises(ClientError, match=r"guidellm ended with status 1:\nno such option"):
        client.measure(tmp_path / "bin", load(tmp_path), tmp_path, 60.0)


def test_a_client_without_a_report_is_quoted(client: Client, tmp_path: Path) -> None:
    install(tmp_path / "bin", "guidellm", f"#!{sys.executable}\nprint('nothing done')\n")
    with pytest.raises(ClientError, match=r"guidellm wrote no guidellm.json:\nnothing done"):
        client.measure(tmp_path / "bin", load(tmp_path), tmp_path, 60.0)


def test_nothing_is_left_of_a_client_that_does_not_end(client: Client, tmp_path: Path) -> None:
    hangs = "import subprocess, sys, time\nchild = subprocess.Popen(['sleep', '1000'])\n"
    hangs += "open('child', 'w').write(str(child.pid))\nopen('ready', 'w').close()\ntime.sleep(1000)\n"
    install(tmp_path / "bin", "guidellm", f"#!{sys.executable}\n{hangs}")
    with pytest.raises(ClientError, match="guidellm did not end in 10 s"):
        client.measure(tmp_path / "bin", load(tmp_path, max_s=5.0), tmp_path, 5.0)
    assert (tmp_path / "ready").exists(), "it had started its child"
    child = int((tmp_path / "child").read_text("utf-8"))
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text("ascii").rsplit(")", 1)[1].split()[0] == "Z"


def test_clients_keep_to_their_folder_and_ask_no_hub(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shows = "import json, os\njson.dump(dict(os.environ), open('seen.json', 'w'))\n"
    shows += f"open('guidellm.json', 'w').write(open({str(REPORTS / 'guidellm.json')!r}).read())\n"
    install(tmp_path / "bin", "guidellm", f"#!{sys.executable}\n{shows}")
    client.measure(tmp_path / "bin", load(tmp_path), tmp_path, 60.0)
    seen = json.loads((tmp_path / "seen.json").read_text("utf-8"))
    assert seen["HOME"] == str(tmp_path)
    assert seen["HF_ENDPOINT"] == "http://127.0.0.1:9"
    assert "HF_HUB_OFFLINE" not in seen


def test_a_missing_program_is_told_before_anything_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.independent", "--programs", str(tmp_path), "--clients", "aiperf"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"independent: {tmp_path}/aiperf is not there: scripts/setup-programs installs aiperf"
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not (PROGRAMS / ".setup").exists(), reason="the programs are not there: scripts/setup-programs")
def test_the_clients_themselves_find_no_error() -> None:
    short = ["--rounds", "1", "--requests", "4", "--concurrency", "2", "--num-tokens", "8"]
    command = [sys.executable, "-m", "loadtests.independent", *short]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr
    cells = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[:4] for row in cells] == [
        [client, server, "4", "0"] for client in sorted(CLIENTS) for server in ("engine", "gateway")
    ]
    assert len({row[-1] for row in cells}) == 1, "both servers sent as many tokens a request"
