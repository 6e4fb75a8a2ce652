"""Keys in a JSON file, which is replaced as a whole; one writer at a time."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec

from searchr1.files import whole_file
from searchr1.keyring.key_store import KeysUnreadableError, Reading, unknown_key
from searchr1.keyring.stored_key import StoredKey

VERSION = 1
_MAX_BYTES = 1 << 26
_PRIVATE = 0o600


class _KeysOnDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    keys: tuple[StoredKey, ...]


_DECODER = msgspec.json.Decoder(_KeysOnDisk)


class KeyFile:
    """A ``KeyStore`` in the file at ``path``. Blocking work is done in threads.

    Where ``path`` is a link, what it leads to is replaced and the link stays: others may know the file by another name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """See ``KeyStore``."""
        return f"the key file {self._path}"

    async def read(self, since: str | None = None) -> Reading | None:
        """See ``KeyStore``. A file with one wrong record is wrong as a whole."""
        return await asyncio.to_thread(self._read, since)

    async def add(self, key: StoredKey) -> None:
        """See ``KeyStore``. The first key makes the file."""
        await asyncio.to_thread(self._change, lambda keys: [*keys, key], creates=True)

    async def revoke(self, key_id: str, *, now: int) -> StoredKey:
        """See ``KeyStore``."""
        revoked: list[StoredKey] = []

        def change(keys: Sequence[StoredKey]) -> list[StoredKey]:
            found = next((key for key in keys if key.id == key_id), None)
            if found is None:
                raise unknown_key(self.name, key_id)
            new = found if found.revoked_at is not None else msgspec.structs.replace(found, revoked_at=now)
            revoked.append(new)
            return [new if key.id == key_id else key for key in keys]

        await asyncio.to_thread(self._change, change)
        return revoked[0]

    async def aclose(self) -> None:
        """See ``KeyStore``: nothing is held."""

    def _read(self, since: str | None = None) -> Reading | None:
        try:
            if since is not None and _mark(self._path.stat()) == since:
                return None
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_mode & 0o002:
                    raise KeysUnreadableError(f"{self.name} can be written by everyone: chmod 600 it")
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise KeysUnreadableError(
                f"{self.name} is not there; 'searchr1 keys create' makes it with its first key"
            ) from None
        except OSError as error:
            raise KeysUnreadableError(f"{self.name} cannot be read: {error.strerror or error}") from error
        return Reading(_mark(status), self._decoded(data))

    def _decoded(self, data: bytes) -> tuple[StoredKey, ...]:
        if len(data) > _MAX_BYTES:
            raise KeysUnreadableError(f"{self.name} is larger than {_MAX_BYTES >> 20} MiB")
        try:
            keys = _DECODER.decode(data).keys
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise KeysUnreadableError(f"{self.name} is damaged: {error}") from error
        if len({key.id for key in keys}) < len(keys):
            raise KeysUnreadableError(f"{self.name} has two keys with one id")
        return keys

    def _change(self, change: Callable[[Sequence[StoredKey]], Sequence[StoredKey]], *, creates: bool = False) -> None:
        path = Path(os.path.realpath(self._path))
        with self._alone(path):
            before = None
            if not creates or path.exists():
                reading = self._read()
                assert reading is not None, "nothing was read before"
                keys, before = reading.keys, path.stat()
            else:
                keys = ()
            data = msgspec.json.encode(_KeysOnDisk(version=VERSION, keys=tuple(change(keys))))
            with whole_file(path, mode=_PRIVATE) as file:
                file.write(msgspec.json.format(data, indent=2) + b"\n")
                if before is not None:
                    _own_as(file.fileno(), before)

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Hold the one writer's lock: a file beside the keys at ``path``, which are replaced."""
        lock = path.with_name(f".{path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        except OSError as error:
            raise KeysUnreadableError(f"{self.name} cannot be locked: {error.strerror or error}") from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)


def _mark(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _own_as(file: int, before: os.stat_result) -> None:
    """Give a new file the owner and the mode of the one that it replaces: a server must still be able to read it."""
    with suppress(PermissionError):
        os.fchown(file, before.st_uid, before.st_gid)
    os.fchmod(file, before.st_mode & 0o777)
