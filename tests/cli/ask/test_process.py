"""``searchr1 ask`` as a process before the real gateway: pipes, terminals, Ctrl-C."""

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import searchr1_client as sdk
from searchr1.errors import EngineError
from searchr1_client.events import Run, RunStarted, parse_event
from tests.gateway.conftest import ADMIN_KEY, Stage, StageEngine
from tests.gateway.threaded import threaded_stage

pytestmark = pytest.mark.process

QUESTION = "Which currency is used in Mali?"
ANSWER = "West African CFA franc"
COMMAND = (sys.executable, "-m", "searchr1.cli", "ask")
TIMEOUT_S = 60


@pytest.fixture
def stage() -> Iterator[Stage]:
    with threaded_stage() as running:
        yield running


@pytest.fixture
def held() -> Iterator[Stage]:
    """A stage whose runs wait before their first turn's last word."""
    with threaded_stage(engine=StageEngine(hold=asyncio.Event())) as running:
        yield running


def environ(url: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "SEARCHR1_URL": url, "TERM": "xterm-256color", "COLUMNS": "100", **more}


def asked(url: str, *args: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    given: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(
        (*COMMAND, *args), capture_output=True, text=True, timeout=TIMEOUT_S, env=environ(url, **env), **given
    )


@contextlib.contextmanager
def asking(url: str, *args: str, **streams: int) -> Iterator[subprocess.Popen[str]]:
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **streams,
    }
    with subprocess.Popen((*COMMAND, *args), text=True, env=environ(url), **given) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < ends, f"in vain waited for {what}"
        time.sleep(0.02)


def has_read_all(process: subprocess.Popen[str], url: str) -> bool:
    """Tell whether ``process`` has taken all that the server sent it, and waits for more."""
    port = int(url.rpartition(":")[2])
    rows = [line.split() for line in Path(f"/proc/{process.pid}/net/tcp").read_text("ascii").splitlines()[1:]]
    waiting = [row[4].partition(":")[2] for row in rows if int(row[2].partition(":")[2], 16) == port]
    state = Path(f"/proc/{process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    return not any(int(size, 16) for size in waiting) and state == "S"


def stored(stage: Stage) -> list[Run]:
    """All runs that the gateway keeps, newest first."""
    with sdk.SearchR1(base_url=stage.url, api_key=ADMIN_KEY) as client:
        return [client.research.retrieve(run.id) for run in client.research.list().data]


def test_the_answer_alone_is_on_stdout(stage: Stage) -> None:
    done = asked(stage.url, QUESTION)
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")
    [run] = stored(stage)
    assert f"asking test-model · {run.id}\n" in done.stderr
    for step in ("search: currency of Mali\n", "  [1] Mali\n", "source [1] Mali\n", "completed · 2 turns · 1 search"):
        assert step in done.stderr
    assert "I need Mali" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_pipes_without_control_codes_even_where_color_is_forced(stage: Stage) -> None:
    done = asked(stage.url, "--show-thinking", stdin=f"{QUESTION}\n", FORCE_COLOR="1")
    assert done.stdout == f"{ANSWER}\n"
    assert "I need Mali" in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
    codes = set(re.findall(r"\x1b(.[0-9;?]*[A-Za-z]?)", done.stderr))
    assert codes
    assert all(re.fullmatch(r"\[[0-9;]*m", code) for code in codes)


def test_quiet_json_and_ndjson(stage: Stage) -> None:
    quiet = asked(stage.url, "--quiet", "-", stdin=QUESTION)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, f"{ANSWER}\n", "")
    whole = asked(stage.url, "--json", QUESTION)
    assert (whole.returncode, whole.stderr) == (0, "")
    told = Run.model_validate_json(whole.stdout)
    kept = stored(stage)[0]
    assert abs(told.created - kept.created) <= 1  # the answer's date against the run's, in whole seconds
    assert told == kept.model_copy(update={"trajectory": None, "created": told.created})
    lines = asked(stage.url, "--ndjson", QUESTION)
    assert (lines.returncode, lines.stderr) == (0, "")
    events = [parse_event(line) for line in lines.stdout.splitlines()]
    assert [event.seq for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("run.started", "run.completed")


def test_stored_runs_are_followed_up_shown_again_and_replayed(stage: Stage) -> None:
    asked(stage.url, QUESTION)
    [first] = stored(stage)
    again = asked(stage.url, "--resume", first.id, "--ndjson")
    assert (again.returncode, again.stderr) == (0, "")
    log = httpx.get(f"{stage.url}/v1/research/{first.id}/events", timeout=30).text
    logged = [json.loads(line[6:]) for line in log.splitlines() if line.startswith("data: ")]
    assert [json.loads(line) for line in again.stdout.splitlines()] == logged
    whole = asked(stage.url, "--resume", first.id, "--json")
    assert Run.model_validate_json(whole.stdout) == first.model_copy(update={"trajectory": None})
    assert len(stored(stage)) == 1
    searches = len(stage.retriever.queries)
    assert asked(stage.url, "--replay", first.id, "--quiet").stdout == f"{ANSWER}\n"
    assert len(stage.retriever.queries) == searches
    assert asked(stage.url, "--after", first.id, "And Chad?", "-q").stdout == f"{ANSWER}\n"
    followed = stored(stage)[0]
    assert followed.trajectory is not None
    assert QUESTION in followed.trajectory.question
    missing = asked(stage.url, "--resume", "run_0")
    assert missing.returncode == 4
    assert missing.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "args",
    [(), ("",), (QUESTION, "--json", "--quiet"), (QUESTION, "--resume", "run_1"), (QUESTION, "--url", "nowhere")],
)
def test_usage_errors_exit_2(args: tuple[str, ...]) -> None:
    done = asked("http://127.0.0.1:9", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes_of_a_server_that_refuses_fails_or_is_gone(stage: Stage) -> None:
    refused = asked(stage.url, QUESTION, "--max-turns", "999")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "max_turns" in refused.stderr
    stage.engine.error = EngineError("the engine died")
    failed = asked(stage.url, QUESTION)
    assert (failed.returncode, failed.stdout) == (5, "")
    assert "error: The model's engine failed at this run" in failed.stderr
    stage.engine.error = None
    stage.engine.completions = ["<think> hm </think>"]
    assert asked(stage.url, QUESTION, "--max-turns", "1").returncode == 1
    gone = asked("http://127.0.0.1:9", QUESTION)
    assert (gone.returncode, gone.stdout) == (3, "")
    assert "No server answers" in gone.stderr


def test_ctrl_c_cancels_on_the_server_and_exits_130(held: Stage) -> None:
    with asking(held.url, QUESTION) as process:
        until(lambda: held.engine.num_open == 1, "the engine")
        assert process.stderr is not None
        assert process.stderr.readline().startswith("asking test-model")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout) == (130, "")
    assert held.engine.num_open == 0
    [run] = stored(held)
    assert run.status == "cancelled"
    assert stderr.splitlines()[-1].startswith("cancelled · ")
    assert "Traceback" not in stderr


@pytest.mark.parametrize("format", ["--json", "--ndjson"])
def test_ctrl_c_leaves_whole_json(held: Stage, format: str) -> None:
    with asking(held.url, format, QUESTION) as process:
        until(lambda: any(run.steps for run in stored(held)), "the first words of the run")
        until(lambda: has_read_all(process, held.url), "the client to have read them")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stderr) == (130, "")
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert lines[-1]["status"] == "cancelled"
    if format == "--ndjson":
        assert [line["seq"] for line in lines] == list(range(len(lines)))


class Hanging(ThreadingHTTPServer):
    """Begins every run and then says nothing more; a cancel is heard and never answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HangingHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.heard = threading.Event()
        self.released = threading.Event()

    @contextlib.contextmanager
    def serving(self) -> Iterator["Hanging"]:
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self.shutdown()
            thread.join()
            self.server_close()


class _HangingHandler(BaseHTTPRequestHandler):
    server: Hanging

    def do_POST(self) -> None:
        if self.path.endswith("/cancel"):
            self.server.heard.set()
        else:
            started = RunStarted(seq=0, run_id="run_1", turn=0, t_ms=0.0, model="m", question="q")
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(f"data: {started.model_dump_json()}\n\n".encode())
            self.wfile.flush()
        self.server.released.wait(TIMEOUT_S)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_second_ctrl_c_does_not_wait_for_the_server() -> None:
    with Hanging().serving() as server, asking(server.url, QUESTION) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "asking m · run_1\n"
        process.send_signal(signal.SIGINT)
        assert server.heard.wait(TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout, stderr) == (130, "", "")


def test_ctrl_c_before_a_server_that_hangs_gives_up() -> None:
    with Hanging().serving() as server, asking(server.url, QUESTION) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "asking m · run_1\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert stderr.startswith("error: the run may go on for a while")


def test_a_reader_that_leaves_cancels_the_run(held: Stage) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with asking(held.url, "--ndjson", QUESTION, stdout=write_end) as process:
        os.close(write_end)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 141
    assert stderr == "error: standard output can't be written: Broken pipe\n"
    [run] = stored(held)
    assert run.status == "cancelled"
    assert held.engine.num_open == 0


def test_readers_of_the_steps_may_leave(stage: Stage) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with asking(stage.url, QUESTION, stderr=write_end) as process:
        os.close(write_end)
        stdout, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout) == (0, f"{ANSWER}\n")


class Terminal:
    """``searchr1 ask`` with a terminal of its own, as its session's leader."""

    def __init__(self, url: str, *args: str, **env: str) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        path = os.ttyname(slave)
        # A session's leader that opens a terminal makes it the one whose Ctrl-C it gets.
        command = ("sh", "-c", 'exec "$@" <"$0" >"$0" 2>"$0"', path, *COMMAND, *args)
        self._process = subprocess.Popen(command, env=environ(url, **env), start_new_session=True)
        self._slave = slave

    def __enter__(self) -> "Terminal":
        try:
            self.until("asking test-model")
        except BaseException:
            self.__exit__()
            raise
        os.close(self._slave)  # from here on only the process has it open, whose end thus shows
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def until(self, text: str) -> None:
        while text not in self.seen:
            assert self._read(), f"no {text!r} in {self.seen!r}"

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def exit_code(self) -> int:
        """Read to the end."""
        while self._read():
            pass
        return self._process.wait(TIMEOUT_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], TIMEOUT_S)
        assert ready, f"nothing more after {self.seen!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux says that the other end is closed
            return False
        self.seen += data.decode()
        return bool(data)


def test_a_terminal_shows_a_status_and_clears_it(stage: Stage) -> None:
    with Terminal(stage.url, QUESTION) as terminal:
        assert terminal.exit_code() == 0
    seen = terminal.seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") > 0
    assert "thinking" in seen
    assert "I need Mali" not in seen
    assert f"\x1b[2K{ANSWER}\r\n" in seen
    assert "\x1b[1;36msearch: currency of Mali\x1b[0m\r\n" in seen


def test_no_color_on_a_terminal_keeps_the_status_and_drops_color(stage: Stage) -> None:
    with Terminal(stage.url, QUESTION, NO_COLOR="1") as terminal:
        assert terminal.exit_code() == 0
    assert "\x1b[?25h" in terminal.seen
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.seen)


def test_a_terminal_that_cannot_move_gets_plain_lines(stage: Stage) -> None:
    with Terminal(stage.url, QUESTION, TERM="dumb") as terminal:
        assert terminal.exit_code() == 0
    assert "\x1b" not in terminal.seen
    assert f"\n{ANSWER}\r\n" in terminal.seen


def test_ctrl_c_at_a_terminal(held: Stage) -> None:
    with Terminal(held.url, QUESTION) as terminal:
        terminal.until("characters")
        terminal.press("\x03")
        terminal.until("cancelled · ")
        assert terminal.exit_code() == 130
    assert held.engine.num_open == 0
    assert terminal.seen.count("\x1b[?25l") == terminal.seen.count("\x1b[?25h") > 0
