"""Our loop in verl's agent-loop worker, and verl's reward loop on what comes out, compared with the cases token by token.

Runs with verl's Python. The workers are verl's, in this process; vLLM alone is played, by script.
"""

import asyncio
import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from verl import DataProto  # type: ignore[import-not-found]
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker  # type: ignore[import-not-found]
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker  # type: ignore[import-not-found]
from verl.trainer.ppo.utils import create_rl_dataset  # type: ignore[import-not-found]
from verl.utils.dataset.rl_dataset import collate_fn  # type: ignore[import-not-found]
from verl.workers.rollout.replica import TokenOutput  # type: ignore[import-not-found]

from loadtests.verl.cases import BOUNDS, CASES, Case, case_asked_in
from loadtests.verl.expected import Expected, expected, logprob
from loadtests.verl.findings import Findings
from searchr1.export.verl import reward as packaged
from searchr1.export.verl.agent_loop import shared_retriever

STEP = 7
"""Number of the weights that the scripted server says it has."""


class ScriptedServers:
    """verl's client of its vLLM servers, with completions by script."""

    def __init__(self) -> None:
        self.tokenizer: Any = None
        """The worker's, which has to be there first."""
        self._turns: Counter[str] = Counter()
        self.asked: list[dict[str, Any]] = []
        """Sampling parameters of each completion."""

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> Any:
        """Return the next completion of the case that the prompt asks about."""
        self.asked.append(sampling_params)
        turn = self._turns[request_id]
        self._turns[request_id] += 1
        ids = encoded(self.tokenizer, case_asked_in(self.tokenizer.decode(prompt_ids)).turns[turn])
        logprobs = [logprob(turn, position) for position in range(len(ids))]
        weights = {"global_steps": STEP, "min_global_steps": STEP, "max_global_steps": STEP}
        return TokenOutput(token_ids=ids, log_probs=logprobs, stop_reason="completed", extra_fields=weights)


class Rollouts:
    """The cases, rolled out once by verl for a composed configuration."""

    def __init__(self, config: Any, retriever: str, findings: Findings) -> None:
        self._config, self._retriever, self._findings = config, retriever, findings

    async def check(self, *, validate: bool) -> None:
        """Run all cases in verl, as in training or in an evaluation, and compare what its trainer would get."""
        servers = ScriptedServers()
        worker = AgentLoopWorker(self._config, servers, None, [_as_handle(RewardLoopWorker(self._config))])
        servers.tokenizer = self._tokenizer = worker.tokenizer
        dataset = create_rl_dataset(self._config.data.train_files, self._config.data, worker.tokenizer, None)
        rows = [dataset[number] for number in range(len(dataset))]
        self._findings.same("questions in train.parquet", len(rows), len(CASES))
        batch = DataProto.from_single_dict(collate_fn(rows), meta_info={"validate": validate, "global_steps": STEP})
        batch.non_tensor_batch["uid"] = np.array([str(number) for number in range(len(rows))], dtype=object)
        out = await worker.generate_sequences(batch)
        await shared_retriever(self._retriever, asyncio.get_running_loop()).aclose()
        for number, row in enumerate(rows):
            case = case_asked_in(row["raw_prompt"][-1]["content"])
            wanted = self._expected(case).cut(BOUNDS["rollout.max_trajectory_tokens"])
            self._compare_tensors(case, row, {name: tensor[number].tolist() for name, tensor in out.batch.items()}, wanted)
            self._compare_notes(case, row, {name: array[number] for name, array in out.non_tensor_batch.items()}, wanted)
        asked = {(one["temperature"], one["logprobs"], one["include_stop_str_in_output"]) for one in servers.asked}
        self._findings.same("what vLLM is asked", asked, {(0 if validate else 1.0, True, True)})

    def _expected(self, case: Case) -> Expected:
        return expected(
            case,
            lambda text: encoded(self._tokenizer, text),
            lambda query: passages_at(self._retriever, query, BOUNDS["rollout.top_k"]),
            max_turns=BOUNDS["rollout.max_turns"],
            max_observation_tokens=BOUNDS["rollout.max_observation_tokens"],
        )

    def _compare_tensors(self, case: Case, row: dict[str, Any], got: dict[str, list[Any]], wanted: Expected) -> None:
        """Compare a row of verl's padded tensors: the prompt on the left, what followed on the right."""
        length, room = len(wanted.ids), self._config.data.max_response_length
        padding = [0] * (room - length)
        scores = [0.0] * room
        scores[length - 1] = case.reward
        chat = self._tokenizer.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
        prompt = encoded(self._tokenizer, chat)
        for what, values, right in (
            ("prompt", got["prompts"][-len(prompt) :], prompt),
            ("ids", got["responses"][:length], wanted.ids),
            ("mask", got["response_mask"], wanted.mask + padding),
            ("tokens that are there", got["attention_mask"][-room:], [1] * length + padding),
            ("logprobs", got["rollout_log_probs"], [*wanted.logprobs, *map(float, padding)]),
            ("scores", [round(score, 6) for score in got["rm_scores"]], scores),
        ):
            self._findings.same(f"{case.name}: {what}", values, right)

    def _compare_notes(self, case: Case, row: dict[str, Any], got: dict[str, Any], wanted: Expected) -> None:
        """Compare what our loop tells beside the tokens, and each reward by that with the one by the text alone."""
        told = got[packaged.COMPLETIONS]
        texts = [text for text, _ in wanted.completions]
        self._findings.same(f"{case.name}: what the policy wrote", json.loads(told), texts)
        self._findings.same(f"{case.name}: oldest weights", got["min_global_steps"], STEP)
        shown = self._tokenizer.decode(wanted.ids, skip_special_tokens=True)
        for name in packaged.REWARDS:
            by_told, by_text = (
                packaged.compute_score(row["data_source"], shown, row["reward_model"]["ground_truth"], extra, reward=name)
                for extra in ({packaged.COMPLETIONS: told}, None)
            )
            self._findings.same(f"{case.name}: {name} by the text alone", by_text, by_told)


def encoded(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of ``text`` by a tokenizer of transformers."""
    return [int(number) for number in tokenizer(text, add_special_tokens=False)["input_ids"]]


def passages_at(url: str, query: str, top_k: int) -> list[tuple[str, str]]:
    """Return titles and texts that the retriever gives for ``query``, asked as the reference asks."""
    body = {"queries": [query], "topk": top_k, "return_scores": True}
    [found] = httpx.post(url, json=body, timeout=30, trust_env=False).raise_for_status().json()["result"]
    parted = [entry["document"]["contents"].partition("\n") for entry in found]
    return [(title, text) for title, _, text in parted]


def _as_handle(worker: Any) -> Any:
    """Return a worker of this process in the form of a handle of Ray's."""
    return SimpleNamespace(compute_score=SimpleNamespace(remote=worker.compute_score))
