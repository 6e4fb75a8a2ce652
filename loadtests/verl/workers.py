"""verl's two agent-loop workers over rows of its data set, in this process: no Ray, vLLM and the queue are played.

Runs with verl's Python. ``queued`` is what verl 0.9 trains with, ``padded`` what its earlier trainer does
(``trainer.use_v1=false``). Both reward by verl's reward loop.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from verl import DataProto  # type: ignore[import-not-found]
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker  # type: ignore[import-not-found]
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker  # type: ignore[import-not-found]
from verl.trainer.ppo.v1 import agent_loop_tq  # type: ignore[import-not-found]
from verl.utils import tensordict_utils  # type: ignore[import-not-found]
from verl.utils.dataset.rl_dataset import collate_fn  # type: ignore[import-not-found]
from verl.workers.rollout.replica import TokenOutput  # type: ignore[import-not-found]

from loadtests.verl.cases import case_asked_in
from loadtests.verl.expected import logprob

STEP = 7
"""Number of the weights that the scripted server says it has."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trajectory as verl's trainer gets it, without padding."""

    prompt: list[int]
    ids: list[int]
    mask: list[int]
    logprobs: list[float]
    scores: list[float]
    notes: dict[str, Any]
    """What our loop tells beside the tokens."""
    padding: float = 0.0
    """Sum of masks, logprobs and scores past the end, which has to be 0."""


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


@dataclass(slots=True)
class Queue:
    """The part of verl's TransferQueue that a worker of agent loops calls."""

    rows: dict[str, Any] = field(default_factory=dict)
    """Trajectories by their key: the question's, the rollout's number, 0."""
    statuses: dict[str, str] = field(default_factory=dict)
    """Of questions, by their key."""

    def init(self) -> None:
        """Need nothing."""

    async def async_kv_put(self, *, key: str, tag: dict[str, Any], **_: Any) -> None:
        """Keep a question's status."""
        self.statuses[key] = tag["status"]

    async def async_kv_batch_put(self, *, keys: Sequence[str], fields: Any, **_: Any) -> None:
        """Keep trajectories."""
        self.rows |= {key: fields[number] for number, key in enumerate(keys)}


async def padded(config: Any, servers: ScriptedServers, rows: Sequence[dict[str, Any]], *, validate: bool) -> list[Row]:
    """Return one trajectory of each row, by the worker that gives padded tensors back."""
    worker = AgentLoopWorker(config, servers, None, [_as_handle(RewardLoopWorker(config))])
    servers.tokenizer = worker.tokenizer
    batch = DataProto.from_single_dict(collate_fn(rows), meta_info={"validate": validate, "global_steps": STEP})
    batch.non_tensor_batch["uid"] = _names(len(rows))
    out = await worker.generate_sequences(batch)
    width = config.data.max_response_length
    found = []
    for number in range(len(rows)):
        got = {name: tensor[number].tolist() for name, tensor in out.batch.items()}
        is_there = got["attention_mask"]
        num_ids, num_prompt = sum(is_there[-width:]), sum(is_there[:-width])
        mask, logprobs, scores = (got[name] for name in ("response_mask", "rollout_log_probs", "rm_scores"))
        found.append(
            Row(
                prompt=got["prompts"][len(got["prompts"]) - num_prompt :],
                ids=got["responses"][:num_ids],
                mask=mask[:num_ids],
                logprobs=logprobs[:num_ids],
                scores=scores[:num_ids],
                notes={name: array[number] for name, array in out.non_tensor_batch.items()},
                padding=sum(abs(value) for values in (mask, logprobs, scores) for value in values[num_ids:]),
            )
        )
    return found


async def queued(config: Any, servers: ScriptedServers, rows: Sequence[dict[str, Any]], *, validate: bool) -> list[Row]:
    """Return the trajectories of each row, ``rollout.n`` in training, by the worker that puts them into a queue.

    Raises:
        RuntimeError: verl tells that a question failed.
    """
    queue = agent_loop_tq.tq = Queue()
    worker = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class(
        config, servers, None, [_as_handle(RewardLoopWorker(config))]
    )
    servers.tokenizer = worker.tokenizer
    collated = collate_fn(rows) | {"uid": _names(len(rows))}
    batch = tensordict_utils.get_tensordict(collated)
    tensordict_utils.assign_non_tensor_data(batch, "global_steps", STEP)
    if validate:
        tensordict_utils.assign_non_tensor_data(batch, "validate", True)
    await worker.generate_sequences(batch)
    await asyncio.gather(*worker.background_tasks)
    if failed := [name for name, status in queue.statuses.items() if status != "finished"]:
        raise RuntimeError(f"verl's worker failed at the questions {failed}; its log says why")
    keys = sorted(queue.rows, key=lambda key: tuple(map(int, key.split("_"))))
    return [_of_queue(queue.rows[key]) for key in keys]


def _of_queue(got: Any) -> Row:
    return Row(
        prompt=got["prompts"].tolist(),
        ids=got["responses"].tolist(),
        mask=got["response_mask"].tolist(),
        logprobs=got["rollout_log_probs"].tolist(),
        scores=got["rm_scores"].tolist(),
        notes=dict(got["extra_fields"]),
    )


def _names(count: int) -> Any:
    return np.array([str(number) for number in range(count)], dtype=object)


def _as_handle(worker: Any) -> Any:
    """Return a worker of this process in the form of a handle of Ray's."""
    return SimpleNamespace(compute_score=SimpleNamespace(remote=worker.compute_score))


def encoded(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of ``text`` by a tokenizer of transformers."""
    return [int(number) for number in tokenizer(text, add_special_tokens=False)["input_ids"]]
