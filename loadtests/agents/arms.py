"""The arms: ways to serve the same runs on the same vLLM."""

import re
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["chat", "thunderagent", "gateway", "infer", "calibration"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to serve."""

    name: str
    about: str
    way: Way
    policy: Literal["fcfs", "priority"] = "priority"
    """How vLLM is started."""
    engine_kind: str = "vllm-http"
    """Of the gateway: see ``gateway.py``."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of the gateway: more variables, without their prefix."""
    knows_lengths: bool = False
    """Runs are held back until their last footprints fit, which nobody can know."""
    router_arguments: tuple[str, ...] = ()
    """Of ThunderAgent."""


_ROUTER = ("--backend-type", "vllm", "--router", "tr", "--metrics")
_FAST = ("--metrics-interval", "1", "--scheduler-interval", "1")

ARMS = (
    Arm(name="plain", about="agents on chat completions, straight to vLLM, fcfs", way="chat", policy="fcfs"),
    Arm(
        name="thunderagent",
        about="the same agents through ThunderAgent's router, which looks every second",
        way="thunderagent",
        policy="fcfs",
        router_arguments=(*_ROUTER, *_FAST),
    ),
    Arm(
        name="thunderagent-default",
        about="the same with its own intervals, 5 s",
        way="thunderagent",
        policy="fcfs",
        router_arguments=_ROUTER,
    ),
    Arm(
        name="thunderagent-decay",
        about="the same, every second, with its decay of acting tokens",
        way="thunderagent",
        policy="fcfs",
        router_arguments=(*_ROUTER, *_FAST, "--use-acting-token-decay"),
    ),
    Arm(name="ours", about="the gateway", way="gateway"),
    Arm(
        name="without-stops",
        about="ours; completions go on past the closing tag, as far as the model writes",
        way="gateway",
        engine_kind="without-stops",
    ),
    Arm(
        name="without-exact-prefixes",
        about="ours; the whole text is tokenized anew each turn",
        way="gateway",
        engine_kind="without-exact-prefixes",
    ),
    Arm(
        name="without-priority",
        about="ours on an fcfs vLLM",
        way="gateway",
        policy="fcfs",
        settings={"engine_priority": "false"},
    ),
    Arm(
        name="without-admission",
        about="ours; all runs start at once",
        way="gateway",
        engine_kind="without-admission",
    ),
    Arm(
        name="without-early-dispatch",
        about="ours; a search is sent when its completion has ended",
        way="gateway",
        engine_kind="without-early-dispatch",
    ),
    Arm(
        name="without-cache",
        about="ours; every search goes to the provider",
        way="gateway",
        settings={"cache": "false"},
    ),
    Arm(
        name="oracle",
        about="ours, started by an oracle that knows every run's length",
        way="gateway",
        engine_kind="without-admission",
        knows_lengths=True,
    ),
    Arm(
        name="infer-py",
        about="one question after the other, transformers.generate, as upstream's infer.py does",
        way="infer",
    ),
    Arm(name="calibration", about="rates of this vLLM, for the simulator", way="calibration", policy="fcfs"),
)
"""All but the caps, which have a number in their names."""


def arm_named(name: str) -> Arm:
    """Return an arm; ``cap-20`` is ours with at most 20 runs at once, whatever they hold. Raises ``ValueError``.

    >>> arm_named("cap-20").settings
    {'max_concurrent_runs': '20'}
    """
    if capped := re.fullmatch(r"cap-([1-9]\d*)", name):
        return Arm(
            name=name,
            about=f"ours; {capped[1]} runs at once instead of a budget",
            way="gateway",
            engine_kind="without-admission",
            settings={"max_concurrent_runs": capped[1]},
        )
    for arm in ARMS:
        if arm.name == name:
            return arm
    raise ValueError(f"no arm is called {name!r}; there are cap-N, {', '.join(arm.name for arm in ARMS)}")
