"""The request of Chat Completions: the fields that this server acts on."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from searchr1.gateway.access.admission import MAX_SEED, RunOptions
from searchr1.gateway.chat.unsupported import REFUSALS, refuse_unsupported
from searchr1.gateway.errors import invalid
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn
from searchr1.settings import Settings


def _refused(name: str) -> Any:
    return Field(default=None, description=f"Refused. {REFUSALS[name].why}")


class ContentPart(BaseModel):
    """A part of a message's content. Only those of type ``text`` are read; any other is refused."""

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="`tool` and `function` are refused: no tools of the client's are called."
    )
    content: str | list[ContentPart] | None = None

    def turn(self, where: str) -> Turn:
        """Return the message as text.

        Raises:
            ApiError: it is a tool's, or not text; ``where`` is the ``param`` that it came in.
        """
        if self.role in ("tool", "function"):
            why = "Results of tools are not taken: no tools of the client's are called."
            raise invalid(f"'{where}': {why}", param=where, code="unsupported_parameter")
        if not isinstance(self.content, list):
            return Turn(self.role, self.content or "")
        for i, part in enumerate(self.content):
            if part.type != "text" or part.text is None:
                why = f"The model reads parts of type 'text' alone, and this one is of type {part.type[:40]!r}."
                if part.type == "text":
                    why = "The part has no 'text'."
                raise invalid(f"'{where}.content.{i}': {why}", param=f"{where}.content.{i}", code="unsupported_content")
        return Turn(self.role, "".join(part.text or "" for part in self.content))


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool | None = Field(default=None, description="Send `usage` in a last chunk without choices.")


class WebSearchOptions(BaseModel):
    """Options of the searches. The user's location is not passed on: providers get the query alone."""

    external_web_access: bool | None = Field(
        default=None, description="False answers searches from the cache alone and calls no provider."
    )
    search_context_size: Literal["low", "medium", "high"] | None = Field(
        default=None, description="Passages per search: one, the server's usual number, or the most that it allows."
    )
    filters: dict[str, Any] | None = Field(default=None, description="Refused: not every provider can filter.")

    def check(self) -> None:
        """Refuse filters: not every provider has them.

        Raises:
            ApiError: there are some.
        """
        if any((self.filters or {}).values()):
            param = "web_search_options.filters"
            why = "Not every provider can filter by domain, so results would not keep to it. Leave it out."
            raise invalid(f"'{param}': {why}", param=param, code="unsupported_parameter")

    def top_k(self, settings: Settings) -> int | None:
        """Return the passages per search, within the operator's bound; None where the request does not say."""
        sizes = {"low": 1, "medium": settings.top_k, "high": settings.max_top_k}
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
        min_length=1,
        description="The last one that is no instruction is the question. Where not all fit, the oldest are left out.",
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

    @property
    def include_usage(self) -> bool:
        """True for a stream that ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def turns(self) -> list[Turn]:
        """Return the messages as text.

        Raises:
            ApiError: a message can't be read, or the last one that is no instruction is not the user's.
        """
        turns = [message.turn(f"messages.{i}") for i, message in enumerate(self.messages)]
        if next((turn.role for turn in reversed(turns) if turn.role not in INSTRUCTION_ROLES), None) != "user":
            raise invalid("The last message must have the role 'user'; it is the question.", param="messages")
        return turns

    def check(self) -> None:
        """Refuse what this server can't do and the client would miss.

        Raises:
            ApiError: 400 ``unsupported_parameter``.
        """
        refuse_unsupported({name: getattr(self, name) for name in REFUSALS})
        if self.web_search_options is not None:
            self.web_search_options.check()

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
        """Return one choice's run in the native form.

        A token limit above the operator's is cut, as OpenAI clients expect.
        """
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
