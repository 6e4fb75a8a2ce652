"""The tokenizer of a checkpoint, read from its folder with ``tokenizers`` alone: no torch, no transformers.

Text is encoded with special tokens off, so that ``<|im_end|>`` in a passage becomes ordinary tokens, never the special
one. Only the prompt, which the chat template writes, may hold special tokens.
"""

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RawTokenizer

from searchr1.errors import ConfigurationError, SearchR1Error
from searchr1.loop.types import TokenIds


class ReservedTextError(SearchR1Error):
    """A question holds the text of a special token, which would be read as a control token."""


class Tokenizer:
    """Encodes segments and prompts the way that a checkpoint was trained to read them."""

    def __init__(self, raw: RawTokenizer, *, chat_template: str | None, special: dict[str, Any]) -> None:
        self._with_special = raw
        self._plain = RawTokenizer.from_str(raw.to_str())
        self._plain.encode_special_tokens = True
        self._special = special
        self._reserved = tuple(token.content for token in raw.get_added_tokens_decoder().values() if token.special)
        self._template = None
        if chat_template is not None:
            environment = ImmutableSandboxedEnvironment(
                trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension]
            )
            environment.globals["raise_exception"] = _raise_template_error
            environment.filters["tojson"] = _to_json
            self._template = environment.from_string(chat_template)

    @classmethod
    def load(cls, name_or_path: str) -> "Tokenizer":
        """Load from a Hugging Face folder or, failing that, by hub name.

        Raises:
            ConfigurationError: there is no usable tokenizer there.
        """
        folder = _find(name_or_path)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ConfigurationError(
                f"{name_or_path}: no tokenizer.json. Pass --tokenizer with a folder or hub name that has one."
            )
        raw = RawTokenizer.from_file(str(file))
        config = _read_json(folder / "tokenizer_config.json")
        template = _chat_template(folder, config)
        special = {k: _content(v) for k, v in config.items() if k.endswith("_token")}
        return cls(raw, chat_template=template, special=special)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` alone. Special tokens are neither added nor recognised."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: TokenIds) -> str:
        """Text of ``ids``, special tokens left out."""
        text: str = self._with_special.decode(list(ids), skip_special_tokens=True)
        return text

    def render(self, user_text: str) -> str:
        """One user turn and the assistant's header, by the chat template; the bare text where there is none.

        Raises:
            ReservedTextError: ``user_text`` contains the text of a special token.
        """
        for token in self._reserved:
            if token in user_text:
                raise ReservedTextError(f"the text {token!r} is reserved for the model's own control tokens")
        if self._template is None:
            return user_text
        return self._template.render(
            messages=[{"role": "user", "content": user_text}], add_generation_prompt=True, tools=None, **self._special
        )

    def encode_prompt(self, rendered: str) -> list[int]:
        """Ids of a rendered prompt, its template's special tokens recognised."""
        ids: list[int] = self._with_special.encode(rendered, add_special_tokens=False).ids
        return ids


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name_or_path.startswith((".", "~")):
        raise ConfigurationError(f"{name_or_path}: no such folder")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ConfigurationError(
            f"{name_or_path} is not a folder, and huggingface_hub is not installed to look it up"
        ) from error
    try:
        patterns = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
        return Path(snapshot_download(name_or_path, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"{name_or_path} is neither a folder nor a model that the hub gives out: {error}"
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is not valid JSON: {error}") from error
    return content


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _raise_template_error(message: str) -> str:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)
