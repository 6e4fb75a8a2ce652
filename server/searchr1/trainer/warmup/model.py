"""The small model of the Qwen2 architecture: building it, its loss, and its folder for servers."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM

from searchr1.engines.transformers.attention import NAME as CAUSAL_BLOCKS
from searchr1.errors import ConfigurationError
from searchr1.files import whole_file
from searchr1.trainer.warmup.batches import TokenBatch

NUM_COMPILED_SHAPES = 64
"""Shapes that layers are compiled for before what is left runs uncompiled."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a Qwen2 model. The head size is ``hidden_size / num_heads``; vLLM on CPU takes 32, 64, 96 and 128."""

    vocab_size: int
    hidden_size: int = 256
    mlp_size: int = 768
    """Width of the gated feed-forward layer."""
    num_layers: int = 5
    num_heads: int = 4
    rope_theta: float = 1e10
    """Rotary base; as large as this, most pairs hardly turn over a context and can compare tokens at any distance."""
    max_position: int = 4608
    """Longest context in tokens: 4096 of input and 500 generated, rounded up."""


def build_model(shape: ModelShape, *, end_id: int, pad_id: int, seed: int) -> Qwen2ForCausalLM:
    """Return a freshly initialized model in float32; the same ``seed`` gives the same weights."""
    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.mlp_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=shape.max_position,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    model: Qwen2ForCausalLM = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.set_attn_implementation(CAUSAL_BLOCKS)
    return model


def compile_layers(model: Qwen2ForCausalLM) -> None:
    """Compile each layer in place, once for all layers and for each shape of its input."""
    torch._dynamo.config.recompile_limit = NUM_COMPILED_SHAPES
    for layer in model.model.layers:
        layer.compile(dynamic=False)


@dataclass(frozen=True, slots=True)
class LossSums:
    """Sums over the sampled tokens of one batch, so that processes can add theirs up before dividing."""

    loss: torch.Tensor
    """Scalar, nats; carries the gradient."""
    num_tokens: int
    """Tokens in the loss."""
    num_right_samples: int
    """Samples of which every sampled token has the highest logit: greedy decoding would reproduce them."""
    num_samples: int
    """Samples in the batch."""


def has_bfloat16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 matrices fast; CPUs without AVX-512 do it very slowly."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")


def masked_loss(model: Qwen2ForCausalLM, batch: TokenBatch, device: torch.device) -> LossSums:
    """Return the cross-entropy on the sampled tokens; logits are computed for these positions and no others.

    Padding is on the right and attention is causal, so no sampled token can see any of it.
    """
    ids = batch.ids.to(device)
    targets_at = batch.loss_mask[:, 1:].to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[targets_at]
        logits = model.lm_head(hidden).float()
    targets = ids[:, 1:][targets_at]
    loss = cross_entropy(logits, targets, reduction="sum")
    wrong = torch.zeros(len(ids), dtype=torch.long, device=device)
    rows = targets_at.nonzero()[:, 0]
    wrong.index_add_(0, rows, (logits.detach().argmax(-1) != targets).long())
    return LossSums(loss, len(targets), int((wrong == 0).sum()), len(ids))


def load_weights(model: Qwen2ForCausalLM, folder: Path) -> None:
    """Put the weights that ``export_model`` wrote to ``folder`` into ``model``, in the model's own precision.

    Raises:
        ConfigurationError: they are of another shape.
    """
    try:
        missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    except RuntimeError as error:
        raise ConfigurationError(f"the weights in {folder} are of another shape: {error}") from error
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ConfigurationError(f"the weights in {folder} are of another model: {[*missing, *unexpected]}")


def export_model(model: Qwen2ForCausalLM, folder: Path) -> None:
    """Write ``config.json``, ``generation_config.json`` and bfloat16 ``model.safetensors`` as Hugging Face has them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {"dtype": "bfloat16", "architectures": ["Qwen2ForCausalLM"]}
    config = {key: value for key, value in config.items() if not key.startswith("_") and "attn_impl" not in key}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    generation = {"eos_token_id": config["eos_token_id"], "pad_token_id": config["pad_token_id"], "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", "utf-8")
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    with whole_file(folder / "model.safetensors") as file:
        file.write(save(weights, metadata={"format": "pt"}))
