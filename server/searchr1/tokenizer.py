"""The tokenizer of a checkpoint, read from its folder with ``tokenizers`` alone: no torch, no transformers.

Text is encoded with special tokens off, so that ``<|im_end|>`` in a passage becomes ordinary tokens, never the special
one. Only the prompt, which the chat template writes, may hold special tokens.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RawTokenizer

from searchr1.errors import ConfigurationError, SearchR1Error
from searchr1.loop.types import TokenIds


class ReservedTextError(SearchR1Error):
    """A question holds the text of a special token, which would be read as a control token."""


class Tokenizer:
    """Encodes segments and prompts the way that a checkpoint was trained to read them.

    ``special`` holds the special tokens that the chat template may name, such as ``bos_token``, as text.
    """

    def __init__(self, raw: RawTokenizer, *, chat_template: str | None, special: dict[str, str]) -> None:
        self._with_special = RawTokenizer.from_str(raw.to_str())
        # A file may still hold the limits of the run that wrote it; they would silently cut prompts.
        self._with_special.no_truncation()
        self._with_special.no_padding()
        self._plain = RawTokenizer.from_str(self._with_special.to_str())
        self._plain.encode_special_tokens = True
        self._special = special
        self._reserved = tuple(token.content for token in raw.get_added_tokens_decoder().values() if token.special)
        self._template = None if chat_template is None else _compile(chat_template)

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
        config = _read_json(folder / "tokenizer_config.json")
        return cls(_read_tokenizer(file), chat_template=_chat_template(folder, config), special=_special(config))

    @property
    def reserved(self) -> tuple[str, ...]:
        """The texts of the special tokens, which no question may hold."""
        return self._reserved

    def same_as(self, other: "Tokenizer") -> bool:
        """Return whether both turn every text into the same ids."""
        same: bool = self._with_special.to_str() == other._with_special.to_str()
        return same

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` alone. Special tokens are neither added nor recognized."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: TokenIds) -> str:
        """Return the text of ``ids``, special tokens left out."""
        text: str = self._with_special.decode(list(ids), skip_special_tokens=True)
        return text

    def render(self, user_text: str, *, system: str | None = None, chat: bool = True) -> str:
        """Write one user turn and the assistant's header, by the chat template; the bare text where there is none.

        Args:
            user_text: the user's message.
            system: the system message before it; without one the template may add its own.
            chat: false for the bare text, whether there is a template or not.

        Raises:
            ReservedTextError: ``user_text`` contains the text of a special token.
            ConfigurationError: the chat template can't render this, or there is none for the system message.
        """
        for token in self._reserved:
            if token in user_text:
                raise ReservedTextError(f"the text {token!r} is reserved for the model's own control tokens")
        if system is not None and (self._template is None or not chat):
            raise ConfigurationError("there is no chat template to put the system message in")
        if self._template is None or not chat:
            return user_text
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": user_text})
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, tools=None, documents=None, **self._special
            )
        except TemplateError as error:
            asked = "a single user turn" if system is None else "a system message and a user turn"
            raise ConfigurationError(f"the chat template refuses {asked}: {error}") from error

    def encode_prompt(self, rendered: str) -> list[int]:
        """Return the ids of a rendered prompt, its template's special tokens recognized."""
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


def _read_tokenizer(file: Path) -> RawTokenizer:
    try:
        return RawTokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigurationError(f"{file} can't be read as a tokenizer: {error}. Is the download complete?") from error


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} must hold a JSON object, not {type(content).__name__}")
    return content


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{file} is not UTF-8: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _special(config: dict[str, Any]) -> dict[str, str]:
    """Return the special tokens that are set: a template prints nothing for an absent one, and ``None`` for a null."""
    tokens = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _compile(chat_template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension])
    environment.globals["raise_exception"] = _raise_template_error
    environment.globals["strftime_now"] = _strftime_now
    environment.filters["tojson"] = _to_json
    try:
        return environment.from_string(chat_template)
    except TemplateError as error:
        raise ConfigurationError(f"the chat template is not valid: {error}") from error


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_template_error(message: str) -> str:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)
