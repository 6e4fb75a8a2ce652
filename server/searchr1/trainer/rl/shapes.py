"""Shapes of models: the sizes that decide how many parameters they have and how much memory a pass takes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from searchr1.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The shape of a decoder such as Llama or Qwen2, as its ``config.json`` says it."""

    layers: int
    hidden: int
    """Width of the residual stream."""
    intermediate: int
    """Width of the feed-forward parts."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Heads of keys and values."""
    vocab: int
    tied: bool
    """Whether the output layer is the embedding."""
    head_size: int
    has_qkv_bias: bool = False

    @property
    def query_width(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_size

    @property
    def layer_params(self) -> int:
        """Parameters of one layer."""
        attention = 2 * self.hidden * (self.query_width + self.kv_width)
        bias = self.query_width + 2 * self.kv_width if self.has_qkv_bias else 0
        return attention + bias + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def root_params(self) -> int:
        """Parameters outside of the layers: embedding, output layer where it is another, last norm."""
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def params(self) -> int:
        """Parameters in all."""
        return self.layers * self.layer_params + self.root_params

    @property
    def critic_params(self) -> int:
        """Parameters of a critic of this shape: no output layer, but a head of one value."""
        return self.layers * self.layer_params + self.vocab * self.hidden + 2 * self.hidden + 1

    def linear(self, name: str) -> tuple[int, int]:
        """Return the inputs and outputs of a layer's linear part, by its name. Raises ``KeyError``."""
        h, q, kv, i = self.hidden, self.query_width, self.kv_width, self.intermediate
        return {
            "q_proj": (h, q),
            "k_proj": (h, kv),
            "v_proj": (h, kv),
            "o_proj": (q, h),
            "gate_proj": (h, i),
            "up_proj": (h, i),
            "down_proj": (i, h),
        }[name]


def _qwen(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, *, tied: bool) -> ModelShape:
    vocab, head_size = (151_936 if tied else 152_064), hidden // heads
    return ModelShape(layers, hidden, intermediate, heads, kv_heads, vocab, tied, head_size, has_qkv_bias=True)


KNOWN: Final = {
    "Qwen/Qwen2.5-0.5B": _qwen(24, 896, 4864, 14, 2, tied=True),
    "Qwen/Qwen2.5-1.5B": _qwen(28, 1536, 8960, 12, 2, tied=True),
    "Qwen/Qwen2.5-3B": _qwen(36, 2048, 11_008, 16, 2, tied=True),
    "Qwen/Qwen2.5-7B": _qwen(28, 3584, 18_944, 28, 4, tied=False),
    "Qwen/Qwen2.5-14B": _qwen(48, 5120, 13_824, 40, 8, tied=False),
    "meta-llama/Llama-3.2-1B": ModelShape(16, 2048, 8192, 32, 8, 128_256, True, 64),
    "meta-llama/Llama-3.2-3B": ModelShape(28, 3072, 8192, 24, 8, 128_256, True, 128),
    "HuggingFaceTB/SmolLM2-135M": ModelShape(30, 576, 1536, 9, 3, 49_152, True, 64),
    "HuggingFaceTB/SmolLM2-360M": ModelShape(32, 960, 2560, 15, 5, 49_152, True, 64),
}
"""Shapes by the hub's names, as their ``config.json`` have them, so that nothing has to be fetched. Models with
``-Instruct`` have the same."""


def shape_of(model: str) -> ModelShape:
    """Return the shape of a hub model that is in ``KNOWN``, or of the one in a folder.

    Raises:
        ConfigurationError: it is neither, or a folder without such a model.
    """
    if known := KNOWN.get(model.removesuffix("-Instruct")):
        return known
    path = Path(model) / "config.json"
    try:
        fields = json.loads(path.read_text("utf-8"))
        return _read(fields)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"the shape of {model} is not known: give a folder that holds it, or one of {', '.join(KNOWN)}"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{path} describes no model such as Llama or Qwen2: {error!r}") from error


def _read(fields: dict[str, Any]) -> ModelShape:
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    return ModelShape(
        layers=fields["num_hidden_layers"],
        hidden=hidden,
        intermediate=fields["intermediate_size"],
        heads=heads,
        kv_heads=fields.get("num_key_value_heads") or heads,
        vocab=fields["vocab_size"],
        tied=fields.get("tie_word_embeddings", False),
        head_size=fields.get("head_dim") or hidden // heads,
        has_qkv_bias=fields.get("attention_bias", fields.get("model_type") == "qwen2"),
    )
