"""Requests: only chosen options are sent, to addresses that can't be steered from outside."""

import pytest

from searchr1_client._request import (
    RunOptions,
    auth_headers,
    create_call,
    events_call,
    list_call,
    replay_call,
    retrieve_call,
    root_url,
)
from searchr1_client.events import Run, Usage

RUN = Run(id="run_1", created=0, model="m", question="q", status="running", usage=Usage())


def test_the_body_holds_only_what_was_chosen() -> None:
    options = RunOptions(max_searches=0, temperature=0.0, seed=None, store=False)
    assert create_call("Why?", options, stream=True).body == {
        "question": "Why?",
        "stream": True,
        "max_searches": 0,
        "temperature": 0.0,
        "store": False,
    }


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_address_may_or_may_not_name_the_version(base: str) -> None:
    assert root_url(base) + list_call(1, None).path == "http://h:1/v1/research"


def test_no_key_sends_no_header() -> None:
    assert auth_headers(None) == {}
    assert auth_headers("") == {}
    assert auth_headers("k") == {"Authorization": "Bearer k"}


@pytest.mark.parametrize("run_id", ["", ".", "..", "../models", "a/b", "a?b", "a#b", "ä", "x" * 129, "run_1\n"])
def test_what_is_no_runs_id_is_never_put_in_a_path(run_id: str) -> None:
    with pytest.raises(ValueError, match="not a run's id"):
        retrieve_call(run_id)


def test_a_stream_is_taken_up_after_an_event() -> None:
    assert events_call("run_1", -1).headers == {}
    assert events_call("run_1", 0).headers == {"Last-Event-ID": "0"}


def test_pages() -> None:
    assert list_call(5, None).params == {"limit": 5}
    assert list_call(5, "run_1").params == {"limit": 5, "after": "run_1"}


def test_a_replay_needs_a_trajectory() -> None:
    assert replay_call("run_1", {}, on_miss="fail").body == {"run_id": "run_1", "on_miss": "fail", "stream": False}
    with pytest.raises(ValueError, match="no trajectory"):
        replay_call(RUN, {}, on_miss="fail")
