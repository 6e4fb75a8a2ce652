"""The request of Chat Completions: the fields that this server acts on."""

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from searchr1.gateway.access.admission import MAX_SEED, RunOptions
from searchr1.gateway.chat.stop import read_stops
from searchr1.gateway.chat.unsupported import REFUSALS, refuse_unsupported
from searchr1.gateway.errors import invalid
from searchr1.gateway.openai.messages import MAX_MESSAGES, Conversation, Message, read_conversation, role_of
from searchr1.gateway.openai.run_fields import RunFields, TokenLimit
from searchr1.gateway.openai.tools import Tools, WebSearch, read_tools
from searchr1.settings import Settings


def _refused(name: str) -> Any:
    return Field(default=None, description=f"Refused. {REFUSALS[name].why}")


class ChatMessage(BaseModel):
    """One message of the conversation; what else it holds, calls of tools say, is left out."""

    role: str = Field(description="`user`, `assistant`, `system`, `developer` or `tool`; other names of these too.")
    content: str | list[Any] | Any = Field(
        default=None, description="Text or parts. The question's must be text; others' images are quoted as `[image]`."
    )
    refusal: Any = None
    audio: Any = None

    def message(self, where: str) -> Message:
        """Return the message; ``where`` is its ``param``. Raises ``ApiError`` for an unknown role."""
        content = self.content
        if content is None:
            content = self.refusal if isinstance(self.refusal, str) else [{"type": "audio"}] if self.audio else None
        return Message(role_of(self.role, where), content, where)


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool | None = Field(default=None, description="Send `usage` in a last chunk without choices.")


class ChatRequest(RunFields):
    """A chat completion's request. Fields that are not listed here are ignored, as OpenAI-compatible servers do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "searchr1-atlas",
                "messages": [{"role": "user", "content": "Which currency is used in Mali?"}],
            }
        },
    )

    model: str
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The last one of the user's is the question. Where not all fit, the oldest are left out.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, description="Choices; each is a run of its own.")
    max_tokens: TokenLimit = Field(default=None, description="The old name of `max_completion_tokens`.")
    max_completion_tokens: TokenLimit = Field(
        default=None, description="Tokens that the model may generate in the whole run of a choice."
    )
    stop: str | list[Any] | Any = Field(
        default=None, description="At most four strings; the answer ends before the first of them."
    )
    web_search_options: WebSearch | None = None
    tools: list[Any] | None = Field(
        default=None, description="`web_search` has the options of the searches. Others are taken and never called."
    )
    tool_choice: Any = Field(default=None, description="A call that is demanded is refused.")
    functions: list[Any] | None = Field(default=None, description="Taken and never called.")
    function_call: Any = Field(default=None, description="A call that is demanded is refused.")

    response_format: Any = _refused("response_format")
    logprobs: Any = _refused("logprobs")
    top_logprobs: Any = _refused("top_logprobs")
    logit_bias: Any = _refused("logit_bias")
    modalities: Any = _refused("modalities")
    audio: Any = _refused("audio")
    moderation: Any = _refused("moderation")

    @property
    def include_usage(self) -> bool:
        """True for a stream that ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences. Raises ``ApiError`` where they are none."""
        return read_stops(self.stop)

    @cached_property
    def conversation(self) -> Conversation:
        """The messages. Raises ``ApiError`` where they can't be read or hold no question."""
        return read_conversation([m.message(f"messages.{i}") for i, m in enumerate(self.messages)], "messages")

    @cached_property
    def offered(self) -> Tools:
        """The tools. Raises ``ApiError`` where a call is demanded."""
        return read_tools(self.tools, self.tool_choice, functions=self.functions, function_call=self.function_call)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields that change nothing, and ``messages`` where some were left out."""
        return (*self.offered.ignored, *(("messages",) if self.conversation.is_cut else ()))

    def check(self) -> None:
        """Refuse what this server can't do and the client would miss.

        Raises:
            ApiError: 400; ``param`` names the field.
        """
        refuse_unsupported({name: getattr(self, name) for name in REFUSALS})
        if self.web_search_options is not None:
            self.web_search_options.check("web_search_options")

    def num_choices(self, settings: Settings) -> int:
        """Return the number of choices to give.

        Raises:
            ApiError: more than the operator allows.
        """
        n = self.n or 1
        if n > settings.max_choices:
            message = f"'n' is {n}; this server allows at most {settings.max_choices}."
            raise invalid(message, param="n", code="above_maximum")
        return n

    def run_options(self, settings: Settings, choice: int = 0) -> RunOptions:
        """Return one choice's run in the native form; its seed is ``choice`` more than the request's.

        Raises:
            ApiError: an option is not allowed.
        """
        options = self.web_search_options or WebSearch()
        run = self.options(
            settings,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            max_searches=0 if self.offered.is_search_off else self.max_searches,
            context_size=options.search_context_size or self.offered.context_size,
            is_cache_only=options.external_web_access is False or self.offered.is_cache_only,
        )
        seed = None if run.seed is None else (run.seed + choice) % (MAX_SEED + 1)
        return run.model_copy(update={"seed": seed})
