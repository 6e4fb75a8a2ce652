"""Runs with trajectories, as a server would give them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from searchr1_client.events import Run

QUESTION = "Which currency is used in Mali"


def segment(kind: str, turn: int, ids: list[int], **more: Any) -> dict[str, Any]:
    """A segment whose mask fits its ids."""
    sampled = kind == "completion"
    mask = [1 if sampled else 0] * len(ids)
    text = f"{kind} {turn}"
    return {"kind": kind, "turn": turn, "text": text, "token_ids": ids, "loss_mask": mask} | more


def run_json(run_id: str = "run_1", **changes: Any) -> dict[str, Any]:
    """A run of one failed and one good search."""
    passage = {
        "id": "7",
        "title": '"Mali"',
        "text": "Mali uses the CFA franc.\nSince 1984.",
        "url": None,
        "score": 0.25,
    }
    searches = [
        {"turn": 1, "query": "Mali", "error": {"code": "timeout", "message": "too slow"}, "duration_ms": 9.5},
        {"turn": 2, "query": "Mali money", "passages": [passage], "cache": "stale", "age_s": 3.0, "duration_ms": 0.1},
    ]
    trajectory = {
        "question": QUESTION,
        "profile": "faithful",
        "options": {"max_turns": 4, "top_k": 3, "temperature": 1.0, "seed": 7},
        "segments": [
            segment("prompt", 0, [1, 2, 3]),
            segment("completion", 1, [40, 50], sampled_ids=[45], logprobs=[-0.125]),
            segment("observation", 1, [6, 7, 8]),
            segment("completion", 2, [150_000], sampled_ids=[150_000, 13], logprobs=[-1.5, -1e-9]),
        ],
        "searches": searches,
        "timings": {"completions_ms": [1.5, 2.5], "searches_ms": [9.5, 0.1], "early_ms": [0.0, 0.0], "total_ms": 14.0},
    }
    run: dict[str, Any] = {
        "id": run_id,
        "created": 1_800_000_000,
        "model": "demo",
        "question": QUESTION,
        "status": "completed",
        "answer": "CFA franc",
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "turns": 2, "searches": 2},
        "trajectory": trajectory,
    }
    return run | changes


def a_run(run_id: str = "run_1", **changes: Any) -> Run:
    """``run_json``, parsed."""
    return Run.model_validate(run_json(run_id, **changes))


def write_lines(path: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    """A JSON Lines file; a text stands as it is."""
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path
