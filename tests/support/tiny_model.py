"""A random Qwen2 of two layers with a byte-level tokenizer, written as a Hugging Face folder that vLLM serves."""

import string
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from tokenizers.trainers import BpeTrainer

from searchr1 import tokenizer as searchr1_tokenizer

MAX_MODEL_LEN = 32768
"""Tokens; long, so that a completion that nobody stops outlasts any test."""
_END = "<|im_end|>"
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MERGED = ["<search> a </search>\n\n<information>Doc 1(Title: b) c</information>\n\n<answer> d </answer>"] * 4


def write_tiny_model(folder: Path) -> Path:
    """Write the model to ``folder``. It samples printable ASCII tokens only and never ends a completion by itself."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = _tokenizer()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END, chat_template=_TEMPLATE).save_pretrained(folder)
    _model(tokenizer).save_pretrained(folder)
    return folder


def tiny_tokenizer() -> searchr1_tokenizer.Tokenizer:
    """Return the model's tokenizer, for which no torch is imported."""
    return searchr1_tokenizer.Tokenizer(
        _tokenizer(), chat_template=_TEMPLATE, special={"eos_token": _END, "pad_token": _END}
    )


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    # It adds nothing; transformers writes it into every file that has none.
    tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    trainer = BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=6, show_progress=False
    )
    tokenizer.train_from_iterator(_MERGED, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", _END)])
    return tokenizer


def _model(tokenizer: Tokenizer) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=False,
        initializer_range=0.5,
        eos_token_id=tokenizer.token_to_id(_END),
        bos_token_id=None,
        pad_token_id=tokenizer.token_to_id(_END),
        dtype="float32",
    )
    untyped: Any = Qwen2ForCausalLM
    model = untyped(config).float()
    printable = set(string.ascii_letters + string.digits + string.punctuation + " \n")
    unwanted = [
        token
        for token in range(config.vocab_size)
        if not (text := tokenizer.decode([token])) or not printable.issuperset(text)
    ]
    with torch.no_grad():
        # Dimension 0 of the residual stream is held constant, so that it can serve as the output layer's bias.
        model.model.embed_tokens.weight[:, 0] = 3.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[unwanted, 0] = -1000.0
    return model
