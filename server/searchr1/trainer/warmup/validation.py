"""Validation by doing: a checkpoint answers questions through the real loop with real retrieval, without a server."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from tqdm import tqdm
from transformers import Qwen2ForCausalLM

from searchr1.driver import DriveOptions, drive_to_end
from searchr1.engines.base import Engine
from searchr1.engines.transformers.engine import TransformersEngine
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.metrics import exact_match
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Limits
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.rollout import start_rollout
from searchr1.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One validated question and the finished rollout that tried to answer it."""

    question: Question
    rollout: Rollout

    @property
    def right(self) -> bool:
        """Exact match of the answer with any golden answer."""
        return exact_match(self.rollout.answer, self.question.golden_answers)


def validate_checkpoint(
    checkpoint: Path, index: Path, questions: Sequence[Question], *, closed_book: bool = False, progress: bool = True
) -> list[Attempt]:
    """Answer ``questions`` greedily with the model in ``checkpoint``, searching ``index`` unless ``closed_book``."""
    model = Qwen2ForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model.train(False)
    tokenizer = Tokenizer.load(str(checkpoint))
    engine = TransformersEngine(model, tokenizer, end_ids=frozenset({cast(int, model.config.eos_token_id)}))
    limits = Limits(max_searches=0) if closed_book else Limits()

    async def answer_all() -> list[Attempt]:
        retriever = LocalIndex.open(index).retriever()
        try:
            return [
                Attempt(question, await answer(question.question, engine, retriever, tokenizer, limits=limits))
                for question in tqdm(questions, desc="validating", disable=not progress)
            ]
        finally:
            await retriever.aclose()

    return asyncio.run(answer_all())


async def answer(
    question: str, engine: Engine, retriever: Retriever, tokenizer: Tokenizer, *, limits: Limits | None = None
) -> Rollout:
    """Run one question greedily to its end and return the rollout."""
    rollout = start_rollout(question, tokenizer, limits=limits)
    await drive_to_end(rollout, engine, retriever, DriveOptions("validation", temperature=0.0))
    return rollout
