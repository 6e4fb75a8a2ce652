"""A gateway that serves a checkpoint of another family: its texts reach the engine, its answers the client."""

import pytest
from pydantic import ValidationError

from searchr1.errors import ConfigurationError
from searchr1.loop.neutralized import neutralized
from searchr1.loop.profiles.registry import profile_named
from searchr1.settings import Settings
from tests.gateway.conftest import MALI, StageEngine, running_stage

QUESTION = {"question": "Which currency is used in Mali?"}
TURNS = {
    "search-r1": ("<search> Mali </search>", "<answer> CFA franc </answer>"),
    "research-base": ("<search> Mali </search>", "<answer> It is \\[ \\boxed{CFA franc} \\] </answer>"),
    "search-o1": ("<|begin_search_query|>Mali<|end_search_query|>", "I know: \\boxed{\\text{CFA franc}}."),
}


@pytest.mark.parametrize("sanitize", [True, False])
@pytest.mark.parametrize("name", TURNS)
async def test_a_run(name: str, sanitize: bool) -> None:
    profile, engine = profile_named(name), StageEngine(list(TURNS[name]))
    async with running_stage(engine=engine, profile=name, sanitize=sanitize, max_prompt_tokens=4096) as stage:
        run = (await stage.client.post("/v1/research", json=QUESTION)).json()
        record = (await stage.client.get(f"/v1/research/{run['id']}")).json()
        assert (run["status"], run["answer"], run["usage"]["searches"]) == ("completed", "CFA franc", 1)
        assert stage.retriever.queries == ["Mali"]
        encode = stage.services.default.tokenizer.encode
        put_in = [*encode(TURNS[name][0]), *encode(profile.observation([MALI]))]
        assert list(engine.prompts[1][len(engine.prompts[0]) :]) == put_in
        assert engine.params[0].stop == profile.tags.stops
    assert record["trajectory"]["profile"] == (f"{name}+sanitized" if sanitize else name)


async def test_a_turn_without_an_action_ends_a_run_that_has_no_retry_text() -> None:
    async with running_stage(engine=StageEngine(["Hm."]), profile="search-o1", max_prompt_tokens=4096) as stage:
        run = (await stage.client.post("/v1/research", json=QUESTION)).json()
    assert (run["status"], run["answer"], run["usage"]["turns"]) == ("exhausted", None, 1)


async def test_a_profile_that_does_not_fit_the_checkpoint_stops_the_server_from_starting() -> None:
    with pytest.raises(ConfigurationError, match="leaves the system message or the user's out"):
        async with running_stage(profile="research"):
            pass


def test_the_setting() -> None:
    given = {"model": "m", "retriever": "none"}
    assert Settings.model_validate(given).loop_profile() is neutralized(profile_named("search-r1"))
    assert Settings.model_validate({**given, "sanitize": False}).loop_profile() is profile_named("search-r1")
    chosen = Settings.model_validate({**given, "profile": "research"}).loop_profile()
    assert chosen is neutralized(profile_named("research"))
    with pytest.raises(ValidationError, match=r"there is no profile 'reserch'; there are .*research, "):
        Settings.model_validate({**given, "profile": "reserch"})
