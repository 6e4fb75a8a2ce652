"""Decoding of many sequences at once on one model: a row for each, which join and leave between steps.

Why not transformers' own continuous batching (5.19)? It has no stop strings, one seed for all requests (it calls
``torch.manual_seed``), logprobs after temperature and top-p instead of the model's own, and no way to drop the caches
when the weights change. Its static ``generate`` has no admission at all. So the rows, their caches and the sampling are
here; the model, its layers and its positions are transformers'.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from searchr1.engines.transformers.attention import causal_attention

NAME = "searchr1_rows"
"""Name under which transformers knows this module's attention."""
CPU_ROWS = 16
"""Rows whose attention a CPU computes together: they are read up to the longest of them, not of all."""
LENGTH_STEP = 256
"""Positions by which the caches grow."""


class RowCache(Cache):
    """Keys and values of every layer, shape [rows, heads, positions, head size]; row ``r`` holds ``lengths[r]``."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.lengths: list[int] = []
        """Tokens held, one for each row in use."""
        self._stores: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sources: list[int] | None = None
        self._at = torch.empty(0, dtype=torch.long)

    def begin_prefill(self, sources: list[int], lengths: list[int]) -> None:
        """Let the next pass fill new rows: the ``i``-th with what row ``sources[i]`` of the pass computes."""
        self._sources = sources
        self.lengths += lengths

    def begin_step(self, at: torch.Tensor) -> None:
        """Let the next pass add one token to every row, at the positions ``at``, shape [rows]."""
        self._sources, self._at = None, at
        self.lengths = [length + 1 for length in self.lengths]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's new keys and values, and return all that its queries see. transformers calls this."""
        num_rows, longest = len(self.lengths), max(self.lengths)
        keys, values = self._store(layer_idx, key_states, num_rows, max(longest, key_states.shape[2]))
        if self._sources is not None:
            first, num_tokens = num_rows - len(self._sources), key_states.shape[2]
            keys[first:num_rows, :, :num_tokens] = key_states[self._sources]
            values[first:num_rows, :, :num_tokens] = value_states[self._sources]
            return key_states, value_states
        rows = torch.arange(num_rows, device=key_states.device)
        keys[rows, :, self._at] = key_states[:, :, 0].to(keys.dtype)
        values[rows, :, self._at] = value_states[:, :, 0].to(values.dtype)
        return keys[:num_rows, :, :longest], values[:num_rows, :, :longest]

    def drop(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if row != last:
            self.lengths[row] = length
            for keys, values in self._stores:
                keys[row, :, :length] = keys[last, :, :length]
                values[row, :, :length] = values[last, :, :length]
        if not self.lengths:
            self._stores.clear()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return zero: rows differ, and the positions are always given."""
        return 0

    def _store(self, layer: int, like: torch.Tensor, num_rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        if layer == len(self._stores):
            dtype = store_dtype(like.device, like.dtype)
            empty = like.new_zeros((0, like.shape[1], 0, like.shape[3]), dtype=dtype)
            self._stores.append((empty, empty))
        keys, values = self._stores[layer]
        if num_rows > keys.shape[0] or length > keys.shape[2]:
            rows = keys.shape[0] if num_rows <= keys.shape[0] else max(num_rows, 3 * keys.shape[0] // 2)
            positions = max(keys.shape[2], -(-length // LENGTH_STEP) * LENGTH_STEP)
            keys, values = (_grown(store, rows, positions) for store in (keys, values))
            self._stores[layer] = keys, values
        return keys, values


class DecodeBatch:
    """A batch on the model. Rows are numbered from 0 without gaps; see ``drop``. Not thread-safe.

    The batch takes ``model`` over: its attention is computed by this module from now on.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        model.set_attn_implementation(NAME)
        model.train(False)
        self._model: Any = model
        self._device: Any = model.device
        self._cache = RowCache()

    @property
    def num_rows(self) -> int:
        """Number of rows in use."""
        return len(self._cache.lengths)

    @torch.inference_mode()
    def admit(self, sequences: Sequence[Sequence[int]]) -> None:
        """Append a row for each of ``sequences``, which hold all ids but the one that the next step is given.

        Equal sequences, such as the prompts of a group's first turn, are computed once.
        """
        numbers: dict[tuple[int, ...], int] = {}
        sources = [numbers.setdefault(tuple(ids), len(numbers)) for ids in sequences]
        longest = max(map(len, sequences))
        self._cache.begin_prefill(sources, [len(ids) for ids in sequences])
        if longest == 0:
            return
        # Attention is causal and the padding on the right, where no token sees it.
        padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in numbers], device=self._device)
        positions = torch.arange(longest, device=self._device)[None].expand(len(numbers), -1)
        self._model.base_model(input_ids=padded, position_ids=positions, past_key_values=self._cache, use_cache=True)

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> torch.Tensor:
        """Read one more token in every row; return the logits of the next one, [rows, vocabulary]."""
        at = torch.tensor(self._cache.lengths, device=self._device)
        self._cache.begin_step(at)
        lengths = self._cache.lengths
        mask = torch.arange(max(lengths), device=self._device) <= at[:, None]
        output = self._model(
            input_ids=torch.tensor(ids, device=self._device)[:, None],
            position_ids=at[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=self._cache,
            use_cache=True,
            row_lengths=lengths,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """Free a row; the last one takes its number."""
        self._cache.drop(row)

    def clear(self) -> None:
        """Free all rows."""
        self._cache = RowCache()

    def bytes_per_token(self) -> int:
        """Return the KV-cache bytes per token, summed over all layers."""
        config = self._model.config
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dtype = store_dtype(self._device, self._model.dtype)
        size: int = 2 * config.num_hidden_layers * num_heads * head_size * dtype.itemsize
        return size


@torch.inference_mode()
def sample(
    logits: torch.Tensor,
    temperatures: Sequence[float],
    top_ps: Sequence[float],
    uniforms: Sequence[float],
    *,
    model_logits: torch.Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """Sample a token in every row of ``logits``, shape [rows, vocabulary], float32.

    A row's token depends on its own logits, ``temperatures`` (0 is greedy), ``top_ps`` and ``uniforms`` (in [0, 1))
    alone. Returns the tokens and their logprobs at temperature 1, in nats, by ``model_logits`` where ``logits`` are
    not the model's own any more.
    """
    tokens = logits.argmax(-1)
    settings = torch.tensor([temperatures, top_ps, uniforms], dtype=torch.float64)
    drawn, cut = settings[0] > 0, settings[1] < 1
    # Apart from each other: whether a row is sorted must not depend on its neighbours.
    for chosen, draw in ((drawn & ~cut, _draw), (drawn & cut, _draw_from_top)):
        if chosen.any():
            rows = chosen.nonzero()[:, 0].to(logits.device)
            temperature, top_p, uniform = settings[:, chosen, None].to(logits.device)
            tokens[rows] = draw((logits[rows] / temperature.float()).softmax(-1).double(), uniform, top_p)
    logprobs = (logits if model_logits is None else model_logits).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    return tokens.tolist(), logprobs.tolist()


def _draw(probabilities: torch.Tensor, uniform: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Invert the distribution function: one uniform number a row, however large the vocabulary."""
    sums = probabilities.cumsum(-1)
    return torch.searchsorted(sums, uniform * sums[:, -1:], right=True)[:, 0].clamp_(max=sums.shape[-1] - 1)


def _draw_from_top(probabilities: torch.Tensor, uniform: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    probabilities, ids = probabilities.sort(descending=True)
    outside = probabilities.cumsum(-1) - probabilities >= top_p
    # The likeliest token always stays, whatever rounding says.
    outside[:, 0] = False
    found = _draw(probabilities.masked_fill(outside, 0.0), uniform, top_p)
    return ids.gather(-1, found[:, None])[:, 0]


def store_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the type of the caches of a model in ``dtype``: PyTorch's fused attention on CPU is fastest in float32."""
    return torch.float32 if device.type == "cpu" else dtype


def _grown(store: torch.Tensor, rows: int, positions: int) -> torch.Tensor:
    # Zeros: what a mask hides must still be a number.
    grown = store.new_zeros((rows, store.shape[1], positions, store.shape[3]))
    grown[: store.shape[0], :, : store.shape[2]] = store
    return grown


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    row_lengths: list[int] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention of a step, which has a mask, or of a prefill, which has none; transformers calls this."""
    if attention_mask is None or row_lengths is None:
        return _prefill_attention(query, key, value, scaling).transpose(1, 2), None
    num_rows, num_heads, _tokens, size = query.shape
    # The heads that share keys are a row's only queries, and see the same of them: no key is repeated.
    grouped = query.reshape(num_rows, key.shape[1], num_heads // key.shape[1], size)
    if query.device.type != "cpu":
        attended = scaled_dot_product_attention(grouped, key, value, attention_mask, scale=scaling)
        return attended.reshape(num_rows, 1, num_heads, size), None
    outputs = []
    for start in range(0, num_rows, CPU_ROWS):
        rows = slice(start, start + CPU_ROWS)
        longest = max(row_lengths[rows])
        outputs.append(
            scaled_dot_product_attention(
                grouped[rows].to(key.dtype),
                key[rows, :, :longest],
                value[rows, :, :longest],
                attention_mask[rows, :, :, :longest],
                scale=scaling,
            )
        )
    return torch.cat(outputs).to(query.dtype).reshape(num_rows, 1, num_heads, size), None


def _prefill_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return causal_attention(query, key, value, scaling)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _no_mask)
