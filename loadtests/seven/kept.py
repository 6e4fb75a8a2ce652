"""What is kept of a row beside its records: command, seed, checkpoint and time; and the places of the questions."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.seven.questions import Asked
from searchr1.errors import ConfigurationError
from searchr1.files import whole_file

_DIGESTED = ("*.safetensors", "config.json", "tokenizer.json", "chat_template.jinja")
_PLACES = "places.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a row's records were made with."""

    row: str
    sampling: str
    """``greedy``, or ``sampled-1`` and so on."""
    seed: int | None
    command: str
    model: str
    """Name of the checkpoint's folder."""
    digest: str
    """Start of the SHA-256 of the checkpoint's weights, configuration and tokenizer."""
    made: str = ""
    """How the checkpoint was made."""
    num_questions: int = 0
    per_set: int | None = None
    """Questions asked of each set; None means all."""
    num_without_gold: int = 0
    """Questions of a row with gold passages whose passages are not in the corpus."""
    sessions: tuple[tuple[float, float | None], ...] = ()
    """Beginnings and ends, in seconds since 1970; an end is missing while a session goes on, or where it was killed."""
    made_with: dict[str, str] = field(default_factory=dict)
    """Versions, commit, machine."""

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.row}.{self.sampling}"

    @property
    def wall_s(self) -> float:
        """Seconds of all its sessions."""
        return sum(ended - began for began, ended in self.sessions if ended is not None)

    @property
    def is_finished(self) -> bool:
        """True where its last session came to its end."""
        return bool(self.sessions) and self.sessions[-1][1] is not None


_KEPT = TypeAdapter(Kept)


def rows_folder(out: Path) -> Path:
    """Return the folder of the rows' files."""
    return out / "rows"


def records_file(out: Path, name: str) -> Path:
    """Return the file of a row's records."""
    return rows_folder(out) / f"{name}.jsonl"


def read_kept(out: Path) -> list[Kept]:
    """Return what is kept in ``out``, by name.

    Raises:
        ValidationError: a file is none of ours.
    """
    files = sorted(rows_folder(out).glob("*.kept.json"))
    return [_KEPT.validate_json(file.read_bytes()) for file in files]


def write_kept(out: Path, kept: Kept) -> None:
    """Write what is kept of a row."""
    _write_json(rows_folder(out) / f"{kept.name}.kept.json", asdict(kept))


def begun(out: Path, kept: Kept) -> Kept:
    """Write ``kept`` with a session more than it had, which begins now, and return it.

    A session that was killed ended when it last wrote a record.

    Raises:
        ConfigurationError: there are results of another checkpoint.
    """
    before = next((one for one in read_kept(out) if one.name == kept.name), None)
    if before is not None and before.digest != kept.digest:
        raise ConfigurationError(f"{out} holds results of another checkpoint for {kept.name}: give another folder")
    sessions = list(before.sessions) if before is not None else []
    records = records_file(out, kept.name)
    if sessions and sessions[-1][1] is None:
        began = sessions[-1][0]
        sessions[-1] = (began, max(began, records.stat().st_mtime) if records.exists() else began)
    kept = replace(kept, sessions=(*sessions, (time.time(), None)))
    write_kept(out, kept)
    return kept


def ended(out: Path, kept: Kept) -> Kept:
    """Write ``kept`` with its last session ended now, and return it."""
    *before, (began, _) = kept.sessions
    kept = replace(kept, sessions=(*before, (began, time.time())))
    write_kept(out, kept)
    return kept


def digest_of(checkpoint: Path) -> str:
    """Return the start of the SHA-256 of a checkpoint's weights, configuration and tokenizer."""
    digest = sha256()
    for path in sorted({path for pattern in _DIGESTED for path in checkpoint.glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Place:
    """What the page must know of a question: no text of it."""

    set: str
    cluster: str
    is_yes_no: bool
    hops: int | None


_PLACE = TypeAdapter(dict[str, Place])


def write_places(out: Path, questions: Iterable[Asked]) -> None:
    """Add the questions' places to those that are kept."""
    places = read_places(out) | {
        one.question.id: Place(one.question.data_source or "", one.cluster, one.is_yes_no, one.question.hops)
        for one in questions
    }
    _write_json(out / _PLACES, {name: asdict(place) for name, place in places.items()})


def read_places(out: Path) -> dict[str, Place]:
    """Return the places that are kept, by the question's id; none where there is no such file."""
    path = out / _PLACES
    return _PLACE.validate_json(path.read_bytes()) if path.is_file() else {}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")
