"""Qwen's real vocabulary, from the ``dashscope`` wheel, as the ``encode`` of a rollout and as a Hugging Face folder.

The wheel carries the first Qwen's ``qwen.tiktoken``. Qwen1.5, 2, 2.5 and 3 keep its 151,643 ranks, its splitting
pattern and its NFC normalization, and differ in the special tokens after them. What the tests hold of that: the file's
hash and size, and ids of Qwen2.5 that its users publish (``PUBLISHED``). No Qwen2.5 checkpoint is loaded here.
"""

import base64
import hashlib
import json
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
PUBLISHED = {"Hello, world!": [9707, 11, 1879, 0], "\n": [198], "\n\n": [271], "user": [872], "assistant": [77091]}
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Qwen:
    """Text to ids and back."""

    encoding: tiktoken.Encoding

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; the text of special tokens is ordinary too."""
        return self.encoding.encode_ordinary(unicodedata.normalize("NFC", text))

    def encode_prompt(self, text: str) -> list[int]:
        """Ids with special tokens recognized."""
        return self.encoding.encode(unicodedata.normalize("NFC", text), allowed_special=set(SPECIAL))

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each id; those that hold part of a character show as U+FFFD."""
        return [self.encoding.decode([i]) for i in ids]

    def decode(self, ids: list[int]) -> str:
        return self.encoding.decode(ids)


def vocabulary_file() -> Path:
    spec = find_spec("dashscope")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "resources" / "qwen.tiktoken"


@cache
def ranks() -> dict[bytes, int]:
    content = vocabulary_file().read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256, "dashscope carries another vocabulary than the goldens' one"
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, content.splitlines())}


@cache
def load() -> Qwen:
    encoding = tiktoken.Encoding("qwen", pat_str=_PATTERN, mergeable_ranks=ranks(), special_tokens=SPECIAL)
    return Qwen(encoding)


def write_folder(folder: Path) -> None:
    """Write the vocabulary as a Hugging Face tokenizer folder, as Qwen2.5's is."""
    printable = _printable_bytes()
    vocab = {"".join(printable[b] for b in token): rank for token, rank in ranks().items()}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=_merges(printable)))
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    raw.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _merges(printable: dict[int, str]) -> list[tuple[str, str]]:
    """Every way to make a token of two others, in the order of the rank that it makes: tiktoken's own rule."""
    known = ranks()
    merges = []
    for token in sorted(known, key=known.__getitem__):
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = sorted((known[a], known[b], a, b) for a, b in splits if a in known and b in known)
        merges += [("".join(printable[x] for x in a), "".join(printable[x] for x in b)) for _, _, a, b in pairs]
    return merges


def _printable_bytes() -> dict[int, str]:
    """GPT-2's stand-in for each byte, which the ``tokenizers`` library uses too."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
