"""Arms as they are set up: the gateway's settings, engines without a part, and upstream's way without its model."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtests.agents.arms import ARMS, Arm, arm_named
from loadtests.agents.engine import EngineOptions
from loadtests.agents.gateway import PARTS
from loadtests.agents.infer import Way
from loadtests.agents.measuring import Setup, gateway_environment
from loadtests.agents.operating import scheduling_of
from loadtests.agents.script import CHECKPOINT, Script
from loadtests.agents.trace import AgentRun
from searchr1.loop.types import Passage
from searchr1.settings import Settings
from tests.agents.worlds import small_trace

GATEWAYS = [arm for arm in (*ARMS, arm_named("cap-9")) if arm.way == "gateway"]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        scenario="rush",
        trace=small_trace(),
        engine=EngineOptions(checkpoint=tmp_path),
        eos_id=0,
        arrivals_per_s=None,
        num_tail_tokens=20,
        at_most_s=60.0,
        thunderagent=None,
        folder=tmp_path,
        first_port=21_300,
    )


@pytest.mark.parametrize("arm", GATEWAYS, ids=lambda arm: arm.name)
def test_the_gateway_takes_the_settings_of_every_arm(arm: Arm, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = gateway_environment(setup, arm)
    assert environment.keys() - {CHECKPOINT} <= Settings.variables()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(model="m", engine_url="http://127.0.0.1:1", retriever="http://127.0.0.1/retrieve")
    assert settings.max_turns == 2
    assert settings.engine == arm.engine_kind
    assert settings.engine in {"vllm-http", *PARTS}
    assert settings.engine_priority is (arm.policy == "priority")


def test_the_simulator_schedules_as_the_gateway_does(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = scheduling_of(setup.trace)
    for name, value in gateway_environment(setup, arm_named("ours")).items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(model="m", engine_url="http://127.0.0.1:1", retriever="http://127.0.0.1/retrieve")
    assert settings.scheduling() == simulated


def test_ports_are_counted_where_a_first_one_is_given(setup: Setup) -> None:
    port = setup.ports()
    assert [port(), port(), port()] == [21_300, 21_301, 21_302]


class Template:
    """A tokenizer that knows a chat template alone."""

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        assert add_generation_prompt
        assert not tokenize
        return f"<user>{messages[0]['content']}<assistant>"


@dataclass
class Told(Way):
    """Upstream's way with texts in place of a model."""

    run: AgentRun | None = None
    prompts: list[str] = field(default_factory=list)

    def generate(self, prompt: str) -> tuple[str, bool]:
        self.prompts.append(prompt)
        assert self.run is not None
        turn = min(len(self.prompts), len(self.run.texts)) - 1
        return self.run.texts[turn], turn == len(self.run.searches)

    def search(self, query: str) -> list[Passage]:
        return [Passage.from_contents(f"{query}\nfound")]


def test_upstream_s_way_puts_what_it_found_behind_each_turn() -> None:
    run = max(small_trace().runs, key=lambda run: len(run.searches))
    way = Told(None, Template(), Script({}, 0), "", run)
    assert way.answer(run) == run.last_text
    first, second, third = way.prompts
    assert first.startswith("<user>Answer the given question.")
    for before, after, search in zip((first, second), (second, third), run.searches, strict=True):
        found = f"<information>Doc 1(Title: {search.query}) found\n</information>\n\n"
        assert after == f"{before}\n\n{search.text}{found}"


def test_upstream_s_way_ends_though_the_text_does_not() -> None:
    [run, *_] = small_trace().runs
    way = Told(None, Template(), Script({}, 0), "", AgentRun("0000", run.question, run.searches * 30, run.last_text))
    with pytest.raises(RuntimeError, match="did not end in 20 turns"):
        way.answer(run)
