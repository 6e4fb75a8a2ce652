"""Growing: making a larger model that starts out with the outputs of a smaller one.

New layers, heads and feed-forward neurons write nothing yet, and nothing is in the new residual dimensions yet, so the
outputs are the smaller model's. What they read is set as in a fresh model, so that gradients tell all of them apart
from the first step on. Net2Net (Chen et al., 2016) with zero outputs in place of copied neurons.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer

from searchr1.errors import ConfigurationError
from searchr1.trainer.warmup.initialize import NUM_NEAR, look_back
from searchr1.trainer.warmup.model import ModelShape, build_model, load_weights

HEAD_SIZE = 64


def read_shape(folder: Path) -> ModelShape:
    """Return the sizes of the model in a checkpoint folder.

    Raises:
        ConfigurationError: there is no readable ``config.json``, or it is of a model that the warm-up cannot train.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return ModelShape(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            mlp_size=config["intermediate_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            rope_theta=config["rope_parameters"]["rope_theta"],
            max_position=config["max_position_embeddings"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} does not describe a model that the warm-up can go on from: {error}"
        ) from error


def choose_shape(start: Path | None, *, hidden_size: int | None, num_layers: int | None) -> ModelShape:
    """Return the sizes of ``start``, or of the demo's first model, with another width or depth.

    Another width brings heads of 64 and a feed-forward layer three times as wide.

    Raises:
        ConfigurationError: the width is no multiple of 64, or ``start`` cannot be read.
    """
    shape = ModelShape(vocab_size=2048) if start is None else read_shape(start)
    if num_layers is not None:
        shape = replace(shape, num_layers=num_layers)
    if hidden_size is not None:
        if hidden_size % HEAD_SIZE:
            raise ConfigurationError(f"the width must be a multiple of {HEAD_SIZE}, not {hidden_size}")
        heads = hidden_size // HEAD_SIZE
        shape = replace(shape, hidden_size=hidden_size, mlp_size=3 * hidden_size, num_heads=heads)
    return shape


def start_from(model: Qwen2ForCausalLM, folder: Path) -> None:
    """Make ``model`` compute what the checkpoint in ``folder`` does, which may have fewer and narrower layers.

    Raises:
        ConfigurationError: the checkpoint is larger in some size, or its vocabulary or head size is another.
    """
    shape = read_shape(folder)
    small = build_model(shape, end_id=0, pad_id=0, seed=0)
    load_weights(small, folder)
    grow(model, small)


@torch.no_grad()
def grow(large: Qwen2ForCausalLM, small: Qwen2ForCausalLM) -> None:
    """Overwrite ``large``, a freshly built model, in place, so that its logits are those of ``small``.

    The old layers are spread evenly among the new. Only the norms' epsilon, which now stands
    beside a mean over more dimensions, makes a difference, and one far below bfloat16's.

    Raises:
        ConfigurationError: ``small`` is larger in some size, or its vocabulary or head size is another.
    """
    _check(large, small)
    old_width, width = small.config.hidden_size, large.config.hidden_size
    embedding = large.model.embed_tokens.weight
    embedding.zero_()
    embedding[:, :old_width] = small.model.embed_tokens.weight
    # A norm divides by the mean over all dimensions, of which the new ones are zero.
    norm_scale = (old_width / width) ** 0.5
    for layer in large.model.layers:
        _silence(cast(Qwen2DecoderLayer, layer))
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.fill_(norm_scale)
    large.model.norm.weight.fill_(norm_scale)
    large.model.norm.weight[:old_width] = small.model.norm.weight * norm_scale
    _look_further_back(large, range(small.config.num_attention_heads, large.config.num_attention_heads))
    for number, old in enumerate(small.model.layers):
        place = _place(number, len(small.model.layers), len(large.model.layers))
        _copy_layer(cast(Qwen2DecoderLayer, large.model.layers[place]), cast(Qwen2DecoderLayer, old), norm_scale)


def _check(large: Qwen2ForCausalLM, small: Qwen2ForCausalLM) -> None:
    new, old = large.config, small.config
    if new.vocab_size != old.vocab_size:
        raise ConfigurationError(f"a vocabulary of {old.vocab_size} tokens cannot grow to {new.vocab_size}")
    if new.hidden_size // new.num_attention_heads != old.hidden_size // old.num_attention_heads:
        raise ConfigurationError("the head size cannot grow: hidden size and heads must keep their ratio")
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers"):
        if getattr(new, name) < getattr(old, name):
            raise ConfigurationError(f"a model of {name} {getattr(old, name)} cannot shrink to {getattr(new, name)}")


def _place(number: int, num_old: int, num_new: int) -> int:
    """Return the new number of old layer ``number``: the first stays first, the last stays last."""
    return round(number * (num_new - 1) / (num_old - 1)) if num_old > 1 else 0


def _silence(layer: Qwen2DecoderLayer) -> None:
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()


def _look_further_back(large: Qwen2ForCausalLM, new_heads: range) -> None:
    """Point the new heads of the first layer at tokens further back than the initialization's heads look."""
    first = cast(Qwen2Attention, large.model.layers[0].self_attn)
    theta = cast(dict[str, float], large.config.rope_parameters)["rope_theta"]
    for distance, head in enumerate(new_heads, start=NUM_NEAR + 1):
        look_back(first, slice(head * first.head_dim, (head + 1) * first.head_dim), distance=distance, theta=theta)


def _copy_layer(new: Qwen2DecoderLayer, old: Qwen2DecoderLayer, norm_scale: float) -> None:
    old_width = old.input_layernorm.weight.numel()
    for name in ("input_layernorm", "post_attention_layernorm"):
        getattr(new, name).weight[:old_width] = getattr(old, name).weight * norm_scale
    for block, names in (
        ("self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")),
        ("mlp", ("gate_proj", "up_proj", "down_proj")),
    ):
        for name in names:
            target, source = getattr(getattr(new, block), name), getattr(getattr(old, block), name)
            rows, columns = source.weight.shape
            target.weight[:rows, :columns] = source.weight
            if source.bias is not None:
                target.bias[:rows] = source.bias
