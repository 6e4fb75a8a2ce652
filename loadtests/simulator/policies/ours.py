"""The gateway's own scheduling, ``searchr1.scheduling``, and the same without each of its parts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.simulator.rates import EnginePolicy
from loadtests.simulator.simulation import SimulatedRun, Simulation
from searchr1.scheduling.decisions import Admit, Decision, Expire, Moved, Pause, Refuse, Resume
from searchr1.scheduling.growth import Growth, LearnedGrowth
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.scheduler import Scheduler


@dataclass
class Known:
    """The growth of every run as it will be."""

    last_footprints: dict[str, int]
    footprints: dict[str, int]

    def remaining_tokens(self, run: str, turn: int) -> int:
        """See ``Growth``."""
        return max(0, self.last_footprints[run] - self.footprints[run])

    def learn(self, footprints: Sequence[int], last_footprint: int) -> None:
        """See ``Growth``."""


class Unexpected(LearnedGrowth):
    """No growth is expected of anyone."""

    def remaining_tokens(self, run: str, turn: int) -> int:
        """See ``Growth``."""
        return 0


@dataclass
class Ours:
    """The scheduler of the gateway. Each switch takes one part away."""

    name: str = "ours"
    engine_policy: EnginePolicy = "priority"
    tick_s: float | None = 1.0
    options: SchedulingOptions = field(
        default_factory=lambda: SchedulingOptions(max_queued=10**6, max_queued_per_tenant=10**6)
    )
    knows_growth: bool = False
    expects_growth: bool = True
    knows_capacity: bool = True
    places_by_room: bool = True
    is_fair: bool = True
    runs_per_replica: int | None = None
    """A bound on runs at once, where capacities are not known."""
    num_pauses: int = 0
    simulation: Simulation = field(init=False)

    def begin(self, simulation: Simulation) -> None:
        """See ``Policy``."""
        self.simulation = simulation
        self.runs: dict[str, SimulatedRun] = {}
        self.known = Known({run.name: run.trace.last_footprint for run in simulation.runs}, {})
        self.rng = random.Random(7)
        options = self.options
        if self.runs_per_replica is not None:
            options = SchedulingOptions(
                max_runs=self.runs_per_replica * simulation.num_replicas, max_queued=10**6, max_queued_per_tenant=10**6
            )
        self.scheduler = Scheduler(options, growth=self._growth(options))
        capacity = simulation.params.capacity_tokens if self.knows_capacity else None
        for number in range(simulation.num_replicas):
            decisions = self.scheduler.replica_changed(
                str(number), capacity, healthy=True, block_tokens=simulation.params.block_size, now=0.0
            )
            self._take(decisions)

    def _growth(self, options: SchedulingOptions) -> Growth | None:
        if self.knows_growth:
            return self.known
        return None if self.expects_growth else Unexpected(quantile=0.0, first_tokens=0)

    def came(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.runs[run.name] = run
        self.known.footprints[run.name] = run.footprint
        self._take(
            self.scheduler.submit(
                run.name,
                tenant=run.tenant if self.is_fair else "all",
                key=run.key if self.is_fair else "all",
                prompt_tokens=run.footprint,
                prefix="shared",
                prefix_tokens=run.trace.shared_tokens,
                now=now,
            )
        )

    def turn_ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.known.footprints[run.name] = run.footprint
        self._take(self.scheduler.turn_ended(run.name, run.footprint, now))

    def wants_turn(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.known.footprints[run.name] = run.footprint
        self._take(self.scheduler.turn_wanted(run.name, run.footprint, now))

    def ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        del self.runs[run.name]
        self._take(self.scheduler.ended(run.name, now, footprint_tokens=run.footprint))

    def tick(self, now: float) -> None:
        """See ``Policy``."""
        self._take(self.scheduler.tick(now))

    def keeps(self, run: SimulatedRun) -> bool:
        """See ``Policy``."""
        return False

    def _take(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Admit(run, replica) | Resume(run, replica):
                    self._start(self.runs[run], int(replica))
                case Refuse(run) | Expire(run):
                    self.simulation.refuse(self.runs.pop(run))
                case Pause():
                    self.num_pauses += 1
                case Moved():
                    pass

    def _start(self, run: SimulatedRun, replica: int) -> None:
        if not self.places_by_room:
            replica = self.rng.randrange(self.simulation.num_replicas) if run.replica < 0 else run.replica
        self.simulation.start_turn(run, replica, self.scheduler.priority(run.name))
