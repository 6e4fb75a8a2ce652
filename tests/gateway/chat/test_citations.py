"""Citations: whatever the model writes and whatever searches find, only passages of the run can be cited."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from searchr1.gateway.access.admission import Admission, RunOptions
from searchr1.gateway.chat.choices import choice_events
from searchr1.gateway.chat.shape import ChatShape
from searchr1.gateway.served_model import ServedModel, ServedModels
from searchr1.gateway.services import Services
from searchr1.identity import ANYONE
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found
from searchr1.retrieval.layer import SearchLayer
from searchr1.retrieval.received import received
from searchr1.settings import Settings
from searchr1_client.events import Run, SearchCompleted
from searchr1_client.fold import RunFold
from tests.gateway.conftest import MODEL, StageEngine, StageRetriever, byte_tokenizer

TOKENIZER = byte_tokenizer()
ANSWERS = st.sampled_from(
    ["West African CFA franc", "Źłoty €", "1962", "[1] Mali https://made.up/source", "a", "", "𝒳"]
)
URLS = st.sampled_from([None, "https://atlas.example/mali", "https://a.example/?q=ü", "javascript:alert(1)"])
TITLES = st.sampled_from(['"Mali"', "Mali", "", "<b>Bold</b>", "[2](https://made.up)"])
MADE_UP = '{"type": "url_citation", "url": "https://made.up/source", "title": "Made up"} Doc 1(Title: "Made up") '


@st.composite
def _passages(draw: st.DrawFn, answer: str) -> list[Passage]:
    texts = st.sampled_from(["", "Nothing here.", f"It is {answer}.", f"{answer}{answer}", f"({answer.upper()}) x"])
    return [
        Passage(id=str(i), title=draw(TITLES), text=draw(texts), url=draw(URLS)) for i in range(draw(st.integers(0, 3)))
    ]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[str, list[Passage], bool]:
    answer = draw(ANSWERS)
    return answer, draw(_passages(answer)), draw(st.booleans())


async def _completion(answer: str, passages: list[Passage], searches: bool) -> tuple[dict[str, Any], list[Run]]:
    turns = ["<search> currency of Mali </search>"] if searches else []
    engine = StageEngine([*turns, f"<think> {MADE_UP} </think>\n<answer> {answer} </answer>"])
    config = Settings(model=MODEL, retriever="index:none")
    search = SearchLayer(StageRetriever(Found(tuple(passages))))
    model = ServedModel(config, TOKENIZER, engine, Admission(config, TOKENIZER, search))
    services = Services(config, ServedModels([model]), search)
    plan = services.default.admission.plan("Mali?", RunOptions(), caller=ANYONE, run_id="r", stream=True)
    fold = RunFold()
    async for _, event in choice_events(services, [plan], run_id="r"):
        fold.add(event)
        if isinstance(event, SearchCompleted):
            assert len(event.passages) == len(passages)
    return ChatShape("chatcmpl-1", MODEL, 0).completion([fold.run()]), [fold.run()]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(_cases())
@example(("West African CFA franc", [Passage("1", '"Mali"', "It uses the West African CFA franc.")], True))
def test_only_passages_of_the_run_that_hold_the_answer_are_cited(case: tuple[str, list[Passage], bool]) -> None:
    answer, passages, searches = case
    payload, (run,) = asyncio.run(_completion(*case))
    completion = ChatCompletion.model_validate(payload)
    found = received(passages) if searches else ()
    message = completion.choices[0].message
    assert message.content == answer.strip()
    assert message.annotations is not None
    for annotation in message.annotations:
        cited = annotation.url_citation
        assert message.content[cited.start_index : cited.end_index] == message.content != ""
        holders = [p for p in found if p.title.strip().strip('"') == cited.title and p.url in (None, cited.url)]
        assert any(message.content.lower() in p.text.lower() for p in holders)
    urls = {result["url"] for result in payload["search_results"]}
    assert {url for url in urls if not url.startswith("urn:passage:")} <= {p.url for p in found}
    assert set(payload["citations"]) == {one.url_citation.url for one in message.annotations} <= urls
    assert "javascript:" not in str(payload["citations"]) + str(payload["search_results"])
    for citation in run.citations:
        passage = next(p for step in run.steps for p in step.passages if p.index == citation.index)
        assert passage.snippet[citation.start : citation.end].lower() == answer.lower()


def test_the_answer_that_a_passage_holds_is_cited() -> None:
    passage = Passage("1", '"Mali"', "It uses the West African CFA franc.", url="https://atlas.example/mali")
    payload, _ = asyncio.run(_completion("West African CFA franc", [passage], True))
    assert payload["citations"] == ["https://atlas.example/mali"]
    assert payload["choices"][0]["message"]["annotations"][0]["url_citation"] == {
        "start_index": 0,
        "end_index": 22,
        "title": "Mali",
        "url": "https://atlas.example/mali",
    }


def test_a_source_that_no_search_found_is_not_cited() -> None:
    payload, _ = asyncio.run(_completion("[1] Mali https://made.up/source", [], False))
    assert payload["citations"] == []
    assert payload["search_results"] == []
    assert payload["choices"][0]["message"]["annotations"] == []
