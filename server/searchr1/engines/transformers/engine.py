"""The transformers engine, for machines without vLLM: it runs in this process and batches continuously.

All completions under way take each step together, in a thread of the engine's own; new ones join between steps, at
most ``PREFILL_TOKENS`` of their prompts a step, so that none waits long for another's prompt. Slower than vLLM, and
without its prefix cache across turns; what comes out is the same: text, ids, logprobs and reasons to finish.
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from searchr1.engines.base import Chunk, EngineHealth, SamplingParams, TakesWeights
from searchr1.engines.transformers.batching import DecodeBatch, sample
from searchr1.engines.transformers.completion import Completion
from searchr1.engines.transformers.shaping import shaped
from searchr1.errors import ConfigurationError, EngineClosedError, EngineError, EngineUnavailableError
from searchr1.loop.types import TokenIds
from searchr1.tokenizer import Tokenizer

PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, that are read between two steps; one longer prompt is read whole."""


class TransformersEngine(TakesWeights):
    """An engine on a model that is already loaded, which it takes over; ``load`` loads one, ``aclose`` ends its thread.

    Args:
        model: one whose layers all attend to the whole context.
        tokenizer: the checkpoint's.
        end_ids: tokens that end a completion.
        max_batch: completions that run at once; more wait, the lowest ``priority`` first.
        kv_cache_gib: memory of keys and values that admission stays within, for the longest that each may become.

    Raises:
        ConfigurationError: the model has layers of another kind.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        end_ids: frozenset[int],
        max_batch: int = 64,
        kv_cache_gib: float = 4.0,
    ) -> None:
        _check(model)
        self.version: str | None = None
        """Version of the weights, once some were taken."""
        config: Any = model.config
        self._model, self._tokenizer, self._end_ids = model, tokenizer, end_ids
        self._max_len: int = config.max_position_embeddings
        self._vocab_size: int = config.vocab_size
        self._batch, self._max_batch = DecodeBatch(model), max_batch
        self._cache_tokens = int(kv_cache_gib * 2**30) // self._batch.bytes_per_token()
        self._numbers = itertools.count()
        # Of the event loop's side.
        self._open: set[Completion] = set()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        # Of the thread's side: it alone touches the model and these.
        self._thread = ThreadPoolExecutor(1, "transformers-engine")
        self._inbox: SimpleQueue[Completion] = SimpleQueue()
        self._waiting: list[tuple[int, int, Completion]] = []
        self._active: list[Completion] = []

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        max_batch: int = 64,
        kv_cache_gib: float = 4.0,
    ) -> Self:
        """Serve the Hugging Face folder or hub name ``folder``; ``dtype`` is the checkpoint's own by default.

        Completions end where vLLM ends them: at the end tokens of ``config.json`` and ``generation_config.json``.

        Raises:
            ConfigurationError: there is no such model, or it is of another kind.
        """
        tokenizer = Tokenizer.load(str(folder))
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"there is no model in {folder}: {error}") from error
        end_ids = frozenset(_ids(model.config.eos_token_id)) | frozenset(_ids(model.generation_config.eos_token_id))
        return cls(model.to(device), tokenizer, end_ids=end_ids, max_batch=max_batch, kv_cache_gib=kv_cache_gib)

    async def health(self) -> EngineHealth:
        """Return whether a request would be taken now. Never raises."""
        return EngineHealth(ok=False, reason="stopped") if self._closed else EngineHealth(ok=True)

    async def aclose(self) -> None:
        """End the thread. Running completions end with ``EngineClosedError``."""
        self._closed = True
        if self._worker is not None and not self._worker.done():
            self._worker.cancel()
            await asyncio.wait({self._worker})
        for sequence in self._open:
            sequence.out.put_nowait(EngineClosedError("the engine has been closed"))
        await asyncio.to_thread(self._thread.shutdown)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion; see ``Engine``. ``session`` changes nothing here. Closing the iterator frees its row.

        A completion that the model's longest context cuts ends for its length.

        Raises:
            EngineClosedError: the engine is closed.
            EngineError: it refused the request or failed at it.
        """
        if self._closed:
            raise EngineClosedError("the engine has been closed")
        room = self._max_len - len(prompt_ids)
        if not prompt_ids or room <= 0 or min(prompt_ids) < 0 or max(prompt_ids) >= self._vocab_size:
            raise EngineError(
                f"the engine refused the request: a prompt has 1 to {self._max_len - 1} ids below {self._vocab_size}"
            )
        sequence = Completion(prompt_ids, params, min(params.max_tokens, room), priority, next(self._numbers))
        self._open.add(sequence)
        try:
            self._inbox.put(sequence)
            if self._worker is None or self._worker.done():
                self._worker = asyncio.create_task(self._work(), name="transformers-engine")
            while True:
                piece = await sequence.out.get()
                if isinstance(piece, EngineUnavailableError):
                    raise piece
                if isinstance(piece, Exception):
                    raise EngineError(f"the engine failed at the completion: {piece}") from piece
                yield piece
                if piece.finish is not None:
                    return
        finally:
            sequence.left = True
            self._open.discard(sequence)

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Replace the weights by those in ``folder``, a checkpoint of the same architecture.

        Completions that are running stand still meanwhile and go on with the new weights: what they hold of keys and
        values is computed anew. Without an ``EngineError``, which leaves the old weights, ``version`` is theirs.

        Raises:
            EngineClosedError: the engine is closed.
            EngineError: the folder does not fit.
        """
        if self._closed:
            raise EngineClosedError("the engine has been closed")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._replace_weights, folder)
        except (OSError, ValueError, SafetensorError) as error:
            raise EngineError(f"the engine can't take the weights in {folder}: {error}") from error
        self.version = version

    async def _work(self) -> None:
        """Step until there is nothing left to do."""
        loop = asyncio.get_running_loop()
        busy = True
        while busy or not self._inbox.empty():
            try:
                pieces, busy = await loop.run_in_executor(self._thread, self._step)
            except Exception as error:  # noqa: BLE001 - the boundary to the model: those who wait must hear of it
                self._waiting.clear()
                self._active.clear()
                self._batch.clear()
                for sequence in self._open:
                    sequence.out.put_nowait(error)
                return
            for sequence, chunk in pieces:
                sequence.out.put_nowait(chunk)

    def _step(self) -> tuple[list[tuple[Completion, Chunk]], bool]:
        """Admit, sample one token in every row, and free those that end; also tells whether any go on."""
        for row in reversed(range(len(self._active))):
            if self._active[row].left:
                self._free(row)
        self._admit()
        if not self._active:
            return [], bool(self._waiting)
        logits = self._batch.step([sequence.last_id for sequence in self._active])
        params = [sequence.params for sequence in self._active]
        tokens, logprobs = sample(
            shaped(logits, self._active),
            [each.temperature for each in params],
            [each.top_p for each in params],
            [sequence.uniform for sequence in self._active],
            model_logits=logits,
        )
        pieces = []
        for row in reversed(range(len(self._active))):
            sequence = self._active[row]
            chunk = sequence.add(tokens[row], logprobs[row], self._tokenizer, self._end_ids)
            if chunk is not None:
                pieces.append((sequence, chunk))
                if chunk.finish is not None:
                    self._free(row)
        return pieces, bool(self._active or self._waiting)

    def _free(self, row: int) -> None:
        self._batch.drop(row)
        last = self._active.pop()
        if row < len(self._active):
            self._active[row] = last

    def _admit(self) -> None:
        for sequence in _drain(self._inbox):
            self._wait(sequence)
        new: list[Completion] = []
        widest, longest = 0, max((sequence.longest for sequence in self._active), default=0)
        while self._waiting and len(self._active) + len(new) < self._max_batch:
            sequence = self._waiting[0][2]
            if sequence.left:
                heapq.heappop(self._waiting)
                continue
            longest, widest = max(longest, sequence.longest), max(widest, len(sequence.ids))
            num_rows = len(self._active) + len(new) + 1
            # One alone always runs: its prompt is shorter than the model's longest context.
            if num_rows > 1 and num_rows * longest > self._cache_tokens:
                break
            if new and (len(new) + 1) * widest > PREFILL_TOKENS:
                break
            new.append(heapq.heappop(self._waiting)[2])
        if new:
            self._batch.admit([sequence.ids[:-1] for sequence in new])
            self._active += new

    def _wait(self, sequence: Completion) -> None:
        heapq.heappush(self._waiting, (sequence.priority, sequence.number, sequence))

    def _replace_weights(self, folder: Path) -> None:
        """Load the folder into the model, or raise ``ValueError``, ``OSError`` or ``SafetensorError`` instead."""
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ValueError("there is no *.safetensors in it")
        state = self._model.state_dict()
        _check_fit(state, files)
        with torch.inference_mode():
            for name, tensor in _tensors(files):
                state[name].copy_(tensor)
        for sequence in self._active:
            self._wait(sequence)
        self._active.clear()
        self._batch.clear()


def _check(model: PreTrainedModel) -> None:
    config: Any = model.config
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or (getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None)):
        raise ConfigurationError(
            f"the transformers engine needs layers with full attention; {config.model_type} has others: use vLLM"
        )


def _check_fit(state: dict[str, torch.Tensor], files: list[Path]) -> None:
    shapes: dict[str, list[int]] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    for name, shape in shapes.items():
        if name not in state or list(state[name].shape) != shape:
            raise ValueError(f"{name} is not the model's: {shape}")
    # Tied weights are written once, under either name.
    given = {state[name].data_ptr() for name in shapes}
    if missing := [name for name, tensor in state.items() if tensor.data_ptr() not in given]:
        raise ValueError(f"it lacks {missing[0]} and {len(missing) - 1} more")


def _tensors(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield name, opened.get_tensor(name)


def _drain(inbox: SimpleQueue[Completion]) -> Iterator[Completion]:
    while True:
        try:
            yield inbox.get_nowait()
        except Empty:
            return


def _ids(value: int | Iterable[int] | None) -> Iterable[int]:
    return () if value is None else (value,) if isinstance(value, int) else value
