"""Scores a served demo in conversations: questions alone, with a system message, after another one, elliptical.

    .venv/bin/searchr1 serve --demo
    .venv/bin/python loadtests/conversations.py --url http://127.0.0.1:8000

The questions are the same in all four forms; `searchr1 demo build` writes them. They are sent as messages to
``/v1/chat/completions``. Then come messages that are no questions for the demo, which it should answer in one turn.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from searchr1.evaluation.metrics import exact_match

FORMS = ("alone", "system", "history", "follow-up")
CHATTER = (
    *("Hello", "hi there", "Good morning to you", "Thanks!", "Who are you?", "What can you do?", "What is 2+2?"),
    *("Who wrote Hamlet?", "Who won the world cup in 2018?", "Tell me a long story", "Write a haiku about autumn"),
    *(
        "How do I bake bread?",
        "import numpy as np\nprint(np.zeros(3))",
        "Was ist der Sinn des Lebens?",
        "¿Qué hora es?",
    ),
)


def questions(folder: Path, form: str, limit: int) -> list[dict[str, Any]]:
    """Read the questions of a form, as messages with their golden answers."""
    name = "questions-test.jsonl" if form == "alone" else f"questions-test-{form}.jsonl"
    rows = [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()[:limit]]
    return [{"messages": [{"role": "user", "content": row["question"]}], **row} for row in rows]


async def ask(client: httpx.AsyncClient, model: str, messages: list[dict[str, str]]) -> tuple[str, int]:
    """Return the answer and the number of searches."""
    body = {"model": model, "messages": messages}
    response = await client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    completion = response.json()
    usage = completion.get("usage") or {}
    return completion["choices"][0]["message"]["content"] or "", usage.get("num_searches") or 0


async def main(url: str, folder: Path, forms: list[str], limit: int, concurrency: int) -> None:
    """Ask everything and print the scores."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        gate = asyncio.Semaphore(concurrency)

        async def score(row: dict[str, Any]) -> bool:
            async with gate:
                answer, _ = await ask(client, model, row["messages"])
            return exact_match(answer, row["golden_answers"])

        for form in forms:
            right = await asyncio.gather(*(score(row) for row in questions(folder, form, limit)))
            print(f"{form:10} {len(right):4} questions  EM {sum(right) / len(right):.3f}", flush=True)
        for text in CHATTER:
            answer, searches = await ask(client, model, [{"role": "user", "content": text}])
            print(f"{searches} searches  {text[:40]!r:44} {answer[:70]!r}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--folder", type=Path, default=Path("data/atlas"))
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=FORMS)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=32)
    args = parser.parse_args()
    asyncio.run(main(args.url, args.folder, args.forms, args.limit, args.concurrency))
