"""Whole evaluations against a gateway on a real port."""

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from starlette.responses import JSONResponse, Response

from searchr1.errors import ConfigurationError, DatasetError, GatewayError
from searchr1.evaluation.gateway import asker
from searchr1.evaluation.gateway.asker import PATIENCE, may_pass
from searchr1.evaluation.gateway.evaluate import evaluate
from searchr1.evaluation.report import Report, print_report
from searchr1_client import APIConnectionError, APIStatusError, APITimeoutError
from tests.data.files import write_parquet
from tests.evaluation.gateway.fake_gateway import FakeGateway, Handler, refusal, run_json, unused_url

QUESTIONS = [
    {"id": "q1", "question": "Capital of Mali?", "golden_answers": ["Bamako"], "hops": 1, "kind": "capital"},
    {"id": "q2", "question": "Currency of Mali?", "golden_answers": ["CFA franc"], "hops": 1, "kind": "currency"},
    {"id": "q3", "question": "Currency where Timbuktu is?", "golden_answers": ["CFA franc"], "hops": 2},
    {"id": "q4", "question": "Language where Bamako is?", "golden_answers": ["French"], "hops": 2},
]
ANSWERS = {
    "Capital of Mali?": "the Bamako.",
    "Currency of Mali?": "West African CFA franc",
    "Currency where Timbuktu is?": None,
    "Language where Bamako is?": "French",
}

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(question)}\n" for question in QUESTIONS), encoding="utf-8")
    return str(path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "eval.jsonl"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def right_or_wrong(body: dict[str, Any]) -> Response:
    return JSONResponse(run_json(body["question"], ANSWERS[body["question"]]))


def run(handler: Handler, dataset: str, **options: Any) -> tuple[Report, FakeGateway]:
    with FakeGateway(handler).serve() as gateway:
        return evaluate(dataset, url=gateway.url, progress=False, **options), gateway


def test_every_question_is_asked_and_scored(dataset: str) -> None:
    report, gateway = run(right_or_wrong, dataset)
    summary = report.searching
    assert sorted(body["question"] for body in gateway.bodies) == sorted(ANSWERS)
    assert all(body == {"question": body["question"], "stream": False, "temperature": 0.0} for body in gateway.bodies)
    assert (summary.overall.num_questions, summary.num_asked) == (4, 4)
    assert summary.overall.exact_match == 0.5
    assert summary.overall.sub_exact_match == 0.75
    assert summary.overall.no_answer == 0.25
    assert summary.overall.mean_searches == 1.0
    assert summary.statuses == {"completed": 3, "exhausted": 1}
    assert summary.by_hops["1 hop"].exact_match == 0.5
    assert summary.by_hops["2 hops"].no_answer == 0.5
    assert set(summary.by_kind) == {"capital", "currency", "no kind"}
    assert (summary.mean_turns, summary.mean_completion_tokens, summary.models) == (2.0, 40.0, ("demo",))
    assert summary.sampling == "greedy (temperature 0)"
    assert report.closed_book is None


def test_options_the_key_and_the_limit_reach_the_gateway(dataset: str) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "seed": 7, "max_turns": 2, "top_k": 5, "model": "demo"}
    report, gateway = run(right_or_wrong, dataset, limit=1, api_key="k", **options)
    assert gateway.bodies == [{"question": "Capital of Mali?", "stream": False, **options}]
    assert gateway.headers[0]["authorization"] == "Bearer k"
    assert report.searching.sampling == "sampled (temperature 1.0, top_p 0.9, seed 7)"


def test_concurrency_is_used_and_bounded(dataset: str) -> None:
    running = 0
    most = 0
    two_at_once = asyncio.Event()

    async def handler(body: dict[str, Any]) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            two_at_once.set()
        await two_at_once.wait()  # never returns if requests come one by one
        running -= 1
        return await right_or_wrong(body)

    run(handler, dataset, concurrency=2)
    assert most == 2


def test_closed_book_asks_the_same_questions_with_search_off(dataset: str, out: Path) -> None:
    async def handler(body: dict[str, Any]) -> Response:
        answer = None if body.get("max_searches") == 0 else ANSWERS[body["question"]]
        return JSONResponse(run_json(body["question"], answer))

    report, gateway = run(handler, dataset, closed_book=True, out=out)
    assert len(gateway.bodies) == 8
    assert report.closed_book is not None
    assert report.closed_book.options == {"max_searches": 0, "temperature": 0.0}
    assert (report.searching.overall.exact_match, report.closed_book.overall.exact_match) == (0.5, 0.0)
    assert {line["options"].get("max_searches") for line in lines_of(out)} == {None}
    assert {line["options"]["max_searches"] for line in lines_of(out.with_name("eval.closed-book.jsonl"))} == {0}
    written = json.loads(out.with_name("eval.summary.json").read_text(encoding="utf-8"))
    assert written["searching"]["overall"]["exact_match"] == 0.5
    assert written["closed_book"]["sampling"] == "greedy (temperature 0)"


def test_sets_are_scored_one_by_one_and_on_average(tmp_path: Path, out: Path) -> None:
    path = write_parquet(
        tmp_path / "test.parquet",
        [
            {key: question[key] for key in ("id", "question", "golden_answers")} | {"data_source": name}
            for question, name in zip(QUESTIONS, ("nq", "bamboogle", "bamboogle", "bamboogle"), strict=True)
        ],
    )
    report, _ = run(right_or_wrong, "bamboogle,nq", data=str(path), closed_book=True, out=out)
    summary = report.searching
    assert {name: group.exact_match for name, group in summary.by_set.items()} == {"nq": 1.0, "bamboogle": 1 / 3}
    assert list(summary.by_set) == ["nq", "bamboogle"], "in the paper's order"
    assert summary.overall.exact_match == 0.5
    average = summary.set_average
    assert average is not None
    assert (average.num_sets, average.exact_match, average.sub_exact_match) == pytest.approx((2, 2 / 3, 5 / 6))
    assert {line["data_source"] for line in lines_of(out)} == {"nq", "bamboogle"}
    saved = json.loads(out.with_suffix(".summary.json").read_text(encoding="utf-8"))
    assert saved["searching"]["set_average"]["num_sets"] == 2

    printed = io.StringIO()
    print_report(report, console=Console(file=printed, width=100))
    text = printed.getvalue()
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert rows["Bamboogle"][1:4] == ["3", "0.333", "0.667"]
    assert rows["average of 2 sets"][4:] == ["0.667", "0.833", "0.667", "0.833"]
    assert "hops not given" not in text


def test_results_hold_one_line_per_question(dataset: str, out: Path) -> None:
    run(right_or_wrong, dataset, out=out)
    lines = {line["id"]: line for line in lines_of(out)}
    assert set(lines) == {"q1", "q2", "q3", "q4"}
    assert 0 < lines["q2"]["wall_s"] < 60
    assert lines["q2"] | {"wall_s": 0} == QUESTIONS[1] | {
        "options": {"temperature": 0.0},
        "extractor": "own",
        "status": "completed",
        "wall_s": 0,
        "answer": "West African CFA franc",
        "prediction": "West African CFA franc",
        "exact_match": False,
        "sub_exact_match": True,
        "error": None,
        "data_source": None,
        "model": "demo",
        "run_id": "run_1",
        "queries": ["a query"],
        "turns": 2,
        "searches": 1,
        "failed_searches": 0,
        "invalid_turns": 0,
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "observation_tokens": 60,
        "cached_tokens": 0,
        "duration_ms": 5.0,
    }


def test_an_evaluation_goes_on_where_it_was_cut_off(dataset: str, out: Path) -> None:
    run(right_or_wrong, dataset, limit=2, out=out)
    with out.open("ab") as file:
        file.write(b'{"id": "q3", "question": "Curr')
    report, gateway = run(right_or_wrong, dataset, out=out)
    assert {body["question"] for body in gateway.bodies} == {QUESTIONS[2]["question"], QUESTIONS[3]["question"]}
    assert (report.searching.overall.num_questions, report.searching.num_asked) == (4, 2)
    assert report.searching.overall.exact_match == 0.5
    assert len(lines_of(out)) == 4
    again, gateway = run(right_or_wrong, dataset, out=out)
    assert gateway.bodies == []
    assert again.searching.overall == report.searching.overall


def test_failed_runs_count_as_wrong_and_are_asked_again(dataset: str, out: Path) -> None:
    broken = True

    async def handler(body: dict[str, Any]) -> Response:
        if not broken or body["question"].startswith("Cap"):
            return await right_or_wrong(body)
        if body["question"].startswith("Lang"):
            return refusal(502, "the engine died")
        error = {"code": "engine_error", "message": "it failed"}
        return JSONResponse(run_json(body["question"], None, status="failed", error=error))

    report, _ = run(handler, dataset, out=out)
    assert report.searching.statuses == {"failed": 3, "completed": 1}
    assert (report.searching.overall.exact_match, report.searching.overall.mean_searches) == (0.25, 1.0)
    assert {line["error"] for line in lines_of(out)} == {None, "the engine died", "it failed"}
    broken = False
    report, gateway = run(handler, dataset, out=out)
    assert len(gateway.bodies) == 3
    assert report.searching.overall.exact_match == 0.5


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_gateway_is_asked_again(dataset: str, status: int) -> None:
    attempts: Counter[str] = Counter()

    async def handler(body: dict[str, Any]) -> Response:
        attempts[body["question"]] += 1
        if attempts[body["question"]] <= 2:
            return refusal(status, "busy", headers={"Retry-After": "0"})
        return await right_or_wrong(body)

    report, _ = run(handler, dataset)
    assert set(attempts.values()) == {3}
    assert report.searching.statuses == {"completed": 3, "exhausted": 1}


def test_a_gateway_that_stays_busy_costs_the_question_only(dataset: str) -> None:
    async def handler(body: dict[str, Any]) -> Response:
        if body["question"].startswith("Cap"):
            return refusal(503, "busy", headers={"Retry-After": "0"})
        return await right_or_wrong(body)

    report, gateway = run(handler, dataset)
    assert report.searching.statuses == {"completed": 2, "exhausted": 1, "failed": 1}
    assert len(gateway.bodies) == 3 + asker.MAX_ATTEMPTS


def test_waits_follow_the_gateway_or_grow() -> None:
    asked = APIStatusError("busy", status_code=503, retry_after_s=7.0)
    assert 7.0 <= PATIENCE.wait_s(asked, 1) <= 8.4
    assert PATIENCE.wait_s(APIStatusError("busy", status_code=503, retry_after_s=1e9), 1) <= 1.2 * 30
    lost = APIConnectionError("reset")
    assert 0.25 <= PATIENCE.wait_s(lost, 1) <= 0.5
    assert 2.0 <= PATIENCE.wait_s(lost, 4) <= 4.0
    assert 15.0 <= PATIENCE.wait_s(lost, 50) <= 30.0


def test_what_is_asked_again_is_a_busy_gateway_or_a_lost_connection() -> None:
    busy = {status: may_pass(APIStatusError("no", status_code=status)) for status in (408, 429, 500, 502, 503, 504)}
    assert [status for status, passes in busy.items() if passes] == [429, 503]
    assert may_pass(APIConnectionError("reset"))
    assert not may_pass(APITimeoutError("silent", retryable=False))


@pytest.mark.parametrize(
    ("status", "param", "says"),
    [(401, None, "refuses: Show a key"), (404, "model", "refuses"), (400, "temperature", "refuses")],
)
def test_a_refusal_of_everything_stops_it(dataset: str, out: Path, status: int, param: str | None, says: str) -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return refusal(status, "Show a key", param=param)

    with pytest.raises(GatewayError, match=says):
        run(handler, dataset, out=out)
    assert lines_of(out) == []


def test_a_refused_question_is_a_failed_run(dataset: str) -> None:
    async def handler(body: dict[str, Any]) -> Response:
        if body["question"].startswith("Cap"):
            return await right_or_wrong(body)
        return refusal(400, "too long", param="question")

    report, gateway = run(handler, dataset)
    assert report.searching.statuses == {"failed": 3, "completed": 1}
    assert report.searching.num_failed == 3
    assert len(gateway.bodies) == 4


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (lambda: Response("<html>", media_type="text/html"), "not as a Search-R1 gateway does"),
        (lambda: refusal(401, "Show a key"), "refuses: Show a key"),
        (lambda: refusal(404, "Not Found"), "refuses: Not Found"),
    ],
)
def test_what_answers_is_asked_once_before_the_questions(
    dataset: str, models: Callable[[], Response], says: str
) -> None:
    gateway = FakeGateway(right_or_wrong)
    gateway.models = models
    with gateway.serve(), pytest.raises(GatewayError, match=says):
        evaluate(dataset, url=gateway.url, progress=False)
    assert gateway.bodies == []


def test_another_servers_answers_stop_it(dataset: str) -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return JSONResponse({"hello": "there"})

    with pytest.raises(GatewayError, match="not as a Search-R1 gateway does"):
        run(handler, dataset)


def test_no_gateway_stops_it(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asker, "MAX_ATTEMPTS", 2)
    with unused_url() as url, pytest.raises(GatewayError, match="no gateway answers"):
        evaluate(dataset, url=url, progress=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "127.0.0.1:8000"}, "not a server's address"),
        ({"url": "http://host:port"}, "not a server's address"),
        ({"api_key": "schlüssel"}, "API key"),
        ({"closed_book": True, "max_searches": 0}, "closed-book already"),
        ({"concurrency": 0}, "at least 1"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(dataset: str, options: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"url": NOWHERE, "progress": False} | options
    with pytest.raises(ConfigurationError, match=says):
        evaluate(dataset, **arguments)


@pytest.mark.parametrize("other", [{"temperature": 1.0}, {"extractor": "reference"}, {"max_turns": 1}])
def test_results_of_other_options_are_not_mixed(dataset: str, out: Path, other: dict[str, Any]) -> None:
    run(right_or_wrong, dataset, out=out)
    with pytest.raises(ConfigurationError, match="cannot be resumed"):
        evaluate(dataset, url=NOWHERE, out=out, progress=False, **other)


def test_files_that_are_no_results_are_left_alone(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"line 1: .*Is it a file of evaluation results"):
        evaluate(dataset, url=NOWHERE, out=Path(dataset), progress=False)
    assert lines_of(Path(dataset)) == QUESTIONS
    notes = tmp_path / "notes.jsonl"
    for content in (b"some notes\nand more", b"notes"):
        notes.write_bytes(content)
        with pytest.raises(DatasetError, match="line 1"):
            evaluate(dataset, url=NOWHERE, out=notes, progress=False)
        assert notes.read_bytes() == content
    with pytest.raises(ConfigurationError, match="cannot be written"):
        evaluate(dataset, url=NOWHERE, out=tmp_path, progress=False)


def test_the_reference_extractor_reads_beijing_where_no_answer_was_given(tmp_path: Path) -> None:
    path = tmp_path / "china.jsonl"
    path.write_text(
        '{"id": "1", "question": "Capital of China", "golden_answers": ["Beijing"]}\n'
        '{"id": "2", "question": "What joins words", "golden_answers": ["and"]}\n',
        encoding="utf-8",
    )

    async def handler(body: dict[str, Any]) -> Response:
        steps = [{"turn": 1, "invalid": "no_action"}] if body["question"].startswith("What") else []
        return JSONResponse(run_json(body["question"], None, steps=steps))

    own, _ = run(handler, str(path))
    reference, _ = run(handler, str(path), extractor="reference")
    assert (own.searching.overall.exact_match, reference.searching.overall.exact_match) == (0.0, 1.0)
    assert reference.searching.overall.no_answer == 1.0


def test_the_progress_bar_shows_the_exact_match_so_far(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway(right_or_wrong).serve() as gateway:
        evaluate(dataset, url=gateway.url)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4/4" in captured.err
    assert "EM 0.500" in captured.err
