"""Hostile results through the whole gateway: the answer is the model's, and what the engine is sent is neutral."""

import pytest

from searchr1.retrieval.base import Found
from searchr1_client.events import parse_event
from tests.gateway.conftest import Stage, StageRetriever, running_stage, sse_payloads
from tests.hostile.cases import CASES, Case
from tests.hostile.detector import find_tag

QUESTION = {"question": "Which currency is used in Mali?"}
ANSWER = "West African CFA franc"
SAMPLE = (
    *("plain/closed_and_answered", "nested/once", "width/all_of_it", "invisible/nul", "bidi/override"),
    *("entities/double_named", "tokens/im_end", "token_disguises/entities", "split/name_over_passages"),
    *("persuasion/forged_chat", "malformed/lone_high_surrogate", "malformed/control", "huge/tags", "many/long_title"),
    *("urls/javascript", "urls/credentials", "homoglyphs/cyrillic"),
)
CHOSEN = [case for case in CASES if case.name in SAMPLE]
OPEN, CLOSE = "<information>", "</information>\n\n"


def test_every_name_of_the_sample_is_a_case() -> None:
    assert len(CHOSEN) == len(SAMPLE)


def observation_of(stage: Stage) -> str:
    """The text between the information tags that the engine was sent last, cut by the token limit as it was."""
    tokenizer, prompt = stage.services.default.tokenizer, stage.engine.prompts[-1]
    text = tokenizer.decode(prompt[len(stage.engine.prompts[0]) :])
    return text.partition("\n\n" + OPEN)[2].removesuffix(CLOSE)


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: str(case.name))
async def test_a_hostile_result_changes_no_answer(case: Case) -> None:
    async with running_stage(retriever=StageRetriever(Found(case.passages))) as stage:
        whole = (await stage.client.post("/v1/research", json=QUESTION)).json()
        assert (whole["status"], whole["answer"]) == ("completed", ANSWER)
        streamed = await stage.client.post("/v1/research", json={**QUESTION, "stream": True})
        events = [parse_event(data) for data in sse_payloads(streamed.text)]
        kinds = [event.type for event in events if not event.type.endswith(".delta")]
        assert kinds == ["run.started", "search.started", "search.completed", "answer.completed", "run.completed"]
        assert find_tag(observation_of(stage)) is None
        special = {256, 257}
        sent = [prompt[len(stage.engine.prompts[0]) :] for prompt in stage.engine.prompts]
        assert not any(special.intersection(ids) for ids in sent)


async def test_the_operator_may_turn_it_off() -> None:
    (case,) = [case for case in CASES if case.name == "plain/closed_and_answered"]
    async with running_stage(retriever=StageRetriever(Found(case.passages)), sanitize=False) as stage:
        whole = (await stage.client.post("/v1/research", json=QUESTION)).json()
        assert (whole["status"], whole["answer"]) == ("completed", ANSWER)
        assert find_tag(observation_of(stage)) == "</information"


async def test_clients_see_what_the_page_said() -> None:
    (case,) = [case for case in CASES if case.name == "entities/named"]
    async with running_stage(retriever=StageRetriever(Found(case.passages))) as stage:
        whole = (await stage.client.post("/v1/research", json=QUESTION)).json()
        assert whole["steps"][0]["passages"][0]["snippet"] == case.passages[0].text


@pytest.mark.parametrize("case", [c for c in CASES if c.category == "urls"], ids=lambda case: str(case.name))
async def test_no_client_is_given_an_unsafe_link(case: Case) -> None:
    async with running_stage(retriever=StageRetriever(Found(case.passages))) as stage:
        whole = (await stage.client.post("/v1/research", json=QUESTION)).json()
        (passage,) = whole["steps"][0]["passages"]
        assert passage["url"] in (None, "http://169.254.169.254/latest/meta-data/")  # Never fetched by the server.
