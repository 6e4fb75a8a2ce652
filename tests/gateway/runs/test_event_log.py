"""The log of a run's events: what it gives back is what it was given, and it keeps no objects of old events."""

import gc
import weakref
from typing import Any

import pytest

from searchr1.gateway.runs.event_log import EventLog
from searchr1.gateway.sse import encode_event
from searchr1_client.events import KnownEvent, RunCompleted, RunStarted, ThinkDelta, Usage
from searchr1_client.fold import RunFold

STAMP: dict[str, Any] = {"run_id": "run_1", "turn": 1, "t_ms": 1.5}


def events() -> list[KnownEvent]:
    texts = [ThinkDelta(seq=seq, text=f"word {seq} \x1b ‮é", **STAMP) for seq in (1, 2, 3)]
    started = RunStarted(seq=0, model="m", question="Where?", **STAMP)
    return [started, *texts, RunCompleted(seq=4, status="completed", usage=Usage(), **STAMP)]


def filled() -> EventLog:
    log = EventLog(created=1)
    for event in events():
        log.append(event)
    return log


def test_events_come_back_as_they_were() -> None:
    log, given = filled(), events()
    assert list(log) == given
    assert [log[number] for number in range(-5, 5)] == given + given
    assert log[1:3] == given[1:3]
    assert log[5:] == []
    with pytest.raises(IndexError):
        log[5]


def test_frames_are_those_of_the_events() -> None:
    assert filled().frames(1, 5) == b"".join(map(encode_event, events()[1:]))


def test_the_run_is_what_its_events_add_up_to() -> None:
    fold = RunFold(created=1)
    for event in events():
        fold.add(event)
    assert filled().run() == fold.run()


def test_text_that_came_is_kept_as_bytes_alone() -> None:
    log = EventLog(created=1)
    first, *texts = events()[:4]
    log.append(first)
    alive = []
    for event in texts:
        log.append(event)
        alive.append(weakref.ref(event))
    del event, texts
    gc.collect()
    assert [one() is not None for one in alive] == [False, False, True]
