"""Runs that are played: their fates, the room that an oracle keeps for them, and the order of the arms."""

import argparse
import asyncio
from pathlib import Path

import pytest

from loadtests.agents.__main__ import rotated, run_suite
from loadtests.agents.arms import ARMS, arm_named
from loadtests.agents.asking import LostRunError, WrongRunError
from loadtests.agents.playing import TokenGate, arrival_times_s, play
from loadtests.agents.suite import SUITE
from loadtests.agents.trace import AgentRun
from tests.agents.worlds import small_trace


async def test_every_run_has_its_fate() -> None:
    runs = small_trace().runs

    async def ask(run: AgentRun) -> None:
        match run.run:
            case "0001":
                raise WrongRunError("another answer")
            case "0002":
                raise LostRunError("503")
            case "0003":
                raise OSError("gone")
            case "0004":
                await asyncio.Event().wait()

    played = await play(runs, [0.0] * len(runs), ask, at_most_s=0.3)
    assert [one.run for one in played] == [run.run for run in runs]
    assert [one.fate for one in played] == ["ended", "wrong", "lost", "lost", "lost", "ended"]
    assert [one.told for one in played[1:5]] == [
        "another answer",
        "LostRunError: 503",
        "OSError: gone",
        "had not ended after 0.3 s",
    ]
    assert all(one.came_s <= one.ended_s for one in played)


async def test_an_oracle_lets_in_what_fits_in_the_order_of_coming() -> None:
    gate, inside, most = TokenGate(10), 0, 0
    order: list[int] = []

    async def one(number: int, tokens: int) -> None:
        nonlocal inside, most
        async with gate.holding(tokens):
            order.append(number)
            inside += tokens
            most = max(most, inside)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside -= tokens

    await asyncio.gather(*(one(number, tokens) for number, tokens in enumerate([6, 6, 1, 4, 10, 3])))
    assert order == [0, 1, 2, 3, 4, 5]
    assert most <= 10
    with pytest.raises(ValueError, match="11 tokens never fit into 10"):
        gate.holding(11)


async def test_who_is_cancelled_gives_its_room_back() -> None:
    gate = TokenGate(10)

    async def hold() -> None:
        async with gate.holding(10):
            await asyncio.Event().wait()

    holding, waiting = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(0)
    for task in (waiting, holding):
        task.cancel()
    await asyncio.gather(holding, waiting, return_exceptions=True)
    async with gate.holding(10):
        pass


def test_runs_come_at_once_or_at_a_rate() -> None:
    assert arrival_times_s(None, 3, seed=1) == [0.0, 0.0, 0.0]
    times = arrival_times_s(2.0, 400, seed=1)
    assert times[0] == 0.0
    assert times == sorted(times)
    assert times[-1] == pytest.approx(200, rel=0.2)


def test_arms_are_known_by_name() -> None:
    assert len({arm.name for arm in ARMS}) == len(ARMS)
    assert all(arm_named(arm.name) is arm for arm in ARMS)
    assert arm_named("cap-16").settings == {"max_concurrent_runs": "16"}
    for name in ("nobody", "cap-0", "cap-"):
        with pytest.raises(ValueError, match="no arm is called"):
            arm_named(name)


def test_each_repeat_begins_with_another_arm() -> None:
    arms = [arm_named(name) for name in ("plain", "ours", "oracle")]
    assert [next(arm.name for arm in rotated(arms, repeat)) for repeat in (1, 2, 3, 4)] == [
        "plain",
        "ours",
        "oracle",
        "plain",
    ]
    assert {arm.name for arm in rotated(arms, 2)} == {arm.name for arm in arms}


def test_the_suite_is_made_of_runs_that_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[argparse.Namespace] = []
    monkeypatch.setattr("loadtests.agents.__main__.run", asked.append)
    folders = {"model": Path("m"), "out": Path("o"), "recorded": None, "thunderagent": Path("t"), "first_port": 21300}
    run_suite(argparse.Namespace(**folders, only=[]))
    assert len(asked) == len(SUITE)
    assert all(arm_named(name) for args in asked for name in args.arms.split(","))
    assert {(args.model, args.out, args.recorded, args.thunderagent, args.first_port) for args in asked} == {
        (Path("m"), Path("o"), None, Path("t"), 21300)
    }
    asked.clear()
    run_suite(argparse.Namespace(**folders, only=["calm"]))
    assert [(args.scenario, args.runs, args.arrivals_per_s) for args in asked] == [("calm", 24, 0.1)]
