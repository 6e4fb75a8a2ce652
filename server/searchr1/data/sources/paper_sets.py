"""The seven sets of the paper: ``nq`` and its like, or ``seven`` for all, looked up in ``Places.data``."""

from collections.abc import Iterator, Sequence

from searchr1.data.sets import SETS, SEVEN, UPSTREAM_REPO, set_named
from searchr1.data.sources.base import NamedSource, Places, SourceFile
from searchr1.data.sources.paths import first_file, no_file, own_names, root_of, set_in, shared_names
from searchr1.data.sources.registry import register
from searchr1.errors import DatasetError


def _locate(names: Sequence[str], places: Places) -> Iterator[SourceFile]:
    """Yield a file of its own for each set that has one, then one file that the others share."""
    sets = dict.fromkeys(known for name in names for known in (SETS if name == SEVEN else (set_named(name),)) if known)
    data = UPSTREAM_REPO if places.data is None else places.data
    of_many = shared_names(places.split)
    root = root_of(data, [*of_many, *(name for one in sets for name in own_names(one, places.split))])
    shared: set[str] = set()
    for name in sets:
        own = None if root.is_file() else first_file(root, own_names(name, places.split))
        if own is None:
            shared.add(name)
        else:
            yield SourceFile(own, name)
    if not shared:
        return
    path = root if root.is_file() else first_file(root, of_many)
    if path is None:
        first = next(name for name in sets if name in shared)
        raise DatasetError(no_file(data, places.split, [*own_names(first, places.split)[:1], *of_many]))
    yield SourceFile(path, set_in(path), frozenset(shared))


register(
    NamedSource(
        f"one of {', '.join(SETS)}, '{SEVEN}' for all of these",
        lambda name: name == SEVEN or set_named(name) is not None,
        _locate,
    )
)
