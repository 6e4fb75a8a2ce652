"""A retriever that follows a script, and an observer that takes notes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from searchr1.breaker import BreakerState
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, NullObserver, SearchFailed, SearchOutcome
from tests.support.virtual_time import now_s

TICK_S = 1e-3


def found(*texts: str, provider: str = "") -> Found:
    return Found(tuple(Passage.from_contents(text) for text in texts or ("a\nb",)), provider=provider)


def failed(
    kind: str, retry_after_s: float | None = None, message: str = "it failed", status: int | None = None
) -> SearchFailed:
    return SearchFailed(kind, message, retry_after_s, status=status)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Step:
    """Answer with ``outcome`` after ``takes_s``; keep the deadline unless ``stubborn``."""

    outcome: SearchOutcome
    takes_s: float = 0.01
    stubborn: bool = False


@dataclass
class Script:
    """A ``Retriever`` whose n-th call follows the n-th step; the last step repeats."""

    steps: Sequence[Step | SearchOutcome]
    deadlines_s: list[float] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    cancelled: int = 0

    @property
    def calls(self) -> int:
        return len(self.deadlines_s)

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        step = step if isinstance(step, Step) else Step(step)
        self.deadlines_s.append(deadline_s)
        self.began_s.append(now_s())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if step.takes_s > deadline_s and not step.stubborn:
                await asyncio.sleep(deadline_s)
                return failed("timeout")
            await asyncio.sleep(step.takes_s)
            return step.outcome
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


class Notes(NullObserver):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.states: list[BreakerState] = []
        self.retries = 0
        self.hedges: list[bool] = []
        self.costs: list[tuple[str, float]] = []
        self.refused: list[str] = []

    def attempt(self, provider: str, outcome: str, duration_s: float) -> None:
        self.attempts.append(outcome)

    def breaker(self, provider: str, state: BreakerState) -> None:
        self.states.append(state)

    def retry(self, provider: str) -> None:
        self.retries += 1

    def hedge(self, provider: str, won: bool) -> None:
        self.hedges.append(won)

    def cost(self, provider: str, usd: float) -> None:
        self.costs.append((provider, usd))

    def budget_refused(self, scope: str) -> None:
        self.refused.append(scope)
