"""The readers of ``Retry-After``: the server's and the SDK's give the same wait for every header."""

import inspect
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from searchr1 import retry_after
from searchr1_client import _retry_after

Reader = Callable[[str | None], float | None]
NOW = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT
DAY_S = 86_400.0


@pytest.fixture(params=[retry_after.retry_after_s, _retry_after.retry_after_s], ids=["server", "sdk"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(time, "time", lambda: NOW)
    reader: Reader = request.param
    return reader


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        (" 3 ", 3.0),
        ("007", 7.0),
        ("86400", DAY_S),
        ("86401", DAY_S),
        ("9" * 400, DAY_S),
        ("9" * 5000, DAY_S),
        ("", None),
        (" ", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e9", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("Infinity", None),
        ("0x10", None),
        ("7 s", None),
        ("7, 8", None),
        ("soon", None),
        ("³", None),
        ("٣", None),
        ("\u2028", None),
    ],
)
def test_seconds(read: Reader, header: str | None, wait_s: float | None) -> None:
    assert read(header) == wait_s


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (formatdate(NOW + 90, usegmt=True), 90.0),
        ("Sun, 09 Sep 2001 01:48:10 GMT", 90.0),
        ("Sunday, 09-Sep-01 01:48:10 GMT", 90.0),  # RFC 850, of which the year has two digits
        ("Sun Sep  9 01:48:10 2001", 90.0),  # asctime, which is in UTC too
        ("Sun, 09 Sep 2001 03:48:10 +0200", 90.0),
        ("Sun, 09 Sep 2001 01:48:10 -0000", 90.0),
        ("Sun, 09 Sep 01 01:48:10 GMT", 90.0),
        ("Wed, 21 Oct 1970 07:28:00 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Wed, 01 Jan 0001 00:00:00 GMT", 0.0),
        ("Wed, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Mon, 10 Sep 2001 01:46:41 GMT", DAY_S),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY_S),
        ("Fri, 31 Dec 9999 23:59:59 -2359", DAY_S),
        ("Fri Dec 31 23:59:59 9999", DAY_S),
        ("Fri, 31 Dec 10000 23:59:59 GMT", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2400", None),
        ("Fri, 31 Dec 9999 23:59:59 -9999999999999999999", None),
        ("Fri, 31 Foo 2001 23:59:59 GMT", None),
        ("Fri, 32 Dec 2001 23:59:59 GMT", None),
        ("Fri, 31 Dec 2001 25:00:00 GMT", None),
        ("2001-09-09T01:48:10Z", None),
        ("Sun, 09 Sep 2001", None),
        (",", None),
        ("Sün, é Sep ÿ", None),
    ],
)
def test_dates(read: Reader, monkeypatch: pytest.MonkeyPatch, header: str, wait_s: float | None) -> None:
    for zone in ("UTC", "America/New_York", "Pacific/Kiritimati"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert read(header) == wait_s, zone
    monkeypatch.undo()
    time.tzset()


def test_both_readers_are_the_same_code() -> None:
    assert inspect.getsource(retry_after.retry_after_s) == inspect.getsource(_retry_after.retry_after_s)
    assert retry_after.LONGEST_WAIT_S == _retry_after.LONGEST_WAIT_S
