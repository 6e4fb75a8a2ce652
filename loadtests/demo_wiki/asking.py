"""Asking the served demo, and what it said."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.demo_wiki.questions import Question
from searchr1.evaluation.metrics import exact_match, normalize, sub_exact_match
from searchr1.files import write_json_lines
from searchr1_client import AsyncSearchR1, Run


@dataclass(frozen=True, slots=True)
class Said:
    """What the demo said to one question."""

    id: str
    answer: str | None
    status: str
    queries: tuple[str, ...]
    found: bool
    """Whether a right answer stood in a passage that it read."""
    right: bool
    """Exact match with a right answer, articles, case and punctuation aside."""
    contains: bool
    """A right answer is within what it said."""
    seconds: float


async def ask_all(url: str, questions: Sequence[Question], *, concurrency: int) -> list[Said]:
    """Ask every question once, greedily, ``concurrency`` at a time. Raises ``SearchR1Error`` of the SDK."""
    gate = asyncio.Semaphore(concurrency)
    loop = asyncio.get_running_loop()

    async with AsyncSearchR1(base_url=url, timeout=600) as client:

        async def ask(question: Question) -> Said:
            async with gate:
                started = loop.time()
                run = await client.research.create(question.question, temperature=0, deadline_s=300)
                return said(question, run, loop.time() - started)

        return list(await asyncio.gather(*(ask(question) for question in questions)))


def said(question: Question, run: Run, seconds: float) -> Said:
    """Return what ``run`` made of ``question``."""
    texts = [normalize(f"{passage.title} {passage.snippet}") for step in run.steps for passage in step.passages]
    return Said(
        id=question.id,
        answer=run.answer,
        status=run.status,
        queries=tuple(step.query for step in run.steps if step.query is not None),
        found=any(normalize(answer) in text for answer in question.golden_answers for text in texts),
        right=exact_match(run.answer, question.golden_answers),
        contains=sub_exact_match(run.answer, question.golden_answers),
        seconds=round(seconds, 1),
    )


def write(path: Path, answers: Iterable[Said]) -> None:
    """Write the answers to ``path``, one JSON object a line. Raises ``ConfigurationError``."""
    write_json_lines(path, map(asdict, answers))
