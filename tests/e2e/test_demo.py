"""The whole product, end to end: real vLLM, the bundled checkpoint, the Atlas index, real HTTP."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest

from searchr1.evaluation.metrics import exact_match
from searchr1_client.events import parse_event
from tests.support.demo_server import Demo

pytestmark = pytest.mark.vllm

TIMBUKTU = "Which currency is used in the country where Timbuktu is?"


def ask(demo: Demo, question: str, **options: object) -> dict[str, object]:
    response = httpx.post(f"{demo.url}/v1/research", json={"question": question, **options}, timeout=120)
    assert response.status_code == 200, response.text
    run: dict[str, object] = response.json()
    return run


def metric(demo: Demo, name: str) -> float:
    """A metric's sum over its labels."""
    text = httpx.get(f"{demo.url}/metrics", timeout=30).text
    values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)
    assert values, f"no metric {name}"
    return sum(map(float, values))


def test_the_readme_question_is_answered_by_searching(demo: Demo) -> None:
    run = ask(demo, TIMBUKTU)
    assert run["answer"] == "West African CFA franc"
    assert run["status"] == "completed"
    assert isinstance(run["usage"], dict)
    assert run["usage"]["searches"] >= 2
    assert run["citations"]


def test_held_out_questions_are_answered(demo: Demo) -> None:
    lines = (demo.data_dir / "atlas" / "questions-test.jsonl").read_text("utf-8").splitlines()[:40]
    right = 0
    for line in lines:
        question = json.loads(line)
        answer = ask(demo, question["question"])["answer"]
        right += exact_match(answer if isinstance(answer, str) else None, question["golden_answers"])
    assert right / len(lines) >= 0.6


@pytest.mark.parametrize("message", ["Hello", "What can you do?", "Who wrote Hamlet?", "What is 2+2?"])
def test_what_is_no_question_for_it_is_answered_in_one_short_turn(demo: Demo, message: str) -> None:
    run = ask(demo, message)
    assert isinstance(run["answer"], str)
    assert "countries and cities" in run["answer"]
    assert isinstance(run["usage"], dict)
    assert run["usage"]["searches"] == 0
    assert run["usage"]["completion_tokens"] < 150


def test_greedy_answers_repeat(demo: Demo) -> None:
    first, second = (ask(demo, TIMBUKTU, temperature=0) for _ in range(2))
    for run in (first, second):
        for varies in ("id", "created", "usage"):
            run.pop(varies)
        for step in run["steps"]:  # type: ignore[attr-defined]
            step.pop("duration_ms")
    assert first == second


def test_the_openai_sdk_gets_the_same_answer_streaming_and_not(demo: Demo) -> None:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none") as client:
        model = client.models.list().data[0].id
        whole = client.chat.completions.create(model=model, messages=[{"role": "user", "content": TIMBUKTU}])
        with client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": TIMBUKTU}], stream=True
        ) as chunks:
            streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert whole.choices[0].message.content == streamed == ask(demo, TIMBUKTU)["answer"]


def test_the_engine_generates_only_what_the_run_counts(demo: Demo) -> None:
    before = metric(demo, "vllm:generation_tokens_total")
    run = ask(demo, TIMBUKTU)
    assert isinstance(run["usage"], dict)
    assert metric(demo, "vllm:generation_tokens_total") - before == run["usage"]["completion_tokens"]


def test_a_client_that_leaves_frees_the_engine(demo: Demo) -> None:
    body = {"question": TIMBUKTU, "stream": True, "temperature": 1.0}
    with httpx.stream("POST", f"{demo.url}/v1/research", json=body, timeout=60) as response:
        for line in response.iter_lines():
            if line.startswith("data: ") and parse_event(line[6:]).type == "think.delta":
                break
    for _ in range(100):
        if metric(demo, "vllm:num_requests_running") == 0 and metric(demo, "searchr1_runs_running") == 0:
            break
        time.sleep(0.1)
    assert metric(demo, "vllm:num_requests_running") == 0
    assert metric(demo, "searchr1_runs_running") == 0
    assert metric(demo, "searchr1_runs_total") > 0


def test_ask_prints_the_answer_alone_on_stdout(demo: Demo, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "searchr1.cli", "ask", "--url", demo.url, TIMBUKTU]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=True)
    assert done.stdout == "West African CFA franc\n"
    assert "Timbuktu" in done.stderr


def test_the_record_holds_a_logprob_for_each_sampled_token(demo: Demo) -> None:
    run = ask(demo, TIMBUKTU, logprobs=True, temperature=0)
    record = httpx.get(f"{demo.url}/v1/research/{run['id']}", timeout=30).json()
    completions = [s for s in record["trajectory"]["segments"] if s["kind"] == "completion"]
    assert len(completions) >= 3
    for segment in completions:
        assert len(segment["logprobs"]) == len(segment["sampled_ids"]) > 0
        assert all(logprob <= 0 for logprob in segment["logprobs"])
        assert set(segment["loss_mask"]) == {1}
    assert sum(len(s["sampled_ids"]) for s in completions) == record["usage"]["completion_tokens"]
