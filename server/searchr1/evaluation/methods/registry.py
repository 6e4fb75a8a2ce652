"""The methods that an evaluation compares. Each registers itself in a file of this package; all are imported here.

The help of ``searchr1 eval`` names them, so these files import what is heavy (tokenizer, driver) when a method runs.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchr1.registry import Registry

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial

SEARCH_R1 = "search-r1"
"""The method that is evaluated where none is named."""

Run = Callable[["Trial"], Awaitable[None]]
"""One method on one question: it writes what it does into ``trial.outcome``.

Raises ``EngineError`` and ``ReservedTextError``.
"""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to answer a question on an engine and a retriever."""

    name: str
    """The command line's name for it."""
    title: str
    """The paper's name for it, which tables show."""
    order: int
    """Place among the methods that help lists."""
    paper_row: int
    """Place among the rows of the paper's table, and of ours."""
    searches: bool
    """True where it needs a retriever."""
    run: Run


METHODS: Registry[Method] = Registry("method", "searchr1.evaluation.methods.*")


def register(name: str, *, title: str, order: int, paper_row: int, searches: bool) -> Callable[[Run], Run]:
    """Decorator: make a method known as ``name``. Raises ``ValueError`` where another one has that name."""

    def add(run: Run) -> Run:
        METHODS.add(name, Method(name, title, order, paper_row, searches, run))
        return run

    return add


def all_methods() -> tuple[Method, ...]:
    """Return all methods, in the order of help."""
    return tuple(sorted(METHODS.all().values(), key=lambda method: method.order))


def method_named(name: str) -> Method:
    """Return the method registered as ``name``. Raises ``ConfigurationError`` where there is none."""
    return METHODS.named(name)
