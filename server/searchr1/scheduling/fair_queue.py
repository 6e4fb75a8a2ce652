"""The queue before admission: deficit round robin over tenants by weight and, inside each, over their keys alike.

Whoever has the turn gets a quantum times its weight to spend on the cost of its first items, keeps what it cannot
spend yet, and goes to the end of the round; whoever has nothing queued keeps nothing. So over any stretch in which two
tenants both have items queued, the costs served to them, divided by their weights, differ by at most a constant, and a
tenant alone gets everything (M. Shreedhar and G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995).

``head`` names the next item without taking it: the caller takes it when there is room, and until then nobody passes it.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0
"""Bounds of a tenant's weight."""


class _Cost(Protocol):
    @property
    def cost(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Ticket:
    """A run in the queue."""

    run: str
    tenant: str
    key: str
    cost: int
    """What it takes of its tenant's share: tokens. At least 1."""
    tenant_weight: float = 1.0
    rank: float = 0.0
    """Among the runs of its key the lowest goes first."""


class FairQueue:
    """Runs that wait for their start, in a fair order."""

    def __init__(self) -> None:
        self._tenants: _Round[_Tenant] = _Round()
        self._num_by_tenant: dict[str, int] = {}
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def num_of(self, tenant: str) -> int:
        """Return the number of runs that a tenant has queued."""
        return self._num_by_tenant.get(tenant, 0)

    @property
    def num_tenants(self) -> int:
        """Number of tenants that have runs queued."""
        return len(self._num_by_tenant)

    def add(self, ticket: Ticket) -> None:
        """Put a ticket among the others of its key, by its rank."""
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            tenant = _Tenant()
            self._tenants.add(ticket.tenant, tenant)
        self._tenants.weigh(ticket.tenant, ticket.tenant_weight)
        tenant.add(ticket)
        self._num_by_tenant[ticket.tenant] = self.num_of(ticket.tenant) + 1
        self._num += 1

    def head(self, skipped: str | None = None) -> Ticket | None:
        """Return the ticket whose turn it is, were there no tenant ``skipped``."""
        found = self._tenants.head(skipped)
        return None if found is None else found[1].head()

    def take(self, skipped: str | None = None) -> Ticket:
        """Take the ticket that ``head`` returns, which must not be None."""
        found = self._tenants.head(skipped)
        assert found is not None, "the queue is empty"
        name, tenant = found
        ticket = tenant.head()
        self._tenants.spend(name, ticket.cost)
        tenant.spend(ticket)
        self.remove(ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands."""
        tenant = self._tenants.get(ticket.tenant)
        assert tenant is not None, "a queued ticket's tenant is in the round"
        tenant.remove(ticket)
        if not tenant:
            self._tenants.drop(ticket.tenant)
        self._num -= 1
        left = self._num_by_tenant.pop(ticket.tenant) - 1
        if left:
            self._num_by_tenant[ticket.tenant] = left

    def place(self, ticket: Ticket) -> int:
        """Return how many runs are expected to start before this one, which is in the queue."""
        tenant = self._tenants.get(ticket.tenant)
        return self._expected(ticket, 0 if tenant is None else tenant.num_before(ticket))

    def places(self) -> list[tuple[Ticket, int]]:
        """Return all tickets with their places; this takes as long as the queue is."""
        return [
            (ticket, self._expected(ticket, ahead))
            for tenant in self._tenants
            for ahead, ticket in tenant.in_order_of_keys()
        ]

    def _expected(self, ticket: Ticket, ahead: int) -> int:
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            return 0
        in_tenant = min((ahead + 1) * len(tenant) - 1, self.num_of(ticket.tenant) - 1)
        return min((in_tenant + 1) * len(self._tenants) - 1, self._num - 1)


class _Tenant:
    """One tenant's keys."""

    def __init__(self) -> None:
        self._keys: _Round[_Key] = _Round()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def cost(self) -> int:
        return self.head().cost

    def num_before(self, ticket: Ticket) -> int:
        line = self._keys.get(ticket.key)
        return 0 if line is None else line.num_before(ticket)

    def add(self, ticket: Ticket) -> None:
        line = self._keys.get(ticket.key)
        if line is None:
            line = _Key()
            self._keys.add(ticket.key, line)
        line.add(ticket)

    def head(self) -> Ticket:
        found = self._keys.head()
        assert found is not None, "a tenant without items is not in the round"
        return found[1].head()

    def spend(self, ticket: Ticket) -> None:
        self._keys.spend(ticket.key, ticket.cost)

    def remove(self, ticket: Ticket) -> None:
        line = self._keys.get(ticket.key)
        assert line is not None, "a queued ticket's key is in the round"
        line.remove(ticket)
        if not line:
            self._keys.drop(ticket.key)

    def in_order_of_keys(self) -> list[tuple[int, Ticket]]:
        return [item for line in self._keys for item in enumerate(line)]


class _Key:
    """One key's tickets, lowest rank first; of equals the one that came first."""

    def __init__(self) -> None:
        self._line: list[tuple[float, int, Ticket]] = []
        self._numbers: dict[str, int] = {}
        self._num_added = 0

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for _, _, ticket in self._line)

    @property
    def cost(self) -> int:
        return self.head().cost

    def add(self, ticket: Ticket) -> None:
        self._num_added += 1
        self._numbers[ticket.run] = self._num_added
        insort(self._line, (ticket.rank, self._num_added, ticket))

    def num_before(self, ticket: Ticket) -> int:
        return bisect_left(self._line, (ticket.rank, self._numbers[ticket.run], ticket))

    def head(self) -> Ticket:
        return self._line[0][-1]

    def remove(self, ticket: Ticket) -> None:
        del self._line[self.num_before(ticket)], self._numbers[ticket.run]


_Member = TypeVar("_Member", bound=_Cost)


class _Round(Generic[_Member]):
    """One level of deficit round robin. The quantum is the largest cost seen, so that one visit serves a whole item."""

    def __init__(self) -> None:
        self._members: OrderedDict[str, _Member] = OrderedDict()
        self._weights: dict[str, float] = {}
        self._deficits: dict[str, float] = {}
        self._quantum = 1
        self._visited: str | None = None
        """The member in front, once it has got its quantum for this visit."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[_Member]:
        return iter(self._members.values())

    def get(self, name: str) -> _Member | None:
        return self._members.get(name)

    def add(self, name: str, member: _Member) -> None:
        """Add a member at the end of the round."""
        self._members[name] = member
        self._deficits[name] = 0.0
        self._weights[name] = 1.0

    def weigh(self, name: str, weight: float) -> None:
        self._weights[name] = min(max(weight, MIN_WEIGHT), MAX_WEIGHT)

    def head(self, skipped: str | None = None) -> tuple[str, _Member] | None:
        """Return the member that may be served, going round until one can pay for its first item."""
        while len(self._members) > (skipped in self._members):
            name, member = next(iter(self._members.items()))
            if name == skipped:
                # It saves nothing up by being passed over.
                self._deficits[name] = min(self._deficits[name], member.cost)
                self._members.move_to_end(name)
                self._visited = None
                continue
            cost = member.cost
            self._quantum = max(self._quantum, cost)
            if self._visited != name:
                self._deficits[name] += self._quantum * self._weights[name]
                self._visited = name
            if self._deficits[name] >= cost:
                return name, member
            self._members.move_to_end(name)
            self._visited = None
        return None

    def spend(self, name: str, cost: int) -> None:
        """Charge the member that ``head`` returned."""
        self._deficits[name] -= cost

    def drop(self, name: str) -> None:
        """Remove a member that has nothing left."""
        del self._members[name], self._weights[name], self._deficits[name]
        if self._visited == name:
            self._visited = None
        if not self._members:
            self._quantum = 1
