"""``searchr1`` as a release would be that stores plans of the next version: the rest of it is this one."""

from dataclasses import dataclass

import msgspec

from searchr1.cli.main import main
from searchr1.gateway.access import stored_plan
from searchr1.gateway.access.stored_plan import StoredPlan
from searchr1.gateway.runs import hub

NEXT = stored_plan.VERSION + 1


@dataclass(frozen=True)
class _Added:
    """What the next release would have that this one does not know."""

    version: int = NEXT
    of_the_next_release: str = "nobody reads this"


def encode_plan(plan: StoredPlan) -> bytes:
    """Return the bytes of a plan of the next version."""
    return msgspec.json.encode({**msgspec.to_builtins(plan), **msgspec.to_builtins(_Added())})


if __name__ == "__main__":
    stored_plan.VERSION = NEXT
    vars(hub)["encode_plan"] = encode_plan
    main()
