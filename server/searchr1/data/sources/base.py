"""The contract of a named source of questions: names in, files of questions out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA_DIR = Path("data")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of questions, and which of its rows are meant."""

    path: Path
    data_source: str | None = None
    """Data source of the rows that do not name theirs."""
    only: frozenset[str] | None = None
    """The data sources whose rows are meant; None means all rows."""


@dataclass(frozen=True, slots=True)
class Places:
    """The split to read, and the places where names are looked up."""

    split: str = "test"
    """Split of Atlas, of folders and of hub datasets; a file is read whole."""
    data_dir: Path = DATA_DIR
    """Folder that holds ``atlas``."""
    data: str | None = None
    """A file, folder or hub dataset that holds the seven sets; None is upstream's."""


@dataclass(frozen=True, slots=True)
class NamedSource:
    """A source that is called by name, such as ``atlas``. ``registry.register`` makes one known::

    register(NamedSource("'mine'", lambda name: name == "mine", lambda names, places: [SourceFile(Path("q.jsonl"))]))
    """

    hint: str
    """Its names, as an error message lists them."""
    claims: Callable[[str], bool]
    """True for a name that means this source."""
    locate: Callable[[Sequence[str], Places], Iterable[SourceFile]]
    """The files of all claimed names of one call, in their order. Raises ``DatasetError``."""
