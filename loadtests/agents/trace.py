"""The runs of the comparison: questions, what the model writes in each turn, what each search finds and when.

They come from recorded runs, as ``loadtests.traces`` reads them. Most of those search once, so that a run here is the
turns of several, one after the other, under the question of the first; it names itself in its question. Without
recorded runs, the texts are words that mean nothing, of the same lengths.
"""

import gzip
import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from loadtests.agents.script import Script, named
from loadtests.traces import RunTrace, TurnTrace
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Passage
from searchr1.rollout import render_prompt
from searchr1.tokenizer import Tokenizer

_WRITTEN = re.compile(r"(.*<search>(.*?)</search>)\s*<information>(.*?)</information>\s*(.*)", re.DOTALL)
_PASSAGE = re.compile(r"Doc \d+\(Title: (.*?)\) (.*?)(?=\nDoc \d+\(Title: |\Z)", re.DOTALL)
_TAG = re.compile(r"</?think>")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_WORDS = (
    "time",
    "year",
    "people",
    "way",
    "day",
    "thing",
    "life",
    "world",
    "school",
    "state",
    "family",
    "city",
    "river",
)
_LEAST_S, _MOST_S = 0.3, 4.0


@dataclass(frozen=True, slots=True)
class SearchTurn:
    """A turn that ends in a search: what the model writes, and the contents of what is found, title line first."""

    text: str
    query: str
    contents: tuple[str, ...]

    @property
    def passages(self) -> tuple[Passage, ...]:
        """What is found, as the loop takes it."""
        return tuple(Passage.from_contents(text) for text in self.contents)


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One run: its searches, then the text that ends it."""

    run: str
    question: str
    searches: tuple[SearchTurn, ...]
    last_text: str

    @property
    def answer(self) -> str:
        """The answer that its last text gives."""
        found = _ANSWER.search(self.last_text)
        return found[1].strip() if found else ""

    @property
    def texts(self) -> tuple[str, ...]:
        """What the model writes, turn by turn."""
        return (*(search.text for search in self.searches), self.last_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How runs are put together."""

    num_runs: int
    num_searches: tuple[int, ...] = (3, 4, 4, 5)
    """Drawn from evenly."""
    passage_chars: int = 620
    thought_chars: int | None = None
    """Thoughts are cut to so many characters."""
    context_chars: int = 0
    """Text of its own that each question comes with: an agent's notes, or a conversation."""
    repeated: float = 0.15
    """Share of turns that search for what another run searches for."""
    seed: int = 1


@dataclass(frozen=True)
class Trace:
    """Runs, and the latencies of their searches: lognormal, of ``median_s`` and ``sigma``, from 0.3 to 4 s."""

    runs: tuple[AgentRun, ...]
    median_s: float = 0.9
    sigma: float = 0.7

    @cached_property
    def found(self) -> Mapping[str, tuple[str, ...]]:
        """The contents of the passages of every query."""
        return {search.query: search.contents for run in self.runs for search in run.searches}

    @cached_property
    def digest(self) -> str:
        """A name of these very runs."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def latency_s(self, query: str) -> float:
        """Return how long a search takes: the same for everybody who asks."""
        drawn = random.Random(query).lognormvariate(math.log(self.median_s), self.sigma)
        return min(max(drawn, _LEAST_S), _MOST_S)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Trace":
        """Read what ``write`` wrote."""
        record = json.loads(path.read_text(encoding="utf-8"))
        runs = tuple(
            AgentRun(
                run["run"],
                run["question"],
                tuple(SearchTurn(s["text"], s["query"], tuple(s["contents"])) for s in run["searches"]),
                run["last_text"],
            )
            for run in record["runs"]
        )
        return cls(runs, record["median_s"], record["sigma"])


def recorded(folder: Path, shape: Shape) -> list[AgentRun]:
    """Put runs together from the recorded ones of a folder."""
    paths = sorted(folder.glob("*.jsonl*"))
    parts = [part for path in paths for record in _lines(path) if (part := _one_search(record, shape)) is not None]
    return composed(parts, shape)


def drawn(shape: Shape) -> list[AgentRun]:
    """Put runs together from words that mean nothing."""
    rng = random.Random(shape.seed)

    def words(mean: int) -> str:
        return " ".join(rng.choices(_WORDS, k=max(2, round(rng.lognormvariate(math.log(mean), 0.3)))))

    def part(number: int) -> AgentRun:
        query = f"{words(4)} {number}"
        contents = tuple(f'"{words(3)}"\n{words(200)}'[: shape.passage_chars] for _ in range(3))
        text = _cut(f"<think> {words(45)} </think> <search> {query} </search>", shape.thought_chars)
        last_text = _cut(f"<think> {words(25)} </think> <answer> {words(2)} </answer>", shape.thought_chars)
        return AgentRun(str(number), words(12), (SearchTurn(text, query, contents),), last_text)

    return composed([part(number) for number in range(4 * shape.num_runs)], shape)


def composed(parts: Sequence[AgentRun], shape: Shape) -> list[AgentRun]:
    """Return runs of several parts each; no query comes twice in a run. Raises ``ValueError`` for too few parts."""
    rng = random.Random(shape.seed)
    num_wanted = shape.num_runs * max(shape.num_searches)
    fresh = rng.sample(parts, min(len(parts), num_wanted))
    used: list[AgentRun] = []
    runs = []
    for number in range(shape.num_runs):
        own: dict[str, AgentRun] = {}
        for _ in range(rng.choice(shape.num_searches)):
            again = [part for part in used if part.searches[0].query not in own]
            if not (again and rng.random() < shape.repeated):
                again = [part for part in (fresh.pop() if fresh else None,) if part is not None]
            if not again:
                raise ValueError(f"{len(parts)} recorded runs are too few for {shape.num_runs} runs")
            part = rng.choice(again)
            own.setdefault(part.searches[0].query, part)
        used += [part for part in own.values() if part not in used]
        first, *_, last = own.values() if len(own) > 1 else [*own.values()] * 2
        name = f"{number:04d}"
        searches = tuple(part.searches[0] for part in own.values())
        question = f"{_context(parts, shape.context_chars, rng)}{first.question}"
        runs.append(AgentRun(name, named(question, name), searches, last.last_text))
    return runs


def _context(parts: Sequence[AgentRun], num_chars: int, rng: random.Random) -> str:
    """Return text that other runs read, of at most so many characters."""
    text = ""
    while len(text) < num_chars:
        text += " ".join(rng.choice(parts).searches[0].contents) + "\n"
    return text[:num_chars] + "\n" if num_chars else ""


def script_of(trace: Trace, tokenizer: Tokenizer, *, eos_id: int, num_tail_tokens: int) -> Script:
    """Return what the model writes, turn by turn.

    After a search that nobody stops at, it goes on with an observation of its own for ``num_tail_tokens``.
    """
    return Script(
        {
            run.run: [
                *(
                    tokenizer.encode(search.text) + observed(search, tokenizer)[:num_tail_tokens] + [eos_id]
                    for search in run.searches
                ),
                [*tokenizer.encode(run.last_text), eos_id],
            ]
            for run in trace.runs
        },
        eos_id,
    )


def observed(search: SearchTurn, tokenizer: Tokenizer) -> list[int]:
    """Return the ids of what the loop puts in after a search."""
    return tokenizer.encode(SEARCH_R1.observation(search.passages))


def lengths(trace: Trace, tokenizer: Tokenizer) -> list[RunTrace]:
    """Return the runs as the simulator takes them."""
    prompts = [
        tokenizer.encode_prompt(render_prompt(SEARCH_R1.prompt(run.question), tokenizer, SEARCH_R1))
        for run in trace.runs
    ]
    first, last = min(prompts), max(prompts)
    num_shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return [
        RunTrace(
            run.run,
            len(prompt),
            num_shared,
            (
                *(
                    TurnTrace(len(tokenizer.encode(search.text)), len(observed(search, tokenizer)), search.query)
                    for search in run.searches
                ),
                TurnTrace(len(tokenizer.encode(run.last_text))),
            ),
        )
        for run, prompt in zip(trace.runs, prompts, strict=True)
    ]


def _lines(path: Path) -> Iterator[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return (json.loads(line) for line in text.splitlines() if line)


def _one_search(record: Mapping[str, str], shape: Shape) -> AgentRun | None:
    """Return a recorded run that searched once and answered; None for any other."""
    if record["response"].count("</search>") != 1 or not (written := _WRITTEN.fullmatch(record["response"].strip())):
        return None
    text, query, information, last_text = (group.strip() for group in written.groups())
    answer = _ANSWER.search(last_text)
    contents = tuple(f"{title}\n{body}"[: shape.passage_chars] for title, body in _PASSAGE.findall(information))
    if not query or "<" in query or not contents or not answer or not answer[1].strip() or "<answer>" in text:
        return None
    search = SearchTurn(_cut(text, shape.thought_chars), query, contents)
    return AgentRun(record["id"], record["question"], (search,), _cut(last_text[: answer.end()], shape.thought_chars))


def _cut(text: str, thought_chars: int | None) -> str:
    """Return a turn's text with at most so many characters before its action."""
    thought, tag, rest = text.partition("<answer>" if "<answer>" in text else "<search>")
    thought = _TAG.sub("", thought).strip()
    if thought_chars is None or len(thought) <= thought_chars:
        return text
    return f"<think> {thought[:thought_chars].strip()} </think> {tag}{rest}"
