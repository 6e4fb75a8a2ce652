"""The JDK's HTTP client with its defaults: it offers HTTP/2, is answered in HTTP/1.1, and uses its connection again."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.gateway.conftest import MODEL, Stage

from .clients import FOLDER, skip_without
from .stages import ANSWER, QUESTION

REFUSAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the compiled program."""
    skip_without("javac")
    classes = tmp_path_factory.mktemp("classes")
    subprocess.run(["javac", "-Xlint:all", "-Werror", "-d", classes, FOLDER / "java" / "Ask.java"], check=True)
    return ["java", "-cp", str(classes), "Ask"]


def printed(ask: list[str], url: str, *bodies: str) -> Iterator[tuple[str, list[str]]]:
    """Each answer's status and protocol, and its lines."""
    done = subprocess.run([*ask, url, *bodies], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines: list[str] = []
    for line in done.stdout.splitlines():
        if line.endswith((" HTTP_1_1", " HTTP_2")):
            yield line, lines
            lines = []
        else:
            lines.append(line)
    assert lines == []


def test_it_asks_to_upgrade(ask: list[str]) -> None:
    """What the other tests rest on: else they would show nothing of upgrades."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection:
                heads.append(connection.recv(65536))
                connection.sendall(REFUSAL)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert list(printed(ask, f"http://127.0.0.1:{listening.getsockname()[1]}/", "-")) == [("200 HTTP_1_1", ["ok"])]
        thread.join(timeout=30)
    assert b"\r\nUpgrade: h2c\r\n" in heads[0]
    assert b"\r\nHTTP2-Settings: " in heads[0]


def test_gets_are_answered(ask: list[str], answering: Stage) -> None:
    for status, lines in printed(ask, f"{answering.url}/v1/models", "-", "-", "-"):
        assert (status, json.loads(lines[0])["data"][0]["id"]) == ("200 HTTP_1_1", MODEL)


@pytest.mark.parametrize("way", ["-Dchunks=false", "-Dchunks=true", "-Dexpect=true"])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}),
        ("/v1/responses", {"model": MODEL, "input": QUESTION}),
        ("/v1/research", {"question": QUESTION}),
    ],
)
def test_posts_are_answered_whole_streamed_large_and_refused(
    ask: list[str], answering: Stage, path: str, asked: dict[str, object], way: str
) -> None:
    whole, stream, bad = (json.dumps({**asked, **more}) for more in ({}, {"stream": True}, {"temperature": "hot"}))
    answers = list(
        printed([ask[0], way, *ask[1:]], answering.url + path, whole, stream, " " * 100_000 + whole, bad, whole)
    )
    assert [status for status, _ in answers] == [f"{code} HTTP_1_1" for code in (200, 200, 200, 400, 200)]
    texts = ["\n".join(lines) for _, lines in answers]
    assert [ANSWER in text for text in texts] == [True, True, True, False, True]
    assert "temperature" in texts[3]
    assert sum(line.startswith("data: ") for line in answers[1][1]) > 5
