"""The body of ``POST /v1/responses``: the fields that this server acts on, and those that it refuses by name."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from searchr1.gateway.errors import invalid
from searchr1.gateway.openai.run_fields import RunFields, TokenLimit
from searchr1.gateway.openai.tools import Tools, read_tools
from searchr1.gateway.openapi import given

ResponseId = Annotated[str, StringConstraints(max_length=128)]
Name = Annotated[str, StringConstraints(max_length=512)]
Input = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]})]
"""Read by ``input.py``: clients send items of many kinds."""

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

_REFUSED = {
    "conversation": "There are no conversation objects here: use 'previous_response_id'.",
    "prompt": "There are no prompt templates here: send the question itself.",
    "top_logprobs": "Answers come without log probabilities. Leave it out.",
}
_TEXT_ALONE = "Answers are plain text: checkpoints are not trained on another format. Leave it out."


def _refused(name: str) -> Any:
    return Field(default=None, description=f"Refused. {_REFUSED[name]}")


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Reasoning(_Body):
    """Options of the shown reasoning. The model's effort can't be set."""

    summary: Name | None = None
    """Any value has the reasoning stream as a summary too, which some user interfaces show instead."""


MetadataKey = Annotated[str, StringConstraints(max_length=64)]


class CompactRequest(_Body):
    """A conversation to compact: a stored response's, items after it, or both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [given("input"), given("previous_response_id")]})

    model: str
    input: Input | None = Field(default=None, description="Text or items, as in a response's request.")
    previous_response_id: ResponseId | None = Field(default=None, description="A stored response.")


class ResponsesRequest(RunFields):
    """A Responses request: the fields that this server acts on or refuses. Others are ignored."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "searchr1-atlas", "input": "Which currency is used in Mali?"}}
    )

    input: Input = Field(
        description="The question, or a conversation whose last message of the user's is the question."
    )
    model: str
    instructions: str | None = Field(default=None, description="Put before the conversation; not carried over.")
    stream: bool | None = False
    store: bool | None = Field(default=True, description="Keep the response, to be fetched, resumed and followed up.")
    background: bool | None = Field(default=False, description="Answer at once and go on without a client.")
    previous_response_id: ResponseId | None = Field(default=None, description="A stored response that this follows.")
    max_output_tokens: TokenLimit = Field(
        default=None, description="Tokens that the model may generate in the whole run."
    )
    max_tool_calls: int | None = Field(default=None, ge=0, description="Searches in all; 0 answers closed-book.")
    tools: list[Any] | None = Field(
        default=None,
        description="`web_search` has the options of the searches and shows them as items. Others are never called.",
    )
    tool_choice: Any = Field(default=None, description="`none` answers closed-book. A demanded call is refused.")
    parallel_tool_calls: bool | None = None
    include: Annotated[list[Includable], Field(max_length=16)] | None = None
    metadata: Annotated[dict[MetadataKey, Name], Field(max_length=16)] | None = None
    reasoning: Reasoning | None = None
    text: dict[str, Any] | None = Field(default=None, description="A `format` other than text is refused.")
    truncation: Literal["auto", "disabled"] | None = None
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    conversation: Any = _refused("conversation")
    prompt: Any = _refused("prompt")
    top_logprobs: Any = _refused("top_logprobs")

    @cached_property
    def offered(self) -> Tools:
        """The tools. Raises ``ApiError`` where a call is demanded."""
        return read_tools(self.tools, self.tool_choice)

    @property
    def is_closed_book(self) -> bool:
        """True where no search is wanted: `none` says so, unless all that is offered is the client's own."""
        return self.offered.is_search_off or (self.offered.mode == "none" and not self.tools)

    def check(self) -> None:
        """Refuse what this server can't do and the client would miss.

        Raises:
            ApiError: 400 ``unsupported_parameter``; ``param`` names the field.
        """
        for name, why in _REFUSED.items():
            if getattr(self, name):
                raise invalid(f"'{name}': {why}", param=name, code="unsupported_parameter")
        wanted = (self.text or {}).get("format")
        if wanted is not None and (wanted.get("type") if isinstance(wanted, dict) else wanted) != "text":
            raise invalid(f"'text.format': {_TEXT_ALONE}", param="text.format", code="unsupported_parameter")
