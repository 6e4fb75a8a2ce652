"""What is shown: that panels and alerts find their data, and that a burn rate is noticed and forgotten."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.monitoring.prometheus import Expression, Prometheus, alerts, panels
from loadtests.monitoring.stack import Stack
from tests.engines.vllm.fake_vllm import Fault

BURN_ALERT = "SearchR1RunsFailFast"
_POLL_S = 0.5


class NotSeenError(Exception):
    """Something that was to be seen in Prometheus was not, within its time."""


@dataclass(frozen=True)
class Seen:
    """The data of one expression."""

    what: Expression
    values: tuple[float, ...]
    missing: frozenset[str] = frozenset()
    """Metrics that it asks for, of which there is no series."""

    @property
    def has_data(self) -> bool:
        """Whether it has a value that can be drawn."""
        return any(math.isfinite(value) for value in self.values)


@dataclass(frozen=True)
class Burn:
    """When a burn-rate alert was seen, in seconds after the fault began."""

    pending_s: float
    firing_s: float
    mended_s: float
    cleared_s: float


def look_at_panels(prometheus: Prometheus, within_s: float) -> list[Seen]:
    """Return what each panel shows once all of them show something, or once the time is up."""
    give_up_at = time.monotonic() + within_s
    while True:
        seen = [Seen(panel, tuple(prometheus.query(panel.expr))) for panel in panels()]
        if all(one.has_data for one in seen) or time.monotonic() > give_up_at:
            return seen
        time.sleep(_POLL_S)


def look_at_alerts(prometheus: Prometheus) -> list[Seen]:
    """Return what each alert's expression gives now, and which of its metrics have no series."""
    found = []
    for alert in alerts():
        missing = frozenset(name for name in alert.metrics if not prometheus.query(f"count({name})"))
        found.append(Seen(alert, tuple(prometheus.query(alert.expr)), missing))
    return found


def burn(prometheus: Prometheus, stack: Stack, within_s: float) -> Burn:
    """Have every run fail until the alert fires, then mend it and wait until the alert is gone.

    Raises:
        NotSeenError: one of these took longer than ``within_s``.
    """
    began = time.monotonic()

    def seen(what: str, is_so: Callable[[str | None], bool]) -> float:
        give_up_at = time.monotonic() + within_s
        while not is_so(prometheus.states().get(BURN_ALERT)):
            if time.monotonic() > give_up_at:
                raise NotSeenError(f"{BURN_ALERT} was not {what} within {within_s:g} s: {prometheus.states()}")
            time.sleep(_POLL_S)
        return time.monotonic() - began

    seen("quiet before", lambda state: state is None)
    began = time.monotonic()
    with stack.during(Fault.REFUSE_REQUEST):
        pending_s = seen("pending", lambda state: state is not None)
        firing_s = seen("firing", lambda state: state == "firing")
    mended_s = time.monotonic() - began
    return Burn(pending_s, firing_s, mended_s, seen("cleared", lambda state: state is None))
