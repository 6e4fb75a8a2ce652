"""A logits processor for vLLM that makes every completion follow a script: ``--logits-processors`` names its class.

The environment names the script and the checkpoint. It costs the engine one
decoding of the prompt a request, and a tensor operation a step.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from loadtests.agents.script import CHECKPOINT, SCRIPT, Script

_BIAS = 1e9
_Written = tuple[Sequence[int], list[int]]
"""The ids to write, and those that were written."""


class Scripted(LogitsProcessor):
    """The next token of each request is the next one of its script, and after its end the end of the text."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """See ``LogitsProcessor``."""
        self._script = Script.read(Path(os.environ[SCRIPT]))
        self._tokenizer = Tokenizer.from_file(str(Path(os.environ[CHECKPOINT]) / "tokenizer.json"))
        self._device = device
        self._requests: dict[int, _Written] = {}

    def is_argmax_invariant(self) -> bool:
        """See ``LogitsProcessor``."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """See ``LogitsProcessor``."""
        process_dict_updates(self._requests, batch_update, self._begin)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """See ``LogitsProcessor``."""
        if self._requests:
            rows = torch.tensor(list(self._requests), device=self._device)
            ids = torch.tensor([self._next(*request) for request in self._requests.values()], device=self._device)
            logits[rows, ids] += _BIAS
        return logits

    def _begin(self, params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]) -> _Written | None:
        prompt = self._tokenizer.decode(prompt_ids or [], skip_special_tokens=False)
        ids = self._script.ids_left(prompt, prompt_ids or [])
        return None if ids is None else (ids, output_ids)

    def _next(self, ids: Sequence[int], output_ids: list[int]) -> int:
        return ids[len(output_ids)] if len(output_ids) < len(ids) else self._script.eos_id
