"""Shapes of models that are timed with random weights, and folders that hold them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from searchr1.trainer.checkpoints import quietly

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2 by its sizes; embeddings and output layer are one matrix."""

    name: str
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int = 151_936
    needs_s: float = 0.0
    """Seconds that should be left before it is begun."""


SHAPES = (
    Shape("0.5B", 896, 4864, 24, 14, 2, needs_s=45),
    Shape("1.5B", 1536, 8960, 28, 12, 2, needs_s=75),
    Shape("3B", 2048, 11_008, 36, 16, 2, needs_s=120),
)
"""Those of Qwen2.5, by the configurations that it is published with."""
REHEARSED = (Shape("tiny", 64, 128, 2, 2, 2, vocab_size=512),)


def config_of(shape: Shape) -> Any:
    """Return the configuration of a Qwen2 of ``shape``, as transformers has it. No token ends its completions."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.mlp_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def write_random(config: Any, tokenizer: Path, folder: Path, device: torch.device) -> int:
    """Write a model with random bfloat16 weights and another model's tokenizer; return its number of parameters."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    untyped: Any = AutoModelForCausalLM
    with device, quietly():
        model = untyped.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    return sum(parameter.numel() for parameter in model.parameters())
