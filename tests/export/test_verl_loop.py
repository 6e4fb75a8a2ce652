"""The rollout inside verl: what it asks of verl's server, and the tokens, masks and logprobs that it hands back."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from searchr1.errors import EngineError
from searchr1.export.verl import agent_loop
from searchr1.export.verl.agent_loop import SearchLoop
from searchr1.export.verl.reward import COMPLETIONS
from searchr1.loop.profiles.search_r1 import RETRY, SEARCH_R1
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.tokenizer import Tokenizer
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.torch

SEARCH = "<think> Where? </think>\n<search> Mali </search>"
ANSWER = "<think> I see. </think>\n<answer> Bamako </answer>"
PASSAGE = Passage("1", '"Mali"', "Its capital is Bamako.")
SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
ROW = {"raw_prompt": [{"role": "user", "content": SEARCH_R1.prompt("Capital of Mali?")}], "uid": "u", "index": 0}


@dataclass
class Output:
    """``AgentLoopOutput``, by its fields at the commit that the export is for."""

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    num_turns: int
    metrics: dict[str, float]
    extra_fields: dict[str, Any]
    response_logprobs: list[float] | None = None


@dataclass
class VerlServer:
    """Answers with texts, as tokens; records what it was asked."""

    texts: list[str]
    tokenizer: Tokenizer
    stop_reason: str = "completed"
    notes: list[tuple[int, int]] = field(default_factory=list)
    """First and last step whose weights sampled each completion, where verl tells."""
    asked: list[tuple[str, list[int], dict[str, Any]]] = field(default_factory=list)

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        self.asked.append((request_id, prompt_ids, dict(sampling_params)))
        ids = self.tokenizer.encode(self.texts.pop(0))
        return SimpleNamespace(
            token_ids=ids,
            log_probs=[-0.5] * len(ids) if sampling_params["logprobs"] else None,
            stop_reason=self.stop_reason,
            extra_fields={"global_steps": 3} | self._weights(),
        )

    def _weights(self) -> dict[str, int]:
        if not self.notes:
            return {}
        oldest, newest = self.notes.pop(0)
        return {"min_global_steps": oldest, "max_global_steps": newest}


class OneRetriever:
    queries: list[tuple[str, int]]
    made = 0

    def __init__(self, url: str) -> None:
        assert url == "http://127.0.0.1:8000/retrieve"
        type(self).queries = []
        type(self).made += 1

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        self.queries.append((query, k))
        return Found((PASSAGE,))

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.load(str(model))


@pytest.fixture(autouse=True)
def inside_verl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("verl.experimental.agent_loop.agent_loop")
    module.AgentLoopOutput = Output  # type: ignore[attr-defined]
    for name in ("verl", "verl.experimental", "verl.experimental.agent_loop"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(agent_loop, "RetrieveClient", OneRetriever)
    monkeypatch.setattr(OneRetriever, "made", 0)
    shared: tuple[Any, ...] = (agent_loop.load_tokenizer, agent_loop.shared_retriever)
    for cached in shared:
        cached.cache_clear()
    yield
    for cached in shared:
        cached.cache_clear()


def loop(server: VerlServer, model: Path, **changes: Any) -> SearchLoop:
    """One as hydra makes it: the file's fields, and verl's own arguments."""
    policy = SimpleNamespace(
        model=SimpleNamespace(path=str(model)),
        rollout=SimpleNamespace(response_length=changes.pop("response_length", 4096)),
    )
    fields: dict[str, Any] = {
        "name": "searchr1",
        "retriever": "http://127.0.0.1:8000/retrieve",
        "top_k": 3,
        "search_timeout_s": 5.0,
        "max_turns": 4,
        "max_completion_tokens": 500,
        "max_observation_tokens": 500,
        "max_context_tokens": 4096,
    }
    verls: dict[str, Any] = {
        "tokenizer": None,
        "processor": None,
        "dataset_cls": None,
        "data_config": None,
        "tools": None,
    }
    config = SimpleNamespace(config=SimpleNamespace(actor_rollout_ref=policy))
    return SearchLoop(trainer_config=config, server_manager=server, **(fields | changes), **verls)


async def test_a_search_and_an_answer(model: Path, tokenizer: Tokenizer) -> None:
    server = VerlServer([SEARCH, ANSWER], tokenizer)
    output = await loop(server, model).run(dict(SAMPLING), **ROW)
    observation = tokenizer.encode(SEARCH_R1.observation([PASSAGE]))
    first, last = tokenizer.encode(SEARCH), tokenizer.encode(ANSWER)
    assert output.prompt_ids == tokenizer.encode_prompt(tokenizer.render(SEARCH_R1.prompt("Capital of Mali?")))
    assert output.response_ids == [*first, *observation, *last]
    assert output.response_mask == [1] * len(first) + [0] * len(observation) + [1] * len(last)
    assert output.response_logprobs == [-0.5] * len(first) + [0.0] * len(observation) + [-0.5] * len(last)
    assert OneRetriever.queries == [("Mali", 3)]
    assert json.loads(output.extra_fields[COMPLETIONS]) == [SEARCH, ANSWER]
    assert output.extra_fields["global_steps"] == 3
    assert output.num_turns == 4
    (session, prompt, sampling), (again, context, _) = server.asked
    assert session == again, "one server keeps the prefix of all turns"
    assert prompt == output.prompt_ids
    assert context == [*output.prompt_ids, *first, *observation]
    assert sampling == {
        "temperature": 1.0,
        "top_p": 0.9,
        "max_tokens": 500,
        "stop": ["</search>", "</answer>"],
        "include_stop_str_in_output": True,
        "logprobs": True,
    }


async def test_trajectories_share_one_client_of_the_retriever(model: Path, tokenizer: Tokenizer) -> None:
    """verl makes a loop for each of a step's thousands of trajectories; each with a pool would open as many."""
    loops = [loop(VerlServer([SEARCH, ANSWER], tokenizer), model) for _ in range(8)]
    await asyncio.gather(*(each.run(dict(SAMPLING), **ROW) for each in loops))
    assert OneRetriever.queries == [("Mali", 3)] * 8
    assert OneRetriever.made == 1


def test_another_event_loop_gets_a_client_of_its_own(model: Path, tokenizer: Tokenizer) -> None:
    for _ in range(2):
        asyncio.run(loop(VerlServer([SEARCH, ANSWER], tokenizer), model).run(dict(SAMPLING), **ROW))
    assert OneRetriever.made == 2


async def test_verls_notes_tell_the_oldest_and_the_newest_weights(model: Path, tokenizer: Tokenizer) -> None:
    server = VerlServer([SEARCH, ANSWER], tokenizer, notes=[(3, 3), (4, 5)])
    output = await loop(server, model).run(dict(SAMPLING), **ROW)
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (3, 5)


async def test_what_was_sampled_past_the_answer_is_dropped(model: Path, tokenizer: Tokenizer) -> None:
    output = await loop(VerlServer([ANSWER + " and more <search>"], tokenizer), model).run(dict(SAMPLING), **ROW)
    assert tokenizer.decode(tuple(output.response_ids)) == ANSWER
    assert len(output.response_mask) == len(output.response_logprobs) == len(output.response_ids)


async def test_a_turn_without_an_action_gets_the_retry_text(model: Path, tokenizer: Tokenizer) -> None:
    output = await loop(VerlServer(["Hm.", ANSWER], tokenizer), model).run(dict(SAMPLING), **ROW)
    retry = tokenizer.encode(RETRY)
    assert output.response_mask.count(0) == len(retry)
    assert json.loads(output.extra_fields[COMPLETIONS]) == ["Hm.", ANSWER]


async def test_a_long_trajectory_is_cut_and_its_answer_lost(model: Path, tokenizer: Tokenizer) -> None:
    whole = await loop(VerlServer([SEARCH, ANSWER], tokenizer), model).run(dict(SAMPLING), **ROW)
    length = len(whole.response_ids) - 1
    cut = await loop(VerlServer([SEARCH, ANSWER], tokenizer), model, response_length=length).run(dict(SAMPLING), **ROW)
    assert cut.response_ids == whole.response_ids[:length]
    assert cut.response_mask == whole.response_mask[:length]
    assert cut.response_logprobs == whole.response_logprobs[:length]
    assert json.loads(cut.extra_fields[COMPLETIONS]) == [SEARCH]


async def test_without_logprobs_none_are_handed_back(model: Path, tokenizer: Tokenizer) -> None:
    sampling = SAMPLING | {"temperature": 0, "logprobs": False}
    server = VerlServer([ANSWER], tokenizer)
    output = await loop(server, model).run(sampling, **ROW)
    assert output.response_logprobs is None
    assert server.asked[0][2]["temperature"] == 0


async def test_an_aborted_completion_is_an_error(model: Path, tokenizer: Tokenizer) -> None:
    server = VerlServer([ANSWER], tokenizer, stop_reason="aborted")
    with pytest.raises(EngineError):
        await loop(server, model).run(dict(SAMPLING), **ROW)
