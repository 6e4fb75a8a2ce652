"""Who holds which room: runs charged to replicas, and the order in which an overrun replica pauses them."""

import heapq
import math
from collections.abc import Mapping

from searchr1.scheduling.crowding import Crowding
from searchr1.scheduling.growth import Growth
from searchr1.scheduling.placement import Replica, Replicas
from searchr1.scheduling.runs import Run

_SPARE_ENTRIES = 64


class Ledger:
    """The charges of runs on replicas. A run is charged its footprint and a reserve for its growth.

    The reserve is a part of what it is expected to grow by. Of many runs some are at their largest while others have
    just begun, so that half of it would do on average; the sum over n runs strays from that by about √n of them, and a
    few that began together are large together. So the part is ½ + 2/√n for n runs on a replica: all of it up to 16.
    Simulations of 20 to 250 runs a replica (``docs/results/simulator.md``) gave the two numbers.

    Charges are whole blocks of the replica's KV cache. Of a footprint the blocks that the prefix fills count apart,
    once for all the runs on a replica that begin with it.
    """

    def __init__(self, replicas: Replicas, growth: Growth, runs: Mapping[str, Run], crowding: Crowding) -> None:
        self._replicas = replicas
        self._crowding = crowding
        self._growth = growth
        self._runs = runs
        self._pausable: dict[str, list[tuple[int, int, float, int, str]]] = {}
        self._num_entries = 0
        self._num_charged = 0

    def need_tokens(self, run: Run) -> int:
        """Return what a run needs for its next turn: its footprint and its reserve."""
        return run.footprint_tokens + self._reserve(run)

    def fits(self, run: Run, replica: Replica) -> bool:
        """Return whether a replica has room for a run's next turn."""
        return replica.fits(self.need_tokens(run), run.prefix, run.prefix_tokens)

    def place(self, run: Run) -> Replica | None:
        """Return an open replica with room for a run's next turn."""
        return self._replicas.place(self.need_tokens(run), run.prefix, run.prefix_tokens)

    def charge(self, run: Run, replica: Replica) -> None:
        """Charge a run to the replica on which it takes its next turn."""
        run.growth_tokens = self._reserve(run)
        self._num_charged += 1
        run.replica = replica.name
        replica.runs.add(run.name)
        if run.prefix is not None:
            run.shared_tokens = self._share(replica, run.prefix, run.prefix_tokens)
        self._charge(run, replica)
        self._offer(run, replica)

    def release(self, run: Run) -> Replica:
        """Take a run's charge off its replica, which is returned."""
        replica = self.replica_of(run)
        self._num_charged -= 1
        replica.runs.discard(run.name)
        if run.prefix is not None:
            self._unshare(replica, run.prefix)
        self._hold(run, replica, 0, 0)
        run.will_pause, run.growth_tokens, run.shared_tokens, run.entry = False, 0, 0, 0
        if not replica.runs and not replica.healthy:
            self.forget(replica.name)
            self._replicas.drop(replica.name)
        return replica

    def forget(self, replica: str) -> None:
        """Forget a replica that has no runs."""
        self._pausable.pop(replica, None)

    def grow(self, run: Run, footprint_tokens: int) -> None:
        """Change the footprint of a run that holds room. What it grew by is taken from its reserve."""
        replica = self.replica_of(run)
        grown = footprint_tokens - run.footprint_tokens
        run.growth_tokens = max(0, run.growth_tokens - max(0, grown))
        run.footprint_tokens = footprint_tokens
        self._charge(run, replica)
        self._offer(run, replica)

    def expect(self, run: Run) -> None:
        """Reserve anew for a run that holds room, as its next turn begins."""
        run.growth_tokens = self._reserve(run)
        self._charge(run, self.replica_of(run))

    def mark(self, run: Run) -> None:
        """Count a run as leaving: it pauses at the end of its turn."""
        run.will_pause = True
        replica = self.replica_of(run)
        replica.leaving_tokens += run.claimed_tokens
        self._add(replica, -run.held_tokens, 0)

    def victim(self, replica: Replica, max_pause_s: float) -> Run | None:
        """Return the run that an overrun replica pauses next: of those with fewest turns, the smallest.

        A token that is freed costs a token to recompute, whoever gives it; but a run with few turns is furthest from
        its end, and what the others hold is free sooner. A run that has waited for ``max_pause_s`` is left alone, and
        so is the last one.
        """
        heap = self._pausable.get(replica.name, [])
        while heap and len(replica.runs) > 1:
            *_, entry, name = heapq.heappop(heap)
            run = self._runs.get(name)
            if run is not None and run.entry == entry and not run.will_pause and run.waited_s < max_pause_s:
                return run
        return None

    def replica_of(self, run: Run) -> Replica:
        """Return the replica that a run is charged to."""
        assert run.replica is not None, "a run that holds room has a replica"
        return self._replicas[run.replica]

    def _reserve(self, run: Run) -> int:
        if run.known_growth_tokens is not None:
            grown = run.footprint_tokens - run.footprints[0] if run.footprints else 0
            return max(0, run.known_growth_tokens - grown)
        runs_per_replica = self._num_charged / max(1, self._replicas.num_healthy)
        part = min(1.0, 0.5 + 2 / math.sqrt(runs_per_replica)) if runs_per_replica else 1.0
        return int(part * self._growth.remaining_tokens(run.name, run.turn + 1))

    def _charge(self, run: Run, replica: Replica) -> None:
        """Charge a run what it holds and may need now, in place of what it was charged before."""
        held = replica.in_blocks(run.footprint_tokens)
        claimed = replica.in_blocks(run.footprint_tokens + run.growth_tokens)
        self._hold(run, replica, held - run.shared_tokens, claimed - run.shared_tokens)

    def _hold(self, run: Run, replica: Replica, held_tokens: int, claimed_tokens: int) -> None:
        more_held, more_claimed = held_tokens - run.held_tokens, claimed_tokens - run.claimed_tokens
        run.held_tokens, run.claimed_tokens = held_tokens, claimed_tokens
        self._crowding.held(run.ticket.tenant, more_claimed)
        if run.will_pause:
            replica.leaving_tokens += more_claimed
        self._add(replica, 0 if run.will_pause else more_held, more_claimed)

    def _add(self, replica: Replica, footprint_tokens: int, reserved_tokens: int) -> None:
        replica.footprint_tokens += footprint_tokens
        replica.reserved_tokens += reserved_tokens
        self._replicas.room_changed(replica)

    def _share(self, replica: Replica, prefix: str, prefix_tokens: int) -> int:
        """Count one more run with a prefix; return how many of the run's own tokens are charged with the prefix."""
        own_tokens = replica.shareable(prefix_tokens)
        num_runs, tokens = replica.prefixes.get(prefix, (0, own_tokens))
        replica.prefixes[prefix] = num_runs + 1, tokens
        if num_runs == 0:
            self._add(replica, tokens, tokens)
        self._replicas.has_prefix(replica, prefix)
        return own_tokens

    def _unshare(self, replica: Replica, prefix: str) -> None:
        num_runs, tokens = replica.prefixes.pop(prefix)
        if num_runs > 1:
            replica.prefixes[prefix] = num_runs - 1, tokens
        else:
            self._add(replica, -tokens, -tokens)

    def _offer(self, run: Run, replica: Replica) -> None:
        """Put a run among those that its replica may pause, in place of its former entry."""
        self._num_entries += 1
        run.entry = self._num_entries
        heap = self._pausable.setdefault(replica.name, [])
        if len(heap) > 4 * len(replica.runs) + _SPARE_ENTRIES:
            heap[:] = [entry for entry in heap if (found := self._runs.get(entry[-1])) and found.entry == entry[-2]]
            heapq.heapify(heap)
        heapq.heappush(heap, (run.turn, run.footprint_tokens, -run.submitted_at, run.entry, run.name))
