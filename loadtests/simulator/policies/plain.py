"""What agents do without a scheduler: every turn goes to the engine at once, or behind a fixed number of runs."""

from collections import deque
from dataclasses import dataclass, field

from loadtests.simulator.rates import EnginePolicy
from loadtests.simulator.simulation import SimulatedRun, Simulation

_AGE_MS = 2**43


@dataclass
class Plain:
    """Turns go to the engine as they come. A run stays on the replica that had fewest runs when it came.

    ``cap`` bounds the runs at once on each replica; others wait in the order of their coming.
    """

    name: str = "fcfs, no cap"
    engine_policy: EnginePolicy = "fcfs"
    cap: int | None = None
    tick_s: float | None = None
    simulation: Simulation = field(init=False)

    def begin(self, simulation: Simulation) -> None:
        """See ``Policy``."""
        self.simulation = simulation
        self.num_runs = [0] * simulation.num_replicas
        self.line: deque[SimulatedRun] = deque()

    def came(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.line.append(run)
        self._start()

    def turn_ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""

    def wants_turn(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.simulation.start_turn(run, run.replica, self.priority(run))

    def ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.num_runs[run.replica] -= 1
        self._start()

    def tick(self, now: float) -> None:
        """See ``Policy``."""

    def keeps(self, run: SimulatedRun) -> bool:
        """See ``Policy``."""
        return False

    def priority(self, run: SimulatedRun) -> int:
        """Return the engine's priority: later turns first, then older runs."""
        return int(run.came_at * 1000) - run.turn * _AGE_MS

    def _start(self) -> None:
        while self.line:
            replica = min(range(len(self.num_runs)), key=self.num_runs.__getitem__)
            if self.cap is not None and self.num_runs[replica] >= self.cap:
                return
            self.num_runs[replica] += 1
            run = self.line.popleft()
            self.simulation.start_turn(run, replica, self.priority(run))
