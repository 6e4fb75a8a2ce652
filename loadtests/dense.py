"""Measures the dense index: size on disk, and the latency of one search and of a batch, encoding left out.

    .venv/bin/python loadtests/dense.py --passages 1000000

The vectors are random, as long as E5-small's and MiniLM's (384): the index compares a query with every one of them, so
what they say changes nothing in its cost.

Seen on one core, a million passages: 1.4 GiB on disk, one search in 64 ms, a batch of 64 searches in 0.76 s. With
``--precision float16`` 100,000 passages take 79 ms for one search, and 7 ms without.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from searchr1.retrieval.index.dense import VECTORS, DenseIndex, build_dense
from searchr1.retrieval.index.encoder import EncoderInfo, EncoderSettings

TOP_K = 3
BATCH = 64


class RandomEncoder:
    """Gives each text some unit vector."""

    def __init__(self, dimension: int) -> None:
        self.info = EncoderInfo("random", dimension, EncoderSettings())
        self._draw = np.random.default_rng(0)

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See ``Encoder.encode_queries``."""
        vectors = self._draw.standard_normal((len(texts), self.info.dimension), np.float32)
        unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    encode_passages = encode_queries


def measure_ms(index: DenseIndex, queries: int, rounds: int) -> list[float]:
    """Return the time of each of ``rounds`` calls with so many queries, in milliseconds."""
    taken: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        index.search_batch(["query"] * queries, TOP_K)
        taken.append(1000 * (time.perf_counter() - started))
    return taken


def main() -> None:
    """Print the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--precision", choices=("float16", "float32"), default="float32")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    encoder = RandomEncoder(options.dimension)
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus.jsonl", Path(folder) / "dense"
        with corpus.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": str(i), "contents": "T\ntext"}) + "\n" for i in range(options.passages))
        build_dense(corpus, out, encoder, precision=options.precision)
        print(f"vectors on disk: {(out / VECTORS).stat().st_size / 2**20:,.0f} MiB")
        index = DenseIndex.open(out, encoder)
        measure_ms(index, 1, 1)
        for queries in (1, BATCH):
            taken = measure_ms(index, queries, options.rounds)
            print(f"{queries:>3} queries: median {statistics.median(taken):,.0f} ms, worst {max(taken):,.0f} ms")


if __name__ == "__main__":
    main()
