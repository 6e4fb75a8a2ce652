"""Tools that clients offer and demand: offered ones are taken, demanded ones refused; the web search is ours."""

from typing import Any

import pytest

from searchr1.gateway.errors import ApiError
from searchr1.gateway.openai.tools import is_web_search, read_tools

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FLAT_FUNCTION = {"type": "function", "name": "f", "parameters": {}, "strict": True}
SEARCH = {"type": "web_search"}
OTHERS: list[Any] = [
    FUNCTION,
    FLAT_FUNCTION,
    {"type": "custom", "custom": {"name": "f"}},
    {"type": "mcp", "server_label": "x", "server_url": "https://mcp.example"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "file_search", "vector_store_ids": ["x"]},
    {"type": "image_generation"},
    {"type": "computer_use_preview"},
    {"type": "local_shell"},
    {"type": "namespace", "tools": [FLAT_FUNCTION]},
    {"type": "builtin_function", "function": {"name": "$web_search"}},
    {"type": "web_searching"},
    {"google_search": {}},
    {"type": 7},
    "f",
    None,
]
SEARCHES = [
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "web_search_2027_01_01",
]
NOT_FORCED = [
    None,
    "",
    "auto",
    "none",
    {"type": "auto"},
    {"type": "none"},
    {"type": "allowed_tools", "mode": "auto", "tools": [FLAT_FUNCTION]},
    {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [FUNCTION]}},
]
FORCED: list[Any] = [
    "required",
    "any",
    "f",
    {"type": "required"},
    {"type": "function", "function": {"name": "f"}},
    {"type": "function", "name": "f"},
    {"type": "custom", "custom": {"name": "f"}},
    {"type": "mcp", "server_label": "x"},
    {"type": "file_search"},
    {"type": "code_interpreter"},
    {"type": "image_generation"},
    {"type": "tool", "name": "f"},
    {"type": "allowed_tools", "mode": "required", "tools": [FLAT_FUNCTION]},
    {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [SEARCH, FUNCTION]}},
    {"type": "allowed_tools", "mode": "required", "tools": []},
    {"name": "f", "type": 7},
    7,
    ["f"],
]


@pytest.mark.parametrize("choice", NOT_FORCED)
@pytest.mark.parametrize("tool", OTHERS)
def test_tools_that_nobody_demands_are_taken_and_told(tool: Any, choice: Any) -> None:
    read = read_tools([tool], choice)
    assert (read.ignored, read.searches, read.is_search_off) == (("tools",), (), False)


@pytest.mark.parametrize("choice", FORCED)
@pytest.mark.parametrize("tools", [[FUNCTION], [FUNCTION, SEARCH]])
def test_a_demanded_call_is_refused_in_plain_words(tools: list[Any], choice: Any) -> None:
    with pytest.raises(ApiError) as refused:
        read_tools(tools, choice)
    assert (refused.value.status, refused.value.param, refused.value.code) == (
        400,
        "tool_choice",
        "unsupported_parameter",
    )
    assert "searches by itself" in refused.value.message


@pytest.mark.parametrize("choice", [{"type": "allowed_tools"}, {"type": "allowed_tools", "allowed_tools": "x"}])
def test_allowed_tools_need_tools(choice: Any) -> None:
    with pytest.raises(ApiError, match="needs a list") as refused:
        read_tools([FUNCTION], choice)
    assert refused.value.param == "tool_choice"


@pytest.mark.parametrize(("function_call", "param"), [({"name": "f"}, "function_call"), ("f", "function_call")])
def test_old_names_mean_the_same(function_call: Any, param: str) -> None:
    for harmless in (None, "auto", "none"):
        assert read_tools(None, None, functions=[{"name": "f"}], function_call=harmless).ignored == ("functions",)
    with pytest.raises(ApiError) as refused:
        read_tools(None, None, functions=[{"name": "f"}], function_call=function_call)
    assert refused.value.param == param


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_web_search_of_any_date_is_the_servers(kind: str) -> None:
    read = read_tools([{"type": kind, "search_context_size": "low", "user_location": {"city": "x"}}], "auto")
    assert (read.ignored, read.context_size, read.is_cache_only, read.is_search_off) == ((), "low", False, False)
    assert is_web_search({"type": kind})


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        *({"type": kind} for kind in SEARCHES),
        {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]},
    ],
)
def test_a_demanded_search_is_taken_and_told_since_the_model_decides(choice: Any) -> None:
    read = read_tools([SEARCH], choice)
    assert (read.ignored, read.is_search_off) == (("tool_choice",), False)


@pytest.mark.parametrize(
    ("tools", "choice", "is_off"),
    [
        ([SEARCH], "none", True),
        ([SEARCH, FUNCTION], {"type": "none"}, True),
        ([SEARCH, FUNCTION], {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]}, True),
        ([SEARCH, FUNCTION], {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]}, False),
        ([FUNCTION], "none", False),
        ([], "none", False),
        (None, "none", False),
        ([SEARCH], None, False),
    ],
)
def test_an_offered_search_can_be_left_out(tools: Any, choice: Any, is_off: bool) -> None:
    assert read_tools(tools, choice).is_search_off is is_off


def test_the_last_context_size_and_any_wish_for_the_cache_hold() -> None:
    read = read_tools(
        [
            {**SEARCH, "search_context_size": "low", "external_web_access": False},
            {**SEARCH, "search_context_size": "high"},
        ],
        None,
    )
    assert (read.context_size, read.is_cache_only) == ("high", True)


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({**SEARCH, "filters": {"allowed_domains": ["a.example"]}}, "tools.1.filters"),
        ({**SEARCH, "search_context_size": "huge"}, "tools.1.search_context_size"),
        ({**SEARCH, "external_web_access": "perhaps"}, "tools.1.external_web_access"),
    ],
)
def test_a_search_that_can_not_be_done_as_asked_is_refused(tool: Any, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_tools([SEARCH, tool], None)
    assert refused.value.param == param
