"""Measures how often a search finds the passage that it is for, hop by hop, on the Atlas demo corpus.

    .venv/bin/searchr1 demo build
    .venv/bin/python loadtests/recall.py
    .venv/bin/python loadtests/recall.py --encoder E5_FOLDER     # a dense index beside BM25

Every hop of a question is one search for one fact about one entity, and does not depend on the hops before it. It is
found if a passage that states the fact is among the first ones. The queries are the teacher's: its first words for a
fact, and the other words of its second try. The encoder is a folder with ``model.onnx`` and ``tokenizer.json``;
encoding the corpus takes most of the time.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from searchr1.atlas.questions import AtlasQuestion, read_questions
from searchr1.atlas.teacher import QUERIES
from searchr1.atlas.world import Country, World, load_world
from searchr1.loop.types import Passage
from searchr1.retrieval.index.bm25 import LocalIndex, build_index
from searchr1.retrieval.index.dense import DenseIndex, build_dense
from searchr1.retrieval.index.encoder import HuggingFaceEncoder

TOPICS = {
    "capital": "capital",
    "continent": "geography",
    "neighbour": "geography",
    "currency": "economy",
    "language": "languages",
}
"""The country passage that states a fact."""
BATCH = 256
COLUMNS = (("@1", 1, 0), ("@3", 3, 0), ("@3, other words", 3, 1))
"""Name, passages looked at, and which of the teacher's wordings."""

SearchBatch = Callable[[Sequence[str], int], list[list[Passage]]]


@dataclass(frozen=True, slots=True)
class Hop:
    """One search of a question: what is asked, and the ids of the passages that answer it."""

    number: int
    fact: str
    queries: tuple[str, str]
    """The teacher's wordings."""
    gold: frozenset[str]


def hops_of(world: World, question: AtlasQuestion) -> Iterator[Hop]:
    """Yield the searches of ``question``. Where several neighbours lead on, the first one is taken."""
    start, *facts = question.kind.split("-")
    country, phrase = _topic(world, start, question.entities[0])
    for number, fact in enumerate(facts, start=1):
        first, second = (wording.format(x=phrase) for wording in QUERIES[fact])
        yield Hop(number, fact, (first, second), _gold(world, fact, phrase, country))
        if fact == "neighbour" and country.neighbours:
            country = world.countries[country.neighbours[0]]
        phrase = country.capital if fact == "capital" else country.phrase


def _topic(world: World, start: str, phrase: str) -> tuple[Country, str]:
    if start == "city":
        return world.countries[world.city_named[phrase].country], phrase
    names = {"country": lambda country: country.phrase, "capital": lambda country: country.capital}
    return next(country for country in world.countries.values() if names[start](country) == phrase), phrase


def _gold(world: World, fact: str, phrase: str, country: Country) -> frozenset[str]:
    passages = {f"country-{country.code}-{TOPICS[fact]}"} if fact in TOPICS else set()
    capital = world.capital_city(country)
    if fact == "capital" and capital is not None:
        passages.add(f"city-{capital.id}")
    if fact not in TOPICS:
        city = world.city_named.get(phrase)
        passages |= {f"city-{city.id}"} if city is not None and city.country == country.code else set()
        passages |= {f"country-{country.code}-capital"} if fact == "country" and phrase == country.capital else set()
    return frozenset(passages)


def recall(hops: Sequence[Hop], search: SearchBatch, k: int, wording: int = 0) -> list[bool]:
    """Return for each hop, asked in that wording, whether one of its passages is among the first ``k``."""
    found: list[bool] = []
    for start in range(0, len(hops), BATCH):
        batch = hops[start : start + BATCH]
        answers = search([hop.queries[wording] for hop in batch], k)
        found += [any(p.id in hop.gold for p in answer) for hop, answer in zip(batch, answers, strict=True)]
    return found


def table(hops: Sequence[Hop], found: Mapping[str, Sequence[bool]]) -> str:
    """Return the Markdown table: a row for each hop number, each fact and all, the share found in each column."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, hop in enumerate(hops):
        for name in (f"hop {hop.number}", f"fact: {hop.fact}", "z"):
            groups[name].append(i)
    lines = [
        f"| | searches | {' | '.join(found)} |",
        "|---|" + "---:|" * (1 + len(found)),
    ]
    for name in sorted(groups, key=lambda name: (name == "z", not name.startswith("hop"), name)):
        rows = groups[name]
        cells = [f"{sum(column[i] for i in rows) / len(rows):.3f}" for column in found.values()]
        lines.append(f"| {'all' if name == 'z' else name} | {len(rows):,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(corpus: Path, hops: Sequence[Hop], encoder: Path | None) -> Iterator[tuple[str, list[bool]]]:
    """Build each index, search it, and yield each column's name and values; times go to standard output."""
    with tempfile.TemporaryDirectory() as folder:
        build_index(corpus, Path(folder) / "bm25")
        yield from _columns("BM25", hops, LocalIndex.open(Path(folder) / "bm25").search_batch)
        if encoder is not None:
            model = HuggingFaceEncoder(encoder)
            started = time.perf_counter()
            info = build_dense(corpus, Path(folder) / "dense", model)
            print(f"dense: {info.passages:,} passages encoded in {time.perf_counter() - started:.0f} s by {model.info}")
            yield from _columns("dense", hops, DenseIndex.open(Path(folder) / "dense", model).search_batch)


def _columns(name: str, hops: Sequence[Hop], search: SearchBatch) -> Iterator[tuple[str, list[bool]]]:
    started = time.perf_counter()
    yield from [(f"{name} {column}", recall(hops, search, k, wording)) for column, k, wording in COLUMNS]
    took_ms = 1000 * (time.perf_counter() - started) / len(hops) / len(COLUMNS)
    print(f"{name}: {took_ms:.2f} ms a search, in batches of {BATCH}")


def corpus_ids(corpus: Path) -> set[str]:
    """Return the ids of a corpus."""
    with corpus.open(encoding="utf-8") as lines:
        return {json.loads(line)["id"] for line in lines}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data/atlas"), help="the folder of `searchr1 demo build`")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--limit", type=int, default=2000, help="questions")
    parser.add_argument("--encoder", type=Path, help="a folder with model.onnx and tokenizer.json")
    options = parser.parse_args()
    world, corpus = load_world(), options.data / "corpus.jsonl"
    questions = list(read_questions(options.data / f"questions-{options.split}.jsonl"))[: options.limit]
    known = corpus_ids(corpus)
    hops = [hop for question in questions for hop in hops_of(world, question)]
    if lost := [hop for hop in hops if not hop.gold & known]:
        raise SystemExit(f"{len(lost)} searches are for passages that the corpus lacks, such as {lost[0]}")
    print(f"{len(questions):,} questions, {len(hops):,} searches, {len(known):,} passages")
    print(table(hops, dict(measure(corpus, hops, options.encoder))))


if __name__ == "__main__":
    main()
