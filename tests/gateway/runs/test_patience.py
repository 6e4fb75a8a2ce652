"""Patience ends by the clock, and never by a standstill of the process."""

import asyncio
from typing import cast

import pytest

from searchr1.gateway.runs.patience import Patience
from tests.support.virtual_time import VirtualTimeLoop, now_s, virtual


async def given_up_after_s(*, ends_after_s: float | None = None, stands_still_s: float = 0.0) -> float | None:
    """When a patience of a second is given up; None where it is not."""
    start_s, given_up = now_s(), []
    patience = Patience(1.0, lambda: given_up.append(now_s() - start_s))
    patience.begin()
    if ends_after_s is not None:
        asyncio.get_running_loop().call_later(ends_after_s, patience.end)
    if stands_still_s:
        cast(VirtualTimeLoop, asyncio.get_running_loop())._jumping.now_s += stands_still_s
    await asyncio.sleep(60)
    assert len(given_up) < 2
    return given_up[0] if given_up else None


@pytest.mark.parametrize(
    ("ends_after_s", "stands_still_s", "after_s"),
    [(None, 0.0, 1.0), (0.5, 0.0, None), (1.5, 0.0, 1.0), (None, 1.5, 1.5), (None, 10.0, 11.0)],
)
def test_it_is_given_up_once_unless_it_ends_before(
    ends_after_s: float | None, stands_still_s: float, after_s: float | None
) -> None:
    @virtual
    async def watch() -> float | None:
        return await given_up_after_s(ends_after_s=ends_after_s, stands_still_s=stands_still_s)

    found = watch()
    assert found == (None if after_s is None else pytest.approx(after_s, abs=1e-3))
