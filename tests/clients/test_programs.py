"""Programs that others run against servers: the commands of docs/guides/clients.md, as they are.

They are large, so these tests are skipped where ``scripts/setup-programs`` has not put them into ``.venv-programs``.
"""

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from loadtests.processes import free_port
from tests.gateway.conftest import MODEL, Stage
from tests.gateway.threaded import threaded_stage

from .clients import ROOT
from .stages import ANSWER, QUESTION, THOUGHTS, TurnsEngine, endless_engine, retriever
from .table import DOCS

PROGRAMS = ROOT / ".venv-programs"
SECTION = "Harnesses, load tools and routers"
TIMEOUT_S = 500
"""They import for a minute, and for five on a crowded machine."""
BLOCKS = {
    code.split()[1 if language == "console" else 0].rstrip(":"): code.removeprefix("$ ")
    for language, code in re.findall(
        r"```(console|yaml)\n(.*?)```", DOCS.read_text("utf-8").partition(f"## {SECTION}\n")[2], re.DOTALL
    )
}
"""The section's examples, by the program; the task of ``lm-eval`` is ``task``."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2 * TIMEOUT_S),
    pytest.mark.skipif(not (PROGRAMS / ".setup").exists(), reason="the programs are not there: scripts/setup-programs"),
]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A gateway that searches once and answers, for any number of clients at once."""
    with threaded_stage(engine=TurnsEngine(), retriever=retriever()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the programs run, with the files that the page names."""
    asked = [
        (QUESTION, ANSWER),
        ("Which currency is used in Niger?", ANSWER),
        ("What is the capital of Mali?", "Bamako"),
    ]
    lines = [json.dumps({"text": text, "answer": answer}) for text, answer in asked]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (tmp_path / "atlas.yaml").write_text(BLOCKS["task"], "utf-8")
    (tmp_path / "server").symlink_to(ROOT / "server")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """A process that keeps to its folder and asks no hub."""
    path = f"{PROGRAMS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(folder), "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def run(command: str, folder: Path, url: str) -> str:
    """Run a command of the page to its end against ``url``, and return what it says."""
    here = command.replace("http://127.0.0.1:8000", url).replace("searchr1-atlas", MODEL)
    done = subprocess.run(
        ["bash", "-c", here],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def engine_of(stage: Stage) -> TurnsEngine:
    """The stage's engine."""
    assert isinstance(stage.engine, TurnsEngine)
    return stage.engine


def runs_of(stage: Stage) -> int:
    """How many runs there were; each searched and answered."""
    turns = Counter(engine_of(stage).sessions)
    assert set(turns.values()) <= {2}
    return len(turns)


@pytest.mark.parametrize(
    "more",
    [
        "",
        " --num_fewshot 1 --system_instruction 'Be brief.'"
        " --gen_kwargs temperature=0.7,top_p=0.9,top_k=20,min_p=0.05,do_sample=true",
    ],
    ids=["greedy", "few-shot, sampled"],
)
def test_lm_evaluation_harness_scores_the_answers(stage: Stage, folder: Path, more: str) -> None:
    run(BLOCKS["lm-eval"].rstrip() + more, folder, stage.url)
    (written,) = (folder / "lm-eval").rglob("results_*.json")
    scored = json.loads(written.read_text("utf-8"))["results"]["atlas"]
    assert scored["exact_match,none"] == pytest.approx(2 / 3)
    assert runs_of(stage) == 3


@pytest.mark.parametrize("kind", ["", ",request_format=/v1/responses"], ids=["chat", "responses"])
def test_guidellm_measures_without_an_error(stage: Stage, folder: Path, kind: str) -> None:
    run(
        BLOCKS["guidellm"].replace("target=http://127.0.0.1:8000", f"target=http://127.0.0.1:8000{kind}"),
        folder,
        stage.url,
    )
    (benchmark,) = json.loads((folder / "guidellm.json").read_text("utf-8"))["benchmarks"]
    requests = benchmark["requests"]
    assert (requests["errored"], requests["incomplete"]) == ([], [])
    assert len(requests["successful"]) == runs_of(stage) > 0
    for request in requests["successful"]:
        assert request["output"] == ANSWER
        reasoning = request["reasoning_output"]
        if kind:
            assert reasoning is None, "guidellm reads the reasoning of Responses now: tell it in the page"
        else:
            assert all(thought in reasoning for thought in THOUGHTS)
        assert request["input_metrics"]["text_tokens"] > 100
        assert request["output_metrics"]["text_tokens"] > 0


@pytest.mark.parametrize(
    "more",
    ["", " --endpoint-type responses --wait-for-model-timeout 60 --wait-for-model-mode models"],
    ids=["chat", "responses"],
)
def test_aiperf_measures_without_an_error(stage: Stage, folder: Path, more: str) -> None:
    command = BLOCKS["aiperf"].rstrip()
    run(command.replace(" --endpoint-type chat", more) if more else command, folder, stage.url)
    measured = json.loads((folder / "aiperf" / "profile_export_aiperf.json").read_text("utf-8"))
    assert (measured["error_summary"], measured["request_count"]["avg"]) == ([], 8)
    assert measured["usage_prompt_tokens"]["min"] > 100
    assert measured["output_sequence_length"]["min"] > 0
    assert runs_of(stage) == 8
    servers = json.loads((folder / "aiperf" / "server_metrics_export.json").read_text("utf-8"))["summary"]
    assert servers["endpoints_successful"] == [f"{stage.url}/metrics"]


@contextmanager
def routed(folder: Path, *stages: Stage) -> Iterator[str]:
    """Run the page's router in front of ``stages``; yields its URL."""
    port, metrics = free_port(), free_port()
    command = BLOCKS["vllm-router"].replace("--port 8080", f"--port {port}").replace("9090", str(metrics))
    for place, stage in zip((8081, 8082), stages, strict=True):
        command = command.replace(f"http://127.0.0.1:{place}", stage.url)
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment(folder), stdout=log, stderr=log
        ) as router,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(TIMEOUT_S * 2):
                assert router.poll() is None, (folder / "log").read_text("utf-8")
                with suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                time.sleep(0.5)
            yield url
        finally:
            router.terminate()


def test_vllm_router_passes_all_on_and_keeps_a_session_to_one_gateway(stage: Stage, folder: Path) -> None:
    chat = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_searches": 3, "search_top_k": 2}
    with (
        threaded_stage(engine=TurnsEngine(), retriever=retriever()) as other,
        routed(folder, stage, other) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert client.get("/v1/models").json()["data"][0]["id"] == MODEL
        whole = client.post("/v1/chat/completions", json=chat).json()
        assert whole["choices"][0]["message"]["content"] == ANSWER
        assert whole["search_results"]
        streamed = client.post("/v1/chat/completions", json={**chat, "stream": True}).text
        assert (streamed.count('"reasoning"') > 1, ANSWER in streamed) == (True, True)
        assert streamed.endswith("data: [DONE]\n\n")
        assert client.post("/v1/research", json={"question": QUESTION}).json()["answer"] == ANSWER
        empty = {**chat, "messages": [{"role": "user", "content": " "}]}
        refused = client.post("/v1/chat/completions", json=empty)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
        for engine in (engine_of(stage), engine_of(other)):
            engine.sessions.clear()
        for name in range(4):
            before = runs_of(stage), runs_of(other)
            session = {"X-Session-ID": f"chat-{name}"}
            first = client.post("/v1/responses", json={"model": MODEL, "input": QUESTION}, headers=session).json()
            again = {"model": MODEL, "input": QUESTION, "previous_response_id": first["id"]}
            followed = client.post("/v1/responses", json=again, headers=session)
            assert followed.status_code == 200, followed.text
            assert (runs_of(stage) - before[0], runs_of(other) - before[1]) in ((2, 0), (0, 2))


def test_leaving_a_router_frees_the_engine(folder: Path) -> None:
    """Once it has something more to pass on: it sees then that its client has left."""
    engines = endless_engine(), endless_engine()
    chat = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    with (
        threaded_stage(engine=engines[0], retriever=retriever(), heartbeat_s=0.5) as one,
        threaded_stage(engine=engines[1], retriever=retriever(), heartbeat_s=0.5) as other,
        routed(folder, one, other) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        with client.stream("POST", "/v1/chat/completions", json=chat) as stream:
            assert next(stream.iter_bytes())
            assert sum(engine.num_open for engine in engines) == 1
        while any(engine.num_open for engine in engines):
            time.sleep(0.01)
        assert sum(len(engine.prompts) for engine in engines) == 1


def test_the_versions_are_those_that_run() -> None:
    section = DOCS.read_text("utf-8").partition(f"## {SECTION}\n")[2]
    locked = (ROOT / "requirements" / "programs.lock").read_text("utf-8")
    for name in ("lm-eval", "guidellm", "aiperf", "vllm-router"):
        found = re.search(rf"^{name}==(\S+)", locked, re.MULTILINE)
        assert found is not None
        assert re.search(rf"^\|[^|]*`{name}` \| {re.escape(found[1])} \|", section, re.MULTILINE)
