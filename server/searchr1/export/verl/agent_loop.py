"""Search-R1's rollout inside verl: the loop that Search-R1 Serve serves, on verl's own engine.

verl makes one ``SearchLoop`` for each trajectory, by the file that ``rollout.agent.agent_loop_config_path`` names, and
awaits its ``run``. Prompt, observations, bounds and masks are then those of serving, and a checkpoint that verl
trains is served as it is. Source of the interface: ``verl/experimental/agent_loop/agent_loop.py``.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any, Protocol
from uuid import uuid4

from searchr1.driver import DriveOptions, DriveStats, drive_to_end
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import EngineError
from searchr1.export.verl.reward import COMPLETIONS
from searchr1.loop.machine import Rollout
from searchr1.loop.types import FinishReason, Limits, Segment, TokenIds
from searchr1.retrieval.providers.retrieve import RetrieveClient
from searchr1.rollout import start_rollout_of_message
from searchr1.tokenizer import Tokenizer

OLDEST_WEIGHTS = "min_global_steps"
"""verl's name for the step whose weights sampled a trajectory's first tokens."""

load_tokenizer = lru_cache(maxsize=1)(Tokenizer.load)
"""Loads a tokenizer once for all loops of a process: verl makes a loop for each trajectory, all of the same model."""


@lru_cache(maxsize=1)
def shared_retriever(url: str, loop: asyncio.AbstractEventLoop) -> RetrieveClient:
    """Return the retriever's one client in a process, so that trajectories share a bounded pool of connections.

    Connections belong to an event loop, of which verl's workers have one for as long as they live. Nobody closes the
    client; it ends with the process.
    """
    return RetrieveClient(url)


class Server(Protocol):
    """The part of verl's ``LLMServerClient`` that is used."""

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        """Return one completion: ``token_ids``, ``log_probs``, ``stop_reason`` and ``extra_fields``."""
        ...


class ServerEngine:
    """An ``Engine`` on verl's servers. A completion comes whole, as one chunk."""

    def __init__(self, server: Server, tokenizer: Tokenizer) -> None:
        self.extra_fields: dict[str, Any] = {}
        """verl's own notes on the completions, such as the step whose weights sampled them."""
        self._server, self._tokenizer = server, tokenizer

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``Engine.generate``. verl's servers stop at ``params.stop`` and know no other ``priority``.

        Raises:
            EngineError: verl aborted it.
        """
        sampling = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_tokens,
            "stop": list(params.stop),
            "include_stop_str_in_output": True,
            "logprobs": params.logprobs,
        }
        output = await self._server.generate(session, prompt_ids=list(prompt_ids), sampling_params=sampling)
        self._keep(output.extra_fields)
        ids = tuple(output.token_ids)
        if output.stop_reason == "aborted":  # By verl, on purpose: it is not to be asked for again.
            raise EngineError("verl aborted the completion")
        logprobs = tuple(output.log_probs) if output.log_probs else None
        text = self._tokenizer.decode(ids)
        ends = [at + len(stop) for stop in params.stop if (at := text.find(stop)) >= 0]
        finish: FinishReason = "stop" if ends or len(ids) < params.max_tokens else "length"
        yield Chunk(text[: min(ends, default=len(text))], ids, finish, logprobs)

    def _keep(self, notes: dict[str, Any]) -> None:
        """Keep verl's notes on a completion; where weights changed between turns, the oldest count as the oldest."""
        oldest = self.extra_fields.get(OLDEST_WEIGHTS, notes.get(OLDEST_WEIGHTS))
        self.extra_fields |= notes
        if oldest is not None:
            self.extra_fields[OLDEST_WEIGHTS] = oldest


class SearchLoop:
    """One trajectory. The arguments beside ``Limits``' fields are verl's, which passes more than are used."""

    def __init__(
        self,
        trainer_config: Any,
        server_manager: Server,
        *,
        retriever: str,
        top_k: int,
        search_timeout_s: float,
        max_turns: int,
        max_completion_tokens: int,
        max_observation_tokens: int,
        max_context_tokens: int,
        max_searches: int | None = None,
        **_: Any,
    ) -> None:
        policy = trainer_config.config.actor_rollout_ref
        self._tokenizer = load_tokenizer(policy.model.path)
        self._server, self._retriever = server_manager, retriever
        self._top_k, self._search_timeout_s = top_k, search_timeout_s
        self._limits = Limits(
            max_turns=max_turns,
            max_searches=max_searches,
            max_completion_tokens=max_completion_tokens,
            max_observation_tokens=max_observation_tokens,
            max_context_tokens=max_context_tokens,
            max_trajectory_tokens=policy.rollout.response_length,
        )

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> Any:
        """Answer ``row["raw_prompt"]``, the messages of verl's data set; verl's ``AgentLoopOutput``.

        Raises:
            EngineError: the engine failed, or verl aborted the completion.
        """
        from verl.experimental.agent_loop.agent_loop import AgentLoopOutput  # type: ignore[import-not-found]

        rollout, engine = self._start(row["raw_prompt"]), ServerEngine(self._server, self._tokenizer)
        started, stats = time.perf_counter(), DriveStats()
        await self._drive(rollout, engine, sampling_params, stats)
        generating_s = sum(stats.completion_s)
        return AgentLoopOutput(
            **trajectory(rollout, with_logprobs=bool(sampling_params.get("logprobs"))),
            num_turns=2 * rollout.num_turns,
            metrics={"generate_sequences": generating_s, "tool_calls": time.perf_counter() - started - generating_s},
            extra_fields={
                **engine.extra_fields,
                "turn_scores": [],
                "tool_rewards": [],
                COMPLETIONS: json.dumps(completions(rollout)),
            },
        )

    def _start(self, messages: Any) -> Rollout:
        message = messages[-1]["content"]
        return start_rollout_of_message(message, self._tokenizer, limits=self._limits, keep_sampled=True)

    async def _drive(
        self, rollout: Rollout, engine: ServerEngine, sampling_params: dict[str, Any], stats: DriveStats
    ) -> None:
        options = DriveOptions(
            session=uuid4().hex,
            temperature=sampling_params["temperature"],
            top_p=sampling_params["top_p"],
            top_k=self._top_k,
            search_timeout_s=self._search_timeout_s,
            logprobs=bool(sampling_params.get("logprobs")),
        )
        retriever = shared_retriever(self._retriever, asyncio.get_running_loop())
        driven = await drive_to_end(rollout, engine, retriever, options, stats)
        if driven.engine_error is not None:
            raise driven.engine_error


def trajectory(rollout: Rollout, *, with_logprobs: bool) -> dict[str, Any]:
    """Return the token fields of verl's ``AgentLoopOutput``, cut at ``limits.max_trajectory_tokens`` after the prompt.

    A logprob is 0 for what was put in, and for the few sampled tokens that the loop replaced at a turn's end.
    """
    prompt, *rest = rollout.segments
    cut = rollout.limits.max_trajectory_tokens
    fields: dict[str, Any] = {
        "prompt_ids": list(prompt.ids),
        "response_ids": [i for segment in rest for i in segment.ids][:cut],
        "response_mask": [int(segment.sampled) for segment in rest for _ in segment.ids][:cut],
    }
    if with_logprobs:
        fields["response_logprobs"] = [logprob for segment in rest for logprob in _logprobs(segment)][:cut]
    return fields


def completions(rollout: Rollout) -> list[str]:
    """Return the texts that the policy wrote, turn by turn, as far as they fit whole before the cut."""
    texts, left = [], rollout.limits.max_trajectory_tokens
    for segment in rollout.segments[1:]:
        left -= len(segment.ids)
        if left < 0:
            break
        if segment.kind == "completion":
            texts.append(segment.text)
    return texts


def _logprobs(segment: Segment) -> list[float]:
    known = list(segment.logprobs or ())[: segment.num_verbatim]
    return known + [0.0] * (len(segment.ids) - len(known))
