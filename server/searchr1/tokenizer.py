"""The tokenizer of a checkpoint, read from its folder with ``tokenizers`` alone: no torch, no transformers.

Text is encoded with special tokens off, so that ``<|im_end|>`` in a passage becomes ordinary tokens, never the special
one. Only the prompt, which the chat template writes, may hold special tokens.
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as RawTokenizer

from searchr1.errors import ConfigurationError, SearchR1Error, missing_package
from searchr1.hf_hub import HubRefusedError, snapshot
from searchr1.loop.types import AddBos, TokenIds

_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "config.json",
)
"""What is read of a checkpoint, and fetched from the hub."""
_TRAINED_WITHOUT_BOS: Final = ("<|begin_of_text|>",)
"""Llama 3's ``bos_token``: its post-processor puts it, and Search-R1, which tokenizes without special tokens, trained
the base model on prompts without it."""


class ReservedTextError(SearchR1Error):
    """A question holds the text of a special token, which would be read as a control token."""


class Tokenizer:
    """A checkpoint's tokenizer. It encodes segments and prompts the way that the checkpoint was trained to read them.

    Args:
        raw: the tokenizer itself.
        chat_template: the checkpoint's, in Jinja.
        special: the special tokens that the chat template may name, such as ``bos_token``, as text.
        bos_without_template: whether a prompt without a chat template begins with the ``bos_token``.
        bos_with_template: whether one that the chat template wrote does, where the template did not write it.
        vocab_size: token ids of the model, where it has more than the tokenizer has.
    """

    def __init__(
        self,
        raw: RawTokenizer,
        *,
        chat_template: str | None,
        special: dict[str, str],
        bos_without_template: bool = False,
        bos_with_template: bool = False,
        vocab_size: int = 0,
    ) -> None:
        self._with_special = RawTokenizer.from_str(raw.to_str())
        # A file may still hold the limits of the run that wrote it; they would silently cut prompts.
        self._with_special.no_truncation()
        self._with_special.no_padding()
        self._plain = RawTokenizer.from_str(self._with_special.to_str())
        self._plain.encode_special_tokens = True
        self._special = special
        self._bos_without_template = bos_without_template
        self._bos_with_template = bos_with_template
        self.vocab_size = max(vocab_size, 1 + max(raw.get_vocab(with_added_tokens=True).values(), default=0))
        """No token id that the model can sample reaches it."""
        # Runs hold thousands of ids, mostly the same ones: they share the numbers' objects.
        self._ids = tuple(range(self.vocab_size))
        self._newest: tuple[str, TokenIds] = "", ()
        self._reserved = tuple(token.content for token in raw.get_added_tokens_decoder().values() if token.special)
        self._template = None if chat_template is None else _compile(chat_template)

    @classmethod
    def load(cls, name_or_path: str, *, add_bos: AddBos = "auto") -> "Tokenizer":
        """Load from a Hugging Face folder or, failing that, by hub name.

        Raises:
            ConfigurationError: there is no usable tokenizer there, or none with a ``<bos>`` that is always wanted.
        """
        folder = _find(name_or_path)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ConfigurationError(
                f"{name_or_path}: no tokenizer.json. Pass --tokenizer with a folder or hub name that has one."
            )
        config = _read_json(folder / "tokenizer_config.json")
        raw = _read_tokenizer(file)
        special = _special(config, _read_json(folder / "special_tokens_map.json"), raw)
        if add_bos == "always" and "bos_token" not in special:
            raise ConfigurationError(f"{name_or_path}: the tokenizer has no bos_token, so that none can be added")
        return cls(
            raw,
            chat_template=_chat_template(folder, config),
            special=special,
            bos_without_template=add_bos == "always" or (add_bos == "auto" and _puts_bos(config, special, raw)),
            bos_with_template=add_bos == "always",
            vocab_size=_vocab_size(_read_json(folder / "config.json")),
        )

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
        return self._shared(self._plain.encode(text, add_special_tokens=False).ids)

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
            return self._with_bos(user_text) if self._bos_without_template else user_text
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": user_text})
        try:
            rendered = self._template.render(
                messages=messages, add_generation_prompt=True, tools=None, documents=None, **self._special
            )
        except TemplateError as error:
            asked = "a single user turn" if system is None else "a system message and a user turn"
            raise ConfigurationError(f"the chat template refuses {asked}: {error}") from error
        return self._with_bos(rendered) if self._bos_with_template else rendered

    def _with_bos(self, rendered: str) -> str:
        bos = self._special.get("bos_token", "")
        return rendered if rendered.startswith(bos) else bos + rendered

    def encode_prompt(self, rendered: str) -> list[int]:
        """Return the ids of a rendered prompt, its template's special tokens recognized.

        The newest is kept: a prompt is measured before it is asked.
        """
        if rendered != self._newest[0]:
            ids = self._with_special.encode(rendered, add_special_tokens=False).ids
            self._newest = rendered, tuple(self._shared(ids))
        return list(self._newest[1])

    def _shared(self, ids: list[int]) -> list[int]:
        return [self._ids[i] for i in ids]


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name_or_path.startswith((".", "~")):
        raise ConfigurationError(f"{name_or_path}: no such folder")
    try:
        return snapshot(name_or_path, allow_patterns=list(_FILES))
    except ImportError as error:
        raise ConfigurationError(
            missing_package(f"{name_or_path} is not a folder, and looking it up", "huggingface_hub", "server")
        ) from error
    except HubRefusedError as error:
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


def _special(config: dict[str, Any], special_map: dict[str, Any], raw: RawTokenizer) -> dict[str, str]:
    """Return the special tokens that are set, wherever a tokenizer keeps them.

    A template prints nothing for one that is absent, so none may be overlooked. The map goes before the config; a
    tokenizer that names no ``bos_token`` anywhere may still put one before every text that it encodes.
    """
    texts: dict[str, str] = {}
    for source in (config, special_map):
        for name, value in source.items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                texts[name] = text
    if "bos_token" not in texts and "bos_token" not in config | special_map:
        with_special, without = (raw.encode("a", add_special_tokens=add).ids for add in (True, False))
        if with_special[:1] != without[:1] and (text := raw.id_to_token(with_special[0])) is not None:
            texts["bos_token"] = text
    return texts


def _puts_bos(config: dict[str, Any], special: dict[str, str], raw: RawTokenizer) -> bool:
    """Return whether the tokenizer begins a text with the ``bos_token``, by its config or else its post-processor."""
    said, bos = config.get("add_bos_token"), special.get("bos_token")
    if isinstance(said, bool) or bos in (None, *_TRAINED_WITHOUT_BOS):
        return said is True
    return bool(raw.encode("a", add_special_tokens=True).ids[:1] == [raw.token_to_id(bos)])


def _vocab_size(config: dict[str, Any]) -> int:
    """Return what a model's ``config.json`` says, of which a model of text and images has a part; 0 without."""
    text_config = config.get("text_config")
    sizes = [part.get("vocab_size") for part in (config, text_config) if isinstance(part, dict)]
    return max((size for size in sizes if isinstance(size, int)), default=0)


class _GenerationBlocks(Extension):
    """``{% generation %}``, which marks what the assistant says for training; it renders what is inside."""

    tags = {"generation"}  # noqa: RUF012 -- Jinja declares it as a plain attribute

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block as a call, so that names set inside stay inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        return caller()


def _compile(chat_template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _GenerationBlocks]
    )
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


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # As transformers has it: templates give these by name and by place.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
