"""``atlas``: the bundled world's questions."""

from collections.abc import Iterator, Sequence

from searchr1.data.sources.base import NamedSource, Places, SourceFile
from searchr1.data.sources.registry import register
from searchr1.errors import DatasetError

ATLAS = "atlas"


def _locate(names: Sequence[str], places: Places) -> Iterator[SourceFile]:
    path = places.data_dir / ATLAS / f"questions-{places.split}.jsonl"
    if not path.exists():
        raise DatasetError(f"{path} does not exist. Write the Atlas world with: searchr1 demo build")
    for _ in names:
        yield SourceFile(path, ATLAS)


register(NamedSource(f"'{ATLAS}'", lambda name: name == ATLAS, _locate))
