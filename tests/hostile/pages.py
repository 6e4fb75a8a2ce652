"""A hostile search result, and short ways to write many."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from searchr1.loop.types import Passage


@dataclass(frozen=True, slots=True)
class Case:
    """A named search result."""

    name: str
    category: str
    make: Callable[[], tuple[Passage, ...]]
    """Made when it is needed: some are large."""

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The passages that the search found."""
        return self.make()


def texts(category: str, **named: str) -> Iterator[Case]:
    """A case for each text."""
    for name, text in named.items():
        yield Case(f"{category}/{name}", category, partial(page, text))


def page(text: str, times: int = 1, end: str = "") -> tuple[Passage, ...]:
    """One passage: ``text``, so many ``times``, then ``end``."""
    return (Passage("1", '"Mali"', text * times + end),)


def pages(category: str, **named: tuple[tuple[str, str], ...]) -> Iterator[Case]:
    """A case for each list of titles and texts."""
    for name, found in named.items():
        passages = tuple(Passage(str(i), title, text) for i, (title, text) in enumerate(found, start=1))
        yield Case(f"{category}/{name}", category, partial(tuple, passages))


def links(category: str, **urls: str) -> Iterator[Case]:
    """A case for each URL of a harmless passage."""
    for name, url in urls.items():
        found = (Passage("1", '"Mali"', "Its capital is Bamako.", url=url),)
        yield Case(f"{category}/{name}", category, partial(tuple, found))
