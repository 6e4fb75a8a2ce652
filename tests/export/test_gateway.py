"""Exports of a running gateway, on a real port."""

import asyncio
import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner

from searchr1.cli import main as cli
from searchr1.errors import ConfigurationError, DatasetError, GatewayError
from searchr1.export import gateway
from searchr1.export.files import read_runs
from searchr1.export.run import ExportConfig, ExportReport, export
from searchr1.export.selection import Selection
from searchr1_client.events import Run, Trajectory
from tests.evaluation.gateway.fake_gateway import unused_url
from tests.export.records import run_json
from tests.gateway.conftest import Stage, StageEngine
from tests.gateway.threaded import threaded_stage

KEY = "a-key"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Stage, list[Run]]]:
    """A gateway with four runs, the newest first; the oldest has no logprobs."""
    with threaded_stage(api_keys=KEY, engine=StageEngine(completions=["<answer> ja </answer>"])) as stage:
        with httpx.Client(base_url=stage.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as http:
            ids = [_ask(http, f"Question {i}", logprobs=i > 0) for i in range(4)]
            runs = [Run.model_validate_json(http.get(f"/v1/research/{i}").content) for i in reversed(ids)]
        yield stage, runs


def _ask(http: httpx.Client, question: str, **options: Any) -> str:
    response = http.post("/v1/research", json={"question": question, **options})
    assert response.status_code == 200, response.text
    return response.headers["x-run-id"]


def exported(url: str, output: Path, **more: Any) -> ExportReport:
    return export(ExportConfig(output=output, url=url, **{"api_key": KEY, **more}), progress=False)


def test_all_runs_come_newest_first_page_by_page(
    served: tuple[Stage, list[Run]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "PAGE", 3)
    monkeypatch.setattr(gateway, "CONCURRENCY", 2)
    stage, runs = served
    exported(f"{stage.url}/v1/", tmp_path / "out.jsonl")
    assert list(read_runs(tmp_path / "out.jsonl")) == runs
    assert exported(stage.url, tmp_path / "two.jsonl", selection=Selection(limit=2)).num_runs == 2
    assert list(read_runs(tmp_path / "two.jsonl")) == runs[:2]


def test_parquet_has_the_ids_and_masks_that_were_served(served: tuple[Stage, list[Run]], tmp_path: Path) -> None:
    stage, runs = served
    exported(stage.url, tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [Trajectory.model_validate(row, strict=True) for row in rows] == [run.trajectory for run in runs]
    for row, run in zip(rows, runs, strict=True):
        assert run.trajectory is not None
        assert row["token_ids"] == [i for segment in run.trajectory.segments for i in segment.token_ids]
        assert sum(row["loss_mask"]) == len("<answer> ja </answer>")
        assert row["prompt"][0]["content"] in run.trajectory.segments[0].text
    assert [row["logprobs"] is None for row in rows] == [False, False, False, True]


def test_single_runs_are_taken_by_id(served: tuple[Stage, list[Run]], tmp_path: Path) -> None:
    stage, runs = served
    ids = (runs[2].id, runs[0].id)
    exported(stage.url, tmp_path / "out.jsonl", selection=Selection(ids=ids))
    assert [run.id for run in read_runs(tmp_path / "out.jsonl")] == list(ids)
    missing = Selection(ids=(runs[0].id, "run_none"))
    with pytest.raises(GatewayError, match="no stored run 'run_none'"):
        exported(stage.url, tmp_path / "none.jsonl", selection=missing)
    with pytest.raises(ConfigurationError, match="is not a run's id"):
        exported(stage.url, tmp_path / "none.jsonl", selection=Selection(ids=("../models",)))
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_append_fetches_only_what_is_missing(served: tuple[Stage, list[Run]], tmp_path: Path) -> None:
    stage, runs = served
    output = tmp_path / "out.jsonl"
    exported(stage.url, output, selection=Selection(ids=(runs[3].id,)))
    report = exported(stage.url, output, append=True)
    assert (report.num_runs, report.num_kept) == (4, 1)
    assert [run.id for run in read_runs(output)] == [run.id for run in [runs[3], *runs[:3]]]


def test_another_key_is_told_so(served: tuple[Stage, list[Run]], tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="the gateway refuses: The API key is not one"):
        exported(served[0].url, tmp_path / "out.jsonl", api_key="wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_keys_says_how_to_list_its_runs(tmp_path: Path) -> None:
    refusal = r"no API keys.*Name a run by its id.*SEARCHR1_API_KEYS"
    with threaded_stage() as stage, pytest.raises(GatewayError, match=refusal):
        exported(stage.url, tmp_path / "out.jsonl", api_key=None)


def test_a_run_that_goes_on_is_skipped(tmp_path: Path) -> None:
    engine = StageEngine(hold=asyncio.Event())
    own = {"Authorization": f"Bearer {KEY}"}
    with (
        threaded_stage(engine=engine, api_keys=KEY) as stage,
        httpx.Client(base_url=stage.url, timeout=30, headers=own) as http,
    ):
        with http.stream("POST", "/v1/research", json={"question": "Q", "stream": True}) as response:
            run_id = response.headers["x-run-id"]
            _until_listed(http, run_id)
            with pytest.raises(DatasetError, match="skipped: 1 not ended"):
                exported(stage.url, tmp_path / "out.jsonl")
            with pytest.raises(DatasetError, match="skipped: 1 not ended"):
                exported(stage.url, tmp_path / "out.jsonl", selection=Selection(ids=(run_id,)))
            http.post(f"/v1/research/{run_id}/cancel").raise_for_status()
        _until_listed(http, run_id, status="cancelled")
        exported(stage.url, tmp_path / "out.jsonl")
    assert [run.status for run in read_runs(tmp_path / "out.jsonl")] == ["cancelled"]


def _until_listed(http: httpx.Client, run_id: str, *, status: str = "running") -> None:
    while {run["id"]: run["status"] for run in http.get("/v1/research").json()["data"]}.get(run_id) != status:
        time.sleep(0.02)


def test_no_gateway_is_one_line(tmp_path: Path) -> None:
    with unused_url() as url, pytest.raises(GatewayError, match="no gateway answers"):
        exported(url, tmp_path / "out.jsonl")
    with pytest.raises(ConfigurationError, match="not a server's address"):
        exported("127.0.0.1:8000", tmp_path / "out.jsonl")
    with pytest.raises(ConfigurationError, match="characters that can't be sent"):
        exported("http://127.0.0.1:9", tmp_path / "out.jsonl", api_key="schlüssel")


def answering(monkeypatch: pytest.MonkeyPatch, handler: Callable[[httpx.Request], httpx.Response]) -> None:
    """Every client of the export speaks to ``handler``, without waits between its tries."""
    client = functools.partial(httpx.Client, transport=httpx.MockTransport(handler))
    monkeypatch.setattr(httpx, "Client", client)
    monkeypatch.setattr(gateway, "FIRST_WAIT_S", 0.0)


def listing(*ids: str) -> dict[str, Any]:
    return {"data": [{"id": i, "created": 1, "status": "completed", "question": "Q"} for i in ids]}


def test_a_run_that_expires_after_it_was_listed_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/research":
            return httpx.Response(200, json=listing("run_1", "run_2"))
        there = request.url.path.endswith("run_1")
        return httpx.Response(200, json=run_json()) if there else httpx.Response(404, json={})

    answering(monkeypatch, handler)
    report = exported("http://gateway", tmp_path / "out.jsonl")
    assert str(report).endswith(": 1 run; skipped: 1 expired meanwhile")


def test_what_passes_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    troubles: list[httpx.Response | httpx.TransportError] = [
        httpx.Response(503, headers={"retry-after": "0"}),
        httpx.ReadError("reset"),
        httpx.Response(200, json=listing("run_1")),
        httpx.ConnectError("restarting"),
        httpx.Response(429),
        httpx.Response(200, json=run_json()),
    ]

    def handler(_: httpx.Request) -> httpx.Response:
        answer = troubles.pop(0)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    answering(monkeypatch, handler)
    assert exported("http://gateway", tmp_path / "out.jsonl").num_runs == 1
    assert troubles == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(503, json={"error": {"message": "Stored runs can't be reached"}}), "Stored runs can't be"),
        (httpx.Response(502, text="<html>"), "refuses: status 502"),
        (httpx.Response(404, json={"detail": "Not Found"}), "refuses: status 404"),
        (httpx.Response(200, json={"hello": 1}), "not as a Search-R1 gateway"),
        (httpx.ReadError("reset"), "stopped answering: ReadError reset"),
    ],
)
def test_what_does_not_pass_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | httpx.TransportError, says: str
) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    answering(monkeypatch, handler)
    with pytest.raises(GatewayError, match=says):
        exported("http://gateway", tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_the_command(served: tuple[Stage, list[Run]], tmp_path: Path) -> None:
    stage, runs = served
    output = tmp_path / "out.parquet"
    arguments = ["export", "--url", stage.url, "--api-key", KEY, "--output", str(output), "--status", "completed"]
    done = CliRunner().invoke(cli.app, [*arguments, "--limit", "3", "--data-source", "nq"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{output}: 3 runs\n"
    rows = pq.read_table(output).to_pylist()
    assert [(row["id"], row["data_source"]) for row in rows] == [(run.id, "nq") for run in runs[:3]]
    schema = CliRunner().invoke(cli.app, ["export", "--schema"])
    assert json.loads(schema.stdout)["properties"]["trajectory"]
    assert CliRunner().invoke(cli.app, ["export"]).exit_code == 1


def test_the_commands_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["searchr1", "export", "--output", str(tmp_path / "x.csv")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(r"^searchr1: --output .*x\.csv must end in", line)
