"""A router that guesses footprints, after ThunderAgent (arXiv 2602.13692, and its public router as of 2026-11).

Every ``tick_s`` it looks at each replica: capacity, less the tokens of the programs there, less 100 tokens for each.
Programs that wait resume first, then, where less than nothing is left, programs pause: those that run a tool first, the
smallest first, then those on the engine, at the end of their request. A new program starts at once where nobody waits
and there is room, else at a tick. Resumed are, as far as the room of all replicas goes: programs whose next request
waits, then new ones, then those still at their tool; the smallest first of each; the largest of those chosen gets the
replica with most room. Requests are served first come, first served. Footprints are those of the last request, which
the engine's usage tells, and the length of the next one's text.
"""

from dataclasses import dataclass, field

from loadtests.simulator.rates import EnginePolicy
from loadtests.simulator.simulation import SimulatedRun, Simulation

_BUFFER_TOKENS = 100


@dataclass
class Guessed:
    """Programs pause and resume by a look at each replica now and then."""

    name: str = "ThunderAgent-like"
    engine_policy: EnginePolicy = "fcfs"
    tick_s: float | None = 2.0
    simulation: Simulation = field(init=False)

    def begin(self, simulation: Simulation) -> None:
        """See ``Policy``."""
        self.simulation = simulation
        self.active: list[dict[str, SimulatedRun]] = [{} for _ in range(simulation.num_replicas)]
        self.tokens = [0] * simulation.num_replicas
        self.told: dict[str, int] = {}
        self.marked: set[str] = set()
        self.marked_tokens = [0] * simulation.num_replicas
        self.waiting: dict[str, SimulatedRun] = {}
        self.wanting: set[str] = set()
        self.acting: set[str] = set()

    def room(self, replica: int) -> int:
        """Return the tokens that a replica has left by the router's count."""
        held = self.tokens[replica] + _BUFFER_TOKENS * len(self.active[replica])
        return self.simulation.params.capacity_tokens - held + self.marked_tokens[replica]

    def came(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        need = run.footprint + _BUFFER_TOKENS
        fitting = [replica for replica in range(len(self.tokens)) if self.room(replica) >= need]
        self.wanting.add(run.name)
        if self.waiting or not fitting:
            self.waiting[run.name] = run
        else:
            self._resume(run, min(fitting, key=self.tokens.__getitem__))

    def turn_ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self._tell(run)
        self.acting.add(run.name)
        if run.name in self.marked:
            self._pause(run)

    def wants_turn(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.acting.discard(run.name)
        if run.name in self.waiting:
            self.wanting.add(run.name)
        else:
            self._tell(run)
            self.simulation.start_turn(run, run.replica)

    def ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self._forget(run)

    def tick(self, now: float) -> None:
        """See ``Policy``."""
        self._resume_some()
        for replica in range(len(self.tokens)):
            self._pause_some(replica)

    def keeps(self, run: SimulatedRun) -> bool:
        """See ``Policy``."""
        return False

    def _tell(self, run: SimulatedRun) -> None:
        grown = run.footprint - self.told.get(run.name, 0)
        self.told[run.name] = run.footprint
        self.tokens[run.replica] += grown
        if run.name in self.marked:
            self.marked_tokens[run.replica] += grown

    def _forget(self, run: SimulatedRun) -> None:
        tokens = self.told.pop(run.name)
        self.tokens[run.replica] -= tokens
        del self.active[run.replica][run.name]
        if run.name in self.marked:
            self.marked.discard(run.name)
            self.marked_tokens[run.replica] -= tokens

    def _pause(self, run: SimulatedRun) -> None:
        self._forget(run)
        self.waiting[run.name] = run

    def _resume(self, run: SimulatedRun, replica: int) -> None:
        run.replica = replica
        self.active[replica][run.name] = run
        self._tell(run)
        if run.name in self.wanting:
            self.wanting.discard(run.name)
            self.simulation.start_turn(run, replica)

    def _resume_some(self) -> None:
        rooms = [(self.room(replica), replica) for replica in range(len(self.tokens))]
        rooms = sorted((room, replica) for room, replica in rooms if room > _BUFFER_TOKENS)
        total = sum(room for room, _ in rooms)
        chosen = []
        for run in sorted(self.waiting.values(), key=self._rank):
            need = run.footprint + _BUFFER_TOKENS
            if need <= total:
                chosen.append(run)
                total -= need
        for run in sorted(chosen, key=lambda run: -run.footprint):
            need = run.footprint + _BUFFER_TOKENS
            if not rooms or need > rooms[-1][0]:
                continue
            room, replica = rooms.pop()
            del self.waiting[run.name]
            self._resume(run, replica)
            if room - need > _BUFFER_TOKENS:
                rooms = sorted([*rooms, (room - need, replica)])

    def _rank(self, run: SimulatedRun) -> tuple[int, int]:
        group = 1 if run.turn == 0 else 0 if run.name in self.wanting else 2
        return group, run.footprint

    def _pause_some(self, replica: int) -> None:
        if self.room(replica) >= 0:
            return
        by_size = sorted(self.active[replica].values(), key=lambda run: run.footprint)
        for run in [run for run in by_size if run.name in self.acting]:
            if self.room(replica) >= 0:
                return
            self._pause(run)
        for run in [run for run in by_size if run.name not in self.acting and run.name not in self.marked]:
            if self.room(replica) >= 0:
                return
            self.marked.add(run.name)
            self.marked_tokens[replica] += self.told[run.name]
