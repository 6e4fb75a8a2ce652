"""The body of ``POST /v1/responses``: the fields that this server acts on, and those that it refuses by name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag

from searchr1.gateway.access.admission import MAX_SEED
from searchr1.gateway.errors import invalid

MAX_ITEMS = 256
ResponseId = Annotated[str, StringConstraints(max_length=128)]
Name = Annotated[str, StringConstraints(max_length=512)]

Includable = Literal[
    "web_search_call.action.sources",
    "web_search_call.results",
    "file_search_call.results",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
]
"""Values that a request may include. Clients send some by themselves that no response of this server has."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


_REFUSED = {
    "conversation": "There are no conversation objects here: use 'previous_response_id'.",
    "prompt": "There are no prompt templates here: send the question itself.",
    "top_logprobs": "Answers come without log probabilities. Leave it out.",
}
_NO_FILTERS = "Not every provider can filter by domain, so results would not keep to it. Leave it out."


def _refused(why: str) -> Any:
    return Field(default=None, description=f"Refused. {why}")


class TextPart(_Body):
    """Text in a message: the user's, or an assistant's answer."""

    type: Literal["input_text", "output_text"]
    text: str


Parts = Annotated[list[TextPart], Field(max_length=MAX_ITEMS)]


def _parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class MessageItem(_Body):
    """One message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[Parts, BeforeValidator(_parts, json_schema_input_type=str | Parts)]

    @property
    def text(self) -> str:
        """Return the content as one string."""
        return "".join(part.text for part in self.content)


class OutputItem(_Body):
    """Reasoning or a search of an earlier response, sent back with its answer. It adds nothing to the question."""

    type: Literal["reasoning", "web_search_call"]


class ItemReference(_Body):
    """An item of a stored response, by its id."""

    type: Literal["item_reference"]
    id: ResponseId


def _kind_of(item: Any) -> str | None:
    """Return the item's tag; a message may leave its type out."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    if kind is None:
        return "message"
    return {"web_search_call": "reasoning"}.get(kind, kind) if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[OutputItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(
        _kind_of,
        custom_error_type="unsupported_item",
        custom_error_message="This server takes items of type 'message' (with text), 'item_reference', and the "
        "'reasoning' and 'web_search_call' items of its own responses",
    ),
]


Items = Annotated[list[InputItem], Field(min_length=1)]


def _items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class UserLocation(_Body):
    """The user's location: a hint that this server's retrievers do not use."""

    type: Literal["approximate"] | None = None
    city: Name | None = None
    country: Name | None = None
    region: Name | None = None
    timezone: Name | None = None


class WebSearchTool(_Body):
    """The one tool there is: the server's own search."""

    type: Literal["web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"]
    external_web_access: bool | None = None
    """False answers searches from the cache alone."""
    search_context_size: Literal["low", "medium", "high"] | None = None
    filters: dict[str, Any] | None = _refused(_NO_FILTERS)
    user_location: UserLocation | None = None


class TextFormat(_Body):
    """The answer's format: the model answers in plain text."""

    type: Literal["text"]


class TextConfig(_Body):
    """Options of the answer's text."""

    format: TextFormat | None = None


class Reasoning(_Body):
    """Options of the shown reasoning. The model's effort can't be set."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Any value has the reasoning stream as a summary too, which some user interfaces show instead."""


class StreamOptions(_Body):
    """Options of a stream."""

    include_obfuscation: bool | None = None


MetadataKey = Annotated[str, StringConstraints(max_length=64)]


class ResponsesRequest(_Body):
    """A Responses request: the fields that this server acts on or refuses. Others are ignored."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "searchr1-atlas", "input": "Which currency is used in Mali?"}}
    )

    input: Annotated[Items, BeforeValidator(_items, json_schema_input_type=str | Items)] = Field(
        description="The question, or a conversation whose last message that is no instruction is the question."
    )
    model: str
    instructions: str | None = Field(default=None, description="Put before the conversation; not carried over.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    store: bool | None = Field(default=True, description="Keep the response, to be fetched, resumed and followed up.")
    background: bool | None = Field(default=False, description="Answer at once and go on without a client.")
    previous_response_id: ResponseId | None = Field(default=None, description="A stored response that this follows.")
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that the model may generate in the whole run."
    )
    max_tool_calls: int | None = Field(default=None, ge=0, description="Searches in all; 0 answers closed-book.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    tools: Annotated[list[WebSearchTool], Field(max_length=8)] | None = Field(
        default=None, description="Searching is on with and without its tool."
    )
    tool_choice: Literal["auto", "none"] | None = Field(
        default=None, description="`none` answers closed-book. The model can't be forced to search."
    )
    parallel_tool_calls: bool | None = None
    include: Annotated[list[Includable], Field(max_length=16)] | None = None
    metadata: Annotated[dict[MetadataKey, Name], Field(max_length=16)] | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    max_turns: int | None = Field(default=None, ge=1, description="Turns in which the model may search.")
    top_k: int | None = Field(
        default=None, ge=1, description="Passages per search; goes before `search_context_size`. No sampling parameter."
    )
    deadline_s: float | None = Field(default=None, gt=0, description="Seconds after which the run ends.")
    conversation: Any = _refused(_REFUSED["conversation"])
    prompt: Any = _refused(_REFUSED["prompt"])
    top_logprobs: Any = _refused(_REFUSED["top_logprobs"])

    def check(self) -> None:
        """Refuse what this server can't do and the client would miss.

        Raises:
            ApiError: 400 ``unsupported_parameter``; ``param`` names the field.
        """
        for name, why in _REFUSED.items():
            if getattr(self, name):
                raise invalid(f"'{name}': {why}", param=name, code="unsupported_parameter")
        for i, tool in enumerate(self.tools or ()):
            if any((tool.filters or {}).values()):
                param = f"tools.{i}.filters"
                raise invalid(f"'{param}': {_NO_FILTERS}", param=param, code="unsupported_parameter")
