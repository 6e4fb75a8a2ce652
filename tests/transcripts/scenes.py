"""Runs of a fixed script and the bytes of their streams. Run as a module, it writes the transcripts anew."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from searchr1.errors import EngineError
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from tests.gateway.conftest import ANSWER_TURN, MALI, SEARCH_TURN, Stage, StageEngine, StageRetriever, running_stage

FOLDER = Path(__file__).parent
QUESTION = "Which currency is used in Mali?"
INVALID_TURN = "<think> I am not sure. </think>\nPerhaps the franc."

_RUN_ID = re.compile(rb"run_[0-9a-f]{32}")
_TIME = re.compile(rb'"(t_ms|created|duration_ms|first_token_ms)":[0-9.e-]+')


@dataclass(frozen=True)
class Scene:
    """A scripted run: the model's words, the search's passages, and the end."""

    completions: tuple[str, ...] = (SEARCH_TURN, ANSWER_TURN)
    outcome: SearchOutcome = field(default_factory=lambda: Found((MALI,), provider="index"))
    options: dict[str, Any] = field(default_factory=dict)
    engine_dies: bool = False
    """Once it has searched."""
    cancelled: bool = False
    """Before the first turn's last word."""


SCENES = {
    "answered": Scene(),
    "search_failed": Scene(outcome=SearchFailed("timeout", "the search took too long", provider="index")),
    "exhausted": Scene(completions=(INVALID_TURN,), options={"max_turns": 1}),
    "engine_failed": Scene(engine_dies=True),
    "cancelled": Scene(cancelled=True),
}


class _Hold(asyncio.Event):
    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


class _Retriever(StageRetriever):
    def __init__(self, outcome: SearchOutcome, then: Callable[[], None]) -> None:
        super().__init__(outcome)
        self._then = then

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        self._then()
        return await super().search(query, k, deadline_s)


@asynccontextmanager
async def staged(scene: Scene) -> AsyncIterator[Stage]:
    """A gateway that plays the scene, once for each run."""
    engine = StageEngine(completions=list(scene.completions))
    engine.hold = _Hold() if scene.cancelled else None

    def die() -> None:
        engine.error = EngineError("the engine died") if scene.engine_dies else None

    serving: AbstractAsyncContextManager[Stage] = running_stage(
        engine=engine, retriever=_Retriever(scene.outcome, die), model="demo"
    )
    async with serving as stage:
        yield stage


async def played(scene: Scene) -> bytes:
    """The stream's bytes, with ids and times set to naught."""
    async with staged(scene) as stage:
        body = {"question": QUESTION, "stream": True, **scene.options}
        async with stage.client.stream("POST", "/v1/research", json=body) as response:
            stream = b""
            async for data in response.aiter_bytes():
                if isinstance(hold := stage.engine.hold, _Hold) and not stream:
                    await hold.reached.wait()
                    await stage.client.post(f"/v1/research/{response.headers['x-run-id']}/cancel")
                stream += data
    return normalized(stream)


def normalized(stream: bytes) -> bytes:
    """``stream`` without what differs from run to run."""
    return _TIME.sub(rb'"\1":0.0', _RUN_ID.sub(b"run_" + b"0" * 32, stream))


def transcript(name: str) -> bytes:
    """The recorded stream of a scene."""
    return (FOLDER / f"{name}.sse").read_bytes()


if __name__ == "__main__":
    for name, scene in SCENES.items():
        (FOLDER / f"{name}.sse").write_bytes(asyncio.run(played(scene)))
