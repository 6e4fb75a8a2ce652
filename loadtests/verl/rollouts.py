"""What verl makes of the cases with our loop and our reward, compared token by token with what the texts give.

Runs with verl's Python.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from verl.trainer.ppo.utils import create_rl_dataset  # type: ignore[import-not-found]
from verl.utils import hf_tokenizer  # type: ignore[import-not-found]

from loadtests.verl.cases import BOUNDS, CASES, Case, case_asked_in
from loadtests.verl.expected import Expected, expected
from loadtests.verl.findings import Findings
from loadtests.verl.workers import STEP, Row, ScriptedServers, encoded, padded, queued
from searchr1.export.verl import reward as packaged
from searchr1.export.verl.agent_loop import shared_retriever

Worker = Callable[..., Awaitable[list[Row]]]


class Comparison:
    """The cases in a composed configuration, as verl's data set reads them."""

    def __init__(self, config: Any, retriever: str, findings: Findings) -> None:
        self._config, self._retriever, self._findings = config, retriever, findings
        self._tokenizer = hf_tokenizer(config.actor_rollout_ref.model.path)
        dataset = create_rl_dataset(config.data.train_files, config.data, self._tokenizer, None)
        self._rows = [dataset[number] for number in range(len(dataset))]
        asked = [case_asked_in(row["raw_prompt"][-1]["content"]).name for row in self._rows]
        findings.same("questions in train.parquet", sorted(asked), sorted(case.name for case in CASES))

    async def check(self) -> int:
        """Run both workers in training and in evaluation; return the number of trajectories."""
        group_size = self._config.actor_rollout_ref.rollout.n
        each = ((queued, False, group_size), (queued, True, 1), (padded, False, 1), (padded, True, 1))
        counts = [await self._check(worker, validate, num_each) for worker, validate, num_each in each]
        await shared_retriever(self._retriever, asyncio.get_running_loop()).aclose()
        return sum(counts)

    async def _check(self, worker: Worker, validate: bool, num_each: int) -> int:
        where = f"{worker.__name__}, {'evaluation' if validate else 'training'}"
        servers = ScriptedServers()
        # A loop changes what it is given of a row.
        found = await worker(self._config, servers, [dict(row) for row in self._rows], validate=validate)
        self._findings.same(f"{where}: trajectories", len(found), num_each * len(self._rows))
        for number, got in enumerate(found):
            row = self._rows[number // num_each]
            case = case_asked_in(row["raw_prompt"][-1]["content"])
            self._compare(f"{where}, {case.name}", case, row, got)
        asked = {(one["temperature"], one["logprobs"], one["include_stop_str_in_output"]) for one in servers.asked}
        self._findings.same(f"{where}: what vLLM is asked", asked, {(0 if validate else 1.0, True, True)})
        return len(found)

    def _compare(self, where: str, case: Case, row: dict[str, Any], got: Row) -> None:
        """Compare the tokens of one trajectory, what is told beside them, and its rewards."""
        wanted = self._expected(case)
        chat = self._tokenizer.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
        told = got.notes[packaged.COMPLETIONS]
        for what, value, right in (
            ("prompt", got.prompt, encoded(self._tokenizer, chat)),
            ("ids", got.ids, wanted.ids),
            ("mask", got.mask, wanted.mask),
            ("logprobs", got.logprobs, wanted.logprobs),
            ("scores", [round(score, 6) for score in got.scores], [0.0] * (len(wanted.ids) - 1) + [case.reward]),
            ("padding", got.padding, 0),
            ("what the policy wrote", json.loads(told), [text for text, _ in wanted.completions]),
            ("oldest weights", got.notes["min_global_steps"], STEP),
        ):
            self._findings.same(f"{where}: {what}", value, right)
        shown = self._tokenizer.decode(wanted.ids, skip_special_tokens=True)
        truth = row["reward_model"]["ground_truth"]
        for name in packaged.REWARDS:
            by_told, by_text = (
                packaged.compute_score(row["data_source"], shown, truth, extra, reward=name)
                for extra in ({packaged.COMPLETIONS: told}, None)
            )
            self._findings.same(f"{where}: {name} by the text alone", by_text, by_told)

    def _expected(self, case: Case) -> Expected:
        whole = expected(
            case,
            lambda text: encoded(self._tokenizer, text),
            lambda query: passages_at(self._retriever, query, BOUNDS["rollout.top_k"]),
            max_turns=BOUNDS["rollout.max_turns"],
            max_observation_tokens=BOUNDS["rollout.max_observation_tokens"],
        )
        return whole.cut(BOUNDS["rollout.max_trajectory_tokens"])


def passages_at(url: str, query: str, top_k: int) -> list[tuple[str, str]]:
    """Return titles and texts that the retriever gives for ``query``, asked as the reference asks."""
    body = {"queries": [query], "topk": top_k, "return_scores": True}
    [found] = httpx.post(url, json=body, timeout=30, trust_env=False).raise_for_status().json()["result"]
    parted = [entry["document"]["contents"].partition("\n") for entry in found]
    return [(title, text) for title, _, text in parted]
