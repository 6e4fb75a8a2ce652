"""What is down while an evaluation runs is no score of the model: neither the gateway, its engine nor its search."""

from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from searchr1.data.questions import Question
from searchr1.errors import EvaluationError, GatewayError
from searchr1.evaluation import asking
from searchr1.evaluation.baselines.trial import TrialOutcome
from searchr1.evaluation.records import outcome_record
from tests.evaluation.gateway.fake_gateway import refusal, run_json
from tests.evaluation.gateway.test_evaluate import ANSWERS, dataset, lines_of, out, run

__all__ = ["dataset", "out"]


@pytest.mark.parametrize("status", [418, 500, 502])
def test_an_outage_is_no_score(dataset: str, out: Path, status: int) -> None:
    async def handler(body: dict[str, Any]) -> Response:
        return refusal(status, "the engine is \x1b[2Jdown")

    with pytest.raises(EvaluationError, match="every run failed, so there is no score; the last one with: the engine"):
        run(handler, dataset, out=out)
    assert [line["status"] for line in lines_of(out)] == ["failed"] * 4
    assert not out.with_suffix(".summary.json").exists()


def test_a_gateway_that_fails_every_question_is_left(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_: dict[str, Any]) -> Response:
        return refusal(500, "a bug")

    monkeypatch.setattr(asking, "FAILURES_IN_A_ROW", 3)
    with pytest.raises(GatewayError, match="3 questions in a row failed, the last with: a bug"):
        run(handler, dataset, concurrency=1)


def searched(question: str, *failed: bool) -> dict[str, Any]:
    """A run that answers right, with one step and search for each of ``failed``."""
    error = {"code": "unavailable", "message": "The search service can't be reached just now."}
    steps = [{"turn": i + 1, "query": "q", **({"search_error": error} if no else {})} for i, no in enumerate(failed)]
    run = run_json(question, {**ANSWERS, "Currency where Timbuktu is?": "CFA franc"}[question], steps=steps)
    return run | {"usage": run["usage"] | {"searches": len(failed)}}


@pytest.mark.parametrize("failed", [(True,), (True, True)])
def test_an_outage_of_the_search_is_no_score(dataset: str, out: Path, failed: tuple[bool, ...]) -> None:
    async def handler(body: dict[str, Any]) -> Response:
        return JSONResponse(searched(body["question"], *failed))

    with pytest.raises(EvaluationError, match="so there is no score; the last one with: no search worked, the last"):
        run(handler, dataset, out=out)
    assert [(line["status"], line["exact_match"]) for line in lines_of(out)] == [("failed", False)] * 4


def test_runs_whose_searches_all_failed_are_asked_again(dataset: str, out: Path) -> None:
    is_down = True

    async def handler(body: dict[str, Any]) -> Response:
        if body["question"] == "Capital of Mali?":
            return JSONResponse(searched(body["question"], is_down))
        failed = [] if body["question"].startswith("Language") else [True, False]
        return JSONResponse(searched(body["question"], *failed))

    report, _ = run(handler, dataset, out=out)
    assert (report.searching.num_failed, report.searching.overall.exact_match) == (1, 0.5)
    is_down = False
    report, gateway = run(handler, dataset, out=out)
    assert [body["question"] for body in gateway.bodies] == ["Capital of Mali?"]
    assert (report.searching.num_failed, report.searching.overall.exact_match) == (0, 0.75)


@pytest.mark.parametrize(("searches", "failed", "status"), [(0, 0, "completed"), (2, 1, "completed"), (2, 2, "failed")])
def test_a_method_on_an_engine_is_scored_alike(searches: int, failed: int, status: str) -> None:
    question = Question(id="q", question="Capital of Mali?", golden_answers=("Bamako",))
    outcome = TrialOutcome(status="completed", answer="Bamako", searches=searches, failed_searches=failed)
    record = outcome_record(question, outcome, method="rag", model="m", options={}, extractor="own")
    assert (record.status, record.exact_match, record.failed) == (status, status == "completed", status == "failed")
    assert (record.error is None) == (status == "completed")
