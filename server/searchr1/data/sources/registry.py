"""The named sources. Each module of this package registers its own as it is imported; all are imported here."""

from collections.abc import Sequence

from searchr1.data.sources.base import NamedSource, Places, SourceFile
from searchr1.registry import Registry

SOURCES: Registry[NamedSource] = Registry("source", "searchr1.data.sources.*")


def register(source: NamedSource) -> NamedSource:
    """Make a named source known, and return it."""
    SOURCES.add(source.hint, source)
    return source


def named_sources() -> tuple[NamedSource, ...]:
    """Return all named sources, sorted by their hints."""
    return tuple(SOURCES.all().values())


def locate(names: Sequence[str], places: Places) -> tuple[SourceFile, ...]:
    """Return the files of ``names``, in their order.

    All names of one source are located at the place of the first: the paper's sets may share a file, which is then
    read in one pass.

    Raises:
        DatasetError: a source is not there, or its name means nothing.
    """
    from searchr1.data.sources.paths import files_at

    files: list[SourceFile] = []
    done: set[int] = set()
    for name in names:
        source = next((source for source in named_sources() if source.claims(name)), None)
        if source is None:
            files += files_at(name, places, hints=[source.hint for source in named_sources()])
        elif id(source) not in done:
            files += source.locate([one for one in names if source.claims(one)], places)
            done.add(id(source))
    return tuple(files)
