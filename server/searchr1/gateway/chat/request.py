"""What of OpenAI's Chat Completions request this server acts on, and what it refuses rather than overlook."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from searchr1.gateway.admission import MAX_SEED, RunOptions
from searchr1.gateway.conversation import Turn, fold_conversation
from searchr1.gateway.errors import invalid
from searchr1.settings import Settings

MAX_MESSAGES = 256


def _is_text_format(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.get("type") == "text")


_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "stop": (
        lambda value: not value,
        "stop sequences are not taken: the trained format decides where a turn ends; leave 'stop' out",
    ),
    "tools": (
        lambda value: not value,
        "tools of the client's are not called: the model searches by itself; leave 'tools' out and set "
        "'web_search_options' to say how it searches",
    ),
    "tool_choice": (
        lambda value: value in (None, "none", "auto"),
        "tools of the client's are not called, so none can be demanded; leave 'tool_choice' out",
    ),
    "functions": (
        lambda value: not value,
        "functions of the client's are not called: the model searches by itself; leave 'functions' out",
    ),
    "function_call": (
        lambda value: value in (None, "none", "auto"),
        "functions of the client's are not called, so none can be demanded; leave 'function_call' out",
    ),
    "response_format": (
        _is_text_format,
        "answers are plain text: checkpoints are not trained to write another format; leave 'response_format' out",
    ),
    "logprobs": (
        lambda value: not value,
        "chat completions carry no logprobs; POST /v1/research records them in the trajectory",
    ),
    "top_logprobs": (lambda value: not value, "chat completions carry no logprobs; leave 'top_logprobs' out"),
    "logit_bias": (lambda value: not value, "logits can't be biased; leave 'logit_bias' out"),
    "frequency_penalty": (
        lambda value: value in (None, 0),
        "penalties would act on the tags of the trained format; leave 'frequency_penalty' out or send 0",
    ),
    "presence_penalty": (
        lambda value: value in (None, 0),
        "penalties would act on the tags of the trained format; leave 'presence_penalty' out or send 0",
    ),
    "modalities": (lambda value: value in (None, [], ["text"]), "answers are text alone; leave 'modalities' out"),
    "audio": (lambda value: value is None, "answers are text alone; leave 'audio' out"),
    "moderation": (lambda value: value is None, "nothing is moderated here; leave 'moderation' out"),
}
"""By field: which values change nothing, and why any other is refused."""


def _refused(name: str) -> Any:
    return Field(default=None, description=f"Refused: {_REFUSED[name][1]}.")


def _unsupported(why: str, code: Literal["unsupported_parameter", "unsupported_content"]) -> PydanticCustomError:
    return PydanticCustomError(code, "{why}", {"why": why})


def _text_of(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise PydanticCustomError("string_type", "send a string or a list of text parts")
    return "".join(_part_text(part, number) for number, part in enumerate(content, start=1))


def _part_text(part: object, number: int) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text":
        found = f"of type {kind[:40]!r}" if isinstance(kind, str) else "of no type"
        raise _unsupported(
            f"part {number} is {found}; the model reads parts of type 'text' alone", "unsupported_content"
        )
    assert isinstance(part, dict)
    text = part.get("text")
    if not isinstance(text, str):
        raise PydanticCustomError("string_type", "part {number} has no string as its 'text'", {"number": number})
    return text


def _served_role(role: object) -> object:
    if role in ("tool", "function"):
        raise _unsupported("results of tools are not taken: no tools of the client's are called", "unsupported_content")
    return role


_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
        {"type": "null"},
    ]
}


class ChatMessage(BaseModel):
    """One message of the conversation."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_served_role)]
    content: Annotated[str, BeforeValidator(_text_of), WithJsonSchema(_CONTENT_SCHEMA)] = ""
    """Its text, the parts joined."""


class StreamOptions(BaseModel):
    """How to stream."""

    include_usage: bool | None = Field(default=None, description="Send `usage` in a last chunk without choices.")


class WebSearchOptions(BaseModel):
    """How to search. The user's location is not passed on: providers get the query alone."""

    external_web_access: bool | None = Field(
        default=None, description="False answers searches from the cache alone and calls no provider."
    )
    search_context_size: Literal["low", "medium", "high"] | None = Field(
        default=None, description="Passages per search: half of the server's number, that number, or twice as many."
    )
    filters: dict[str, Any] | None = Field(default=None, description="Refused: not every provider can filter.")

    @field_validator("filters")
    @classmethod
    def _refuse_filters(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if any((value or {}).values()):
            why = "not every provider can filter by domain, so results would not keep to it; leave 'filters' out"
            raise _unsupported(why, "unsupported_parameter")
        return value

    def top_k(self, settings: Settings) -> int | None:
        """Passages per search, within the operator's bound; None where the request does not say."""
        sizes = {"low": (settings.top_k + 1) // 2, "medium": settings.top_k, "high": 2 * settings.top_k}
        size = self.search_context_size
        return None if size is None else min(sizes[size], settings.max_top_k)


class ChatRequest(BaseModel):
    """A chat completion's request. Fields that are not listed here are ignored, as OpenAI-compatible servers do."""

    model_config = ConfigDict(
        extra="ignore",
        allow_inf_nan=False,
        json_schema_extra={
            "example": {
                "model": "searchr1-atlas",
                "messages": [{"role": "user", "content": "Which currency is used in Mali?"}],
            }
        },
    )

    model: str
    messages: list[ChatMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="The last one that is no instruction is the question."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, description="Choices; each is a run of its own.")
    max_tokens: int | None = Field(default=None, ge=1, description="The old name of `max_completion_tokens`.")
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that the model may generate in the whole run of a choice."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Of the first choice; the next has one more.")
    web_search_options: WebSearchOptions | None = None
    max_turns: int | None = Field(default=None, ge=1, description="Turns in which the model may search.")
    max_searches: int | None = Field(default=None, ge=0, description="Searches in all; 0 answers closed-book.")
    top_k: int | None = Field(
        default=None, ge=1, description="Passages per search; goes before `search_context_size`. No sampling parameter."
    )
    deadline_s: float | None = Field(default=None, gt=0, description="Seconds after which a run ends.")

    stop: Any = _refused("stop")
    tools: Any = _refused("tools")
    tool_choice: Any = _refused("tool_choice")
    functions: Any = _refused("functions")
    function_call: Any = _refused("function_call")
    response_format: Any = _refused("response_format")
    logprobs: Any = _refused("logprobs")
    top_logprobs: Any = _refused("top_logprobs")
    logit_bias: Any = _refused("logit_bias")
    frequency_penalty: Any = _refused("frequency_penalty")
    presence_penalty: Any = _refused("presence_penalty")
    modalities: Any = _refused("modalities")
    audio: Any = _refused("audio")
    moderation: Any = _refused("moderation")

    @field_validator(*_REFUSED, mode="before")
    @classmethod
    def _refuse(cls, value: Any, info: ValidationInfo) -> Any:
        is_harmless, why = _REFUSED[str(info.field_name)]
        if not is_harmless(value):
            raise _unsupported(why, "unsupported_parameter")
        return value

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def question(self) -> str:
        """The messages as one question.

        Raises:
            ApiError: the last message that is no instruction is not the user's.
        """
        turns = [Turn(message.role, message.content) for message in self.messages]
        if next((m.role for m in reversed(self.messages) if m.role in ("user", "assistant")), None) != "user":
            raise invalid("The last message must have the role 'user'; it is the question.", param="messages")
        return fold_conversation(turns)

    def num_choices(self, settings: Settings) -> int:
        """How many choices to give.

        Raises:
            ApiError: more than the operator allows.
        """
        n = self.n or 1
        if n > settings.max_choices:
            message = f"'n' is {n}; this server allows at most {settings.max_choices}."
            raise invalid(message, param="n", code="above_maximum")
        return n

    def run_options(self, settings: Settings, choice: int = 0) -> RunOptions:
        """One choice's run in the native form. A token limit above the operator's is cut, as OpenAI clients expect."""
        wanted = self.max_completion_tokens or self.max_tokens
        search = self.web_search_options or WebSearchOptions()
        return RunOptions(
            max_turns=self.max_turns,
            max_searches=self.max_searches,
            max_tokens=None if wanted is None else min(wanted, settings.max_run_tokens),
            top_k=search.top_k(settings) if self.top_k is None else self.top_k,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=None if self.seed is None else (self.seed + choice) % (MAX_SEED + 1),
            deadline_s=self.deadline_s,
            cache="only" if search.external_web_access is False else "default",
        )
