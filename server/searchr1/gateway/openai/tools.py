"""Tools of a request: the web search, which is the server's own, and all others, which are taken and never called.

A model that is offered tools may answer without calling any, so offering them asks for nothing that is not given here.
Demanding a call does, and is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from searchr1.gateway.errors import ApiError, invalid

_WEB_SEARCH = re.compile(r"web_search(_preview)?(_\d{4}_\d{2}_\d{2})?")
_NO_FILTERS = "Not every provider can filter by domain, so results would not keep to it. Leave it out."
_NOT_FORCED = (
    "No tool of the client's is called here, so none can be demanded: the model searches by itself and answers in "
    "text. Send 'auto', or leave it out."
)

ContextSize = Literal["low", "medium", "high"]
Mode = Literal["auto", "none", "required"]


class WebSearch(BaseModel):
    """Options of the searches. The user's location is not passed on: providers get the query alone."""

    model_config = ConfigDict(extra="ignore")

    external_web_access: bool | None = Field(
        default=None, description="False answers searches from the cache alone and calls no provider."
    )
    search_context_size: ContextSize | None = Field(
        default=None, description="Passages per search: one, the server's usual number, or the most that it allows."
    )
    filters: dict[str, Any] | None = Field(default=None, description="Refused: not every provider can filter.")

    def check(self, where: str) -> None:
        """Refuse filters: not every provider has them.

        Raises:
            ApiError: there are some; ``where`` is the ``param`` that the options came in.
        """
        if any((self.filters or {}).values()):
            param = f"{where}.filters"
            raise invalid(f"'{param}': {_NO_FILTERS}", param=param, code="unsupported_parameter")


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that a request offers, and its choice among them."""

    searches: tuple[WebSearch, ...]
    """Web searches among them, with their options."""
    mode: Mode
    is_search_off: bool
    """True where the choice leaves the offered web search out."""
    ignored: tuple[str, ...]
    """Fields that were taken and change nothing."""

    @property
    def is_cache_only(self) -> bool:
        """True where no provider may be called."""
        return any(search.external_web_access is False for search in self.searches)

    @property
    def context_size(self) -> ContextSize | None:
        """The last one's context size; None where none says."""
        sizes = [search.search_context_size for search in self.searches if search.search_context_size is not None]
        return sizes[-1] if sizes else None


def is_web_search(tool: Any) -> bool:
    """Return whether a tool, or a choice of one, is OpenAI's web search of any date."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and _WEB_SEARCH.fullmatch(kind) is not None


def read_tools(tools: Sequence[Any] | None, choice: Any, *, functions: Any = None, function_call: Any = None) -> Tools:
    """Return what a request's tools and its choice ask for. ``functions`` and ``function_call`` are their old names.

    Raises:
        ApiError: a call is demanded, or the options of a web search are not valid.
    """
    offered = list(tools or ())
    searches = tuple(_search(tool, f"tools.{i}") for i, tool in enumerate(offered) if is_web_search(tool))
    ignored = ["tools"] if len(searches) < len(offered) else []
    ignored += ["functions"] if functions else []
    if function_call not in (None, "", "auto", "none"):
        raise _forced("function_call")
    mode, allowed = _choice(choice, offered)
    if mode == "required":
        if not allowed or not all(map(is_web_search, allowed)):
            raise _forced("tool_choice")
        # The model is trained to search, and can't be made to.
        ignored.append("tool_choice")
    is_off = mode == "none" or not any(map(is_web_search, allowed))
    return Tools(searches, mode, bool(searches) and is_off, tuple(ignored))


def _search(tool: dict[str, Any], where: str) -> WebSearch:
    try:
        search = WebSearch.model_validate(tool)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join([where, *map(str, first["loc"])])
        raise invalid(f"'{param}': {first['msg']}.", param=param, code=str(first["type"])) from error
    search.check(where)
    return search


def _choice(choice: Any, offered: list[Any]) -> tuple[Mode, list[Any]]:
    """Return the mode of a choice, and the tools that it is among.

    Raises:
        ApiError: it is none that can be kept.
    """
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
            raise invalid("'tool_choice': 'allowed_tools' needs a list of 'tools'.", param="tool_choice")
        return _choice(allowed.get("mode"), offered)[0], allowed["tools"]
    if is_web_search(choice):
        return "required", [choice]
    mode = choice.get("type") if isinstance(choice, dict) else choice
    if mode in (None, "", "auto"):
        return "auto", offered
    if mode == "none":
        return "none", offered
    if mode in ("required", "any"):
        return "required", offered
    raise _forced("tool_choice")


def _forced(param: str) -> ApiError:
    return invalid(f"'{param}': {_NOT_FORCED}", param=param, code="unsupported_parameter")
