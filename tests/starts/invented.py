"""A small world of invented towns, in the shape of real sets with evidence: packed files, ids, titles, steps."""

import gzip
import json
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TOWNS = ("Velmora", "Quistan", "Brenhollow", "Ostrava Keep", "Lindermark", "Thornwick", "Pellago", "Marrowby")
FOUNDERS = ("Ada Brill", "Ivo Castell", "Nuria Damm", "Otto Eskel", "Pia Fenn", "Rolf Gant", "Sela Hurn", "Tom Ibsley")
BIRTHPLACES = ("Karst", "Dunmere", "Ellisport", "Fallow", "Greywater", "Hollin", "Inverness Bay", "Jarrow End")
YEARS = tuple(range(1801, 1809))
TRAIN, TEST = range(6), range(6, 8)
"""Places of the towns that are trained on, and of those that are held out."""


def passages() -> list[dict[str, str]]:
    """A passage of each town and of its founder; ids count from 1."""
    rows = []
    for town, founder, birthplace, year in zip(TOWNS, FOUNDERS, BIRTHPLACES, YEARS, strict=True):
        texts = {
            town: f"{town} is a small town. The town of {town} was founded by {founder} in {year}. It has a mill.",
            founder: f"{founder} was a merchant. The merchant {founder} was born in {birthplace} and died at sea.",
        }
        rows += [{"contents": f'"{title}"\n{text}', "source": "invented"} for title, text in texts.items()]
    return [{"id": str(number), **row} for number, row in enumerate(rows, start=1)]


def of_one_hop(place: int, split: str) -> dict[str, Any]:
    """In what year a town was founded."""
    return {
        "id": f"one_{split}_{place}",
        "question": f"In what year was the town of {TOWNS[place]} founded?",
        "golden_answers": [str(YEARS[place])],
        "dataset": "squad",
        "source": "invented",
        "hops": 1,
        "supporting_titles": [TOWNS[place]],
        "gold_ids": [str(2 * place + 1)],
        "evidence": "gold",
    }


def of_two_hops(place: int, split: str) -> dict[str, Any]:
    """Where the founder of a town was born."""
    return {
        "id": f"two_{split}_{place}",
        "question": f"Where was the merchant who founded the town of {TOWNS[place]} born?",
        "golden_answers": [BIRTHPLACES[place], f"the town {BIRTHPLACES[place]}"],
        "dataset": "musique",
        "source": "invented",
        "hops": 2,
        "supporting_titles": [TOWNS[place], FOUNDERS[place]],
        "gold_ids": [str(2 * place + 1), str(2 * place + 2)],
        "evidence": "gold",
    }


def steps_of(place: int, split: str) -> dict[str, Any]:
    """The decomposition of a question of two hops, as MuSiQue has it."""
    return {
        "id": f"two_{split}_{place}",
        "question_decomposition": [
            {"id": 1, "question": f"{TOWNS[place]} >> founded by", "answer": FOUNDERS[place]},
            {"id": 2, "question": "Where was #1 born?", "answer": BIRTHPLACES[place]},
        ],
    }


def write_gz(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write JSON Lines, packed by gzip."""
    path.write_bytes(gzip.compress(_lines(rows)))
    return path


def write_world(folder: Path) -> Path:
    """Write ``{train,validation,test}.jsonl.gz`` and ``corpus.jsonl.xz``."""
    for split, places in (("train", TRAIN), ("test", TEST), ("validation", TRAIN[-1:])):
        rows = [kind(place, split) for place in places for kind in (of_one_hop, of_two_hops)]
        write_gz(folder / f"{split}.jsonl.gz", rows)
    (folder / "corpus.jsonl.xz").write_bytes(lzma.compress(_lines(passages())))
    return folder


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
