"""All that the report needs, what matters most first: the options of each ``run``, and the minutes that it may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One ``run`` of the suite."""

    scenario: str
    options: str
    minutes: int
    """About, with SmolLM2-135M on two quiet cores."""

    @property
    def arguments(self) -> list[str]:
        """The arguments of the ``run``, less folders."""
        return ["--scenario", self.scenario, *self.options.split()]


_PARTS = (
    "ours,without-admission,without-stops,without-priority,without-early-dispatch,without-cache,without-exact-prefixes"
)
_NOTES = "--searches 3 --thought-chars 90 --context-chars 2400"
SUITE = (
    Part("rush", "--arms calibration,plain,thunderagent,ours", 21),
    Part("calm", "--arms plain,ours --runs 24 --arrivals-per-s 0.1 --repeats 2", 20),
    Part("rush", "--arms oracle,cap-16,cap-20,cap-26", 20),
    Part("parts", f"--arms {_PARTS}", 28),
    Part("rush", "--arms thunderagent-decay,thunderagent-default", 12),
    Part("notes", f"--arms plain,thunderagent,ours,oracle {_NOTES}", 20),
    Part("alone", "--arms ours,infer-py --runs 1", 3),
    Part("few", "--arms ours,infer-py --runs 16", 9),
    Part("rush", "--arms infer-py", 20),
    Part("rush", "--arms plain,thunderagent,ours --repeats 3", 36),
    Part("notes", f"--arms plain,thunderagent,ours --repeats 3 {_NOTES}", 30),
    Part("crowd", "--arms plain,thunderagent,ours --runs 256 --at-most-s 3600", 75),
)
"""``parts``: the rush again, ours measured in the same hour as ours without each part. ``notes``: each question comes
with some 600 tokens of its own, and thoughts are short. What was measured is skipped, so that the later parts add
repeats."""
