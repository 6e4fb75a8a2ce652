"""How a command gets the API key: from a file or a variable without showing it, or from an option."""

from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response

from searchr1.cli.main import main
from tests.evaluation.gateway.fake_gateway import FakeGateway, run_json

KEY = "a-key-of-a-client"
COMMANDS = {
    "ask": ["ask", "--quiet", "q"],
    "eval": ["eval", "--dataset", "q.jsonl"],
    "export": ["export", "--output", "out.jsonl"],
}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "q", "golden_answers": ["x"]}\n')
    monkeypatch.chdir(tmp_path)
    for name in ("SEARCHR1_API_KEY", "SEARCHR1_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def answered(_: dict[str, object]) -> Response:
    return JSONResponse(run_json("q", "x"))


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["searchr1", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("by", ["file", "variable that names a file", "variable", "option"])
def test_the_key_is_sent(by: str, command: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_folder / "key").write_text(f"{KEY}\n")
    options: list[str] = []
    if by == "file":  # it wins over the others
        options = ["--api-key-file", "key", "--api-key", "another-key"]
        monkeypatch.setenv("SEARCHR1_API_KEY", "another-key")
    elif by == "variable":
        monkeypatch.setenv("SEARCHR1_API_KEY", KEY)
    elif by == "option":
        options = ["--api-key", KEY]
    else:
        monkeypatch.setenv("SEARCHR1_API_KEY_FILE", "key")
    gateway = FakeGateway(answered)
    gateway.runs = lambda: JSONResponse({"object": "list", "data": [], "has_more": False})
    with gateway.serve():
        run(*COMMANDS[command], "--url", gateway.url, *options, monkeypatch=monkeypatch)
    assert {headers.get("authorization") for headers in gateway.headers} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "no key"), (b" \n", "no key"), (b"hunter2 hunter2", "spaces"), (b"\xff", "text")],
)
def test_a_file_without_a_key_is_one_line_that_quotes_nothing(
    content: bytes | None,
    says: str,
    command: str,
    in_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (in_folder / "key").write_bytes(content)
    assert run(*COMMANDS[command], "--api-key-file", "key", monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    [line] = shown.err.splitlines()
    assert line.startswith("searchr1: ")
    assert says in line
    assert "key" in line
    assert "hunter2" not in line + shown.out
