"""``searchr1 eval --method`` from the command line, on an engine behind vLLM's wire and a real index."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError, EngineUnavailableError
from searchr1.evaluation.baselines.trial import MethodOptions, Tools
from searchr1.evaluation.engine.asker import EngineAsker
from searchr1.evaluation.engine.compare import method_options
from searchr1.retrieval.fake import FakeRetriever
from searchr1.retrieval.index.bm25 import build_index
from searchr1.settings import Settings
from searchr1.tokenizer import Tokenizer
from searchr1_client import RunOptions
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, Fault, serve_fake_vllm
from tests.evaluation.gateway.fake_gateway import unused_url
from tests.evaluation.gateway.test_evaluate import QUESTIONS

DIRECT = [" Paris </answer>"] * 4
RAG = [f" {answer} </answer>" for answer in ("Bamako", "CFA franc", "Paris", "Paris")]
SEARCH_R1 = [
    turn
    for answer in ("Bamako", "CFA franc", "CFA franc", "Paris")
    for turn in ("<search> Mali </search>", f"<answer> {answer} </answer>")
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(question)}\n" for question in QUESTIONS), encoding="utf-8")
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    corpus = tmp_path / "corpus.jsonl"
    passages = [{"id": "1", "contents": '"Mali"\nThe capital of Mali is Bamako.'}]
    corpus.write_text("".join(f"{json.dumps(passage)}\n" for passage in passages), encoding="utf-8")
    build_index(corpus, tmp_path / "index")
    return tmp_path / "index"


async def evaluated(
    model_dir: Path, script: Sequence[str], *arguments: str, fault: Fault | None = None
) -> tuple[Result, FakeVllm]:
    encode = Tokenizer.load(str(model_dir)).encode
    async with serve_fake_vllm(script, encode=encode) as fake:
        fake.fault = fault
        line = ["eval", "--engine-url", fake.url, "--model", MODEL, "--tokenizer", str(model_dir), *arguments]
        done = await asyncio.to_thread(CliRunner().invoke, app, [*line, "--concurrency", "1"])
        return done, fake


def method_flags(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--method", name)]


def values_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_methods_are_compared_and_resumed(model_dir: Path, dataset: Path, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "all.jsonl"
    arguments = ["--dataset", str(dataset), "--retriever", f"index:{index}", "--out", str(out)]
    flags = method_flags("search-r1", "direct", "rag")
    done, fake = await evaluated(model_dir, [*SEARCH_R1, *DIRECT, *RAG], *arguments, *flags)
    assert done.exit_code == 0, done.output
    assert len(fake.bodies) == 16

    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line[:1] == "|"
    ]
    scores = {row[0]: row[2:] for row in rows[2:5]}
    assert scores == {
        "Direct": ["0.000", "0.000", "–", "0.000"],
        "RAG": ["1.000", "0.000", "–", "0.500"],
        "Search-R1": ["1.000", "0.500", "–", "0.750"],
    }
    records = values_of(out.with_suffix(".rag.jsonl"))
    assert {(r["method"], r["model"], r["searches"]) for r in records} == {("rag", MODEL, 1)}
    assert records[0]["options"] == {"model": MODEL, "temperature": 0.0, "baseline_format": "plain"}
    summary = json.loads(out.with_suffix(".rag.summary.json").read_text(encoding="utf-8"))
    assert summary["searching"]["overall"]["exact_match"] == 0.5
    written = out.with_suffix(".table.md").read_text(encoding="utf-8")
    assert written in done.stdout
    assert json.loads(out.with_suffix(".table.json").read_text(encoding="utf-8"))["columns"][-1] == "all"

    again, fake = await evaluated(model_dir, [], *arguments, *flags)
    assert again.exit_code == 0, again.output
    assert fake.bodies == []
    assert written in again.stdout

    refused, _ = await evaluated(model_dir, [], *arguments, *flags, "--temperature", "1")
    assert isinstance(refused.exception, ConfigurationError)

    files = [str(out.with_suffix(f".{name}.jsonl")) for name in ("rag", "direct", "search-r1")]
    table = CliRunner().invoke(app, ["eval", "table", *files, "--out", str(tmp_path / "t.md")])
    assert (table.exit_code, table.stdout) == (0, written)
    assert (tmp_path / "t.json").is_file()


async def test_baselines_without_search_need_no_retriever(model_dir: Path, dataset: Path) -> None:
    done, fake = await evaluated(
        model_dir, DIRECT, "--dataset", str(dataset), *method_flags("direct"), "--baseline-format", "search-r1"
    )
    assert done.exit_code == 0, done.output
    assert "in Search-R1's format" in done.stdout
    prompt = Tokenizer.load(str(model_dir)).decode(tuple(fake.prompts[0]))
    assert prompt.endswith("<think> I can answer this. </think>\n<answer>")


async def test_records_of_another_profile_say_so(
    model_dir: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHR1_PROFILE", "research-base")
    out = tmp_path / "all.jsonl"
    arguments = ["--dataset", str(dataset), "--out", str(out), "--baseline-format", "search-r1"]
    boxed = [" \\boxed{Paris} </answer>"] * 4
    done, _ = await evaluated(model_dir, boxed, *arguments, *method_flags("direct"))
    assert done.exit_code == 0, done.output
    records = values_of(out.with_suffix(".direct.jsonl"))
    assert {record["options"]["profile"] for record in records} == {"research-base"}
    assert {record["answer"] for record in records} == {"Paris"}


async def test_the_options_of_a_run_reach_the_engine(model_dir: Path, dataset: Path) -> None:
    options = ["--temperature", "0.7", "--top-p", "0.9", "--seed", "5", "--max-tokens", "9"]
    done, fake = await evaluated(model_dir, DIRECT, "--dataset", str(dataset), *method_flags("direct"), *options)
    assert done.exit_code == 0, done.output
    body = fake.bodies[0]
    assert [body[name] for name in ("temperature", "top_p", "seed", "max_tokens")] == [0.7, 0.9, 5, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--closed-book"], "--method direct"),
        (["--plot"], "--plot needs --out"),
        (["--method", "rag"], "--retriever"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("SEARCHR1_RETRIEVER", raising=False)
    line = ["eval", "--dataset", str(dataset), "--method", "direct", "--model", "m", *arguments]
    done = CliRunner().invoke(app, line, env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert done.exit_code == 2
    assert message in done.output


def test_what_only_a_gateway_does_is_refused(dataset: Path) -> None:
    line = ["eval", "--dataset", str(dataset), "--method", "direct", "--model", "m", "--cache", "only"]
    done = CliRunner().invoke(app, line)
    assert isinstance(done.exception, ConfigurationError)
    assert "cache" in str(done.exception)


def test_an_engine_that_is_not_there_is_told(model_dir: Path, dataset: Path) -> None:
    with unused_url() as url:
        line = ["eval", "--dataset", str(dataset), "--method", "cot", "--engine-url", url, "--model", str(model_dir)]
        done = CliRunner().invoke(app, line)
    assert isinstance(done.exception, EngineUnavailableError)


async def test_an_engine_that_fails_again_and_again_ends_the_evaluation(model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({**QUESTIONS[0], "id": str(i)}) + "\n" for i in range(30)))
    done, fake = await evaluated(
        model_dir, [], "--dataset", str(path), *method_flags("direct"), fault=Fault.REFUSE_REQUEST
    )
    assert isinstance(done.exception, EngineUnavailableError)
    assert "20 questions in a row failed" in str(done.exception)
    assert len(fake.bodies) == 20


def test_the_settings_stand_where_the_options_say_nothing() -> None:
    settings = Settings(model="m", retriever="none", max_turns=3, top_k=2, deadline_s=7)
    chosen = method_options(settings, RunOptions(max_searches=1, max_tokens=50), "plain")
    assert (chosen.limits.max_turns, chosen.limits.max_searches, chosen.limits.max_run_tokens) == (3, 1, 50)
    assert (chosen.drive.top_k, chosen.drive.deadline_s, chosen.drive.temperature) == (2, 7, 0.0)
    with pytest.raises(ConfigurationError, match="max_turns"):
        method_options(settings, RunOptions(max_turns=-1), "plain")


def test_an_asker_knows_its_method(tokenizer: Tokenizer) -> None:
    from searchr1.engines.scripted import ScriptedEngine

    tools = Tools(ScriptedEngine([" Bamako </answer>"], encode=tokenizer.encode), FakeRetriever({}), tokenizer)
    asker = EngineAsker("direct", tools, MethodOptions(), model="m", record_options={"a": 1})
    from searchr1.data.questions import Question

    taken: list[Any] = []
    asyncio.run(asker.ask_all([Question("1", "Capital of Mali?", ("Bamako",))], taken.append))
    assert [(r.method, r.exact_match, r.options, r.model) for r in taken] == [("direct", True, {"a": 1}, "m")]
