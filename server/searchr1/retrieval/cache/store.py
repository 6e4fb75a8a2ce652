"""The protocol of stores that the search cache keeps its entries in, and the bytes of an entry.

An entry is ``SR1`` + one byte for how the body is packed + CRC-32 of the body (4 bytes, big-endian) + the body: a
MessagePack array, as it is or deflated. Whatever else is read back counts as no entry.
"""

import math
import zlib
from typing import Protocol, TypeVar

import msgspec

from searchr1.loop.types import Passage
from searchr1.retrieval.base import FailureKind

_MAGIC = b"SR1"
_PLAIN, _DEFLATED = b"p", b"z"
_HEAD_BYTES = len(_MAGIC) + 1 + 4
_DEFLATE_LEVEL = 1  # searches wait for it; higher levels save little on a few kilobytes of prose


class StoreError(Exception):
    """Failure of a store to answer in time."""


class StoreRefusedError(StoreError):
    """Refusal of an operation by a store that answers: it is full, say, or read-only."""


class ByteStore(Protocol):
    """Bytes by key, each for some time. Every method may raise ``StoreError``; none changes a key in part.

    Keys that share their part in braces may be kept together; a key has at most one such part.
    """

    async def get(self, key: str) -> bytes | None:
        """Return the value of ``key``, None if there is none."""

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """Give ``key`` this value for ``ttl_s`` seconds."""

    async def claim(self, key: str, token: str, ttl_s: float) -> str:
        """Give ``key`` the value ``token`` for ``ttl_s`` seconds unless it has a value; return the one it has then."""

    async def release(self, key: str, token: str) -> None:
        """Drop ``key`` if its value is still ``token``."""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """Passages that a provider found; ``stored_at_s`` is in seconds of Unix time."""

    stored_at_s: float
    provider: str
    passages: tuple[Passage, ...]


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """Failure of a search that other processes wait for."""

    kind: FailureKind
    message: str
    retry_after_s: float | None
    provider: str


R = TypeVar("R", Entry, Failure)

_encoder = msgspec.msgpack.Encoder()


def pack(record: Entry | Failure, *, max_bytes: int, compress_over_bytes: int) -> bytes | None:
    """Return the bytes of ``record``, None for one that takes more than ``max_bytes`` before it is deflated.

    Text that has no UTF-8 form (lone surrogates) cannot be kept either.
    """
    try:
        body = _encoder.encode(record)
    except UnicodeEncodeError:
        return None
    if len(body) > max_bytes:
        return None
    form = _PLAIN
    if len(body) > compress_over_bytes:
        form, body = _DEFLATED, zlib.compress(body, _DEFLATE_LEVEL)
    return _MAGIC + form + zlib.crc32(body).to_bytes(4, "big") + body


def unpack(data: bytes, kind: type[R], *, max_bytes: int) -> R | None:
    """Return the record in ``data``, None if it is damaged, foreign or larger than ``max_bytes``; never raise."""
    magic, form, crc, body = data[:3], data[3:4], data[4:_HEAD_BYTES], data[_HEAD_BYTES:]
    if magic != _MAGIC or form not in (_PLAIN, _DEFLATED) or crc != zlib.crc32(body).to_bytes(4, "big"):
        return None
    plain = body if form == _PLAIN else _inflate(body, max_bytes)
    if plain is None or len(plain) > max_bytes:
        return None
    try:
        record = msgspec.msgpack.decode(plain, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(record, Entry) and not math.isfinite(record.stored_at_s):
        return None
    return record


def _inflate(body: bytes, max_bytes: int) -> bytes | None:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        return None
    return plain if inflater.eof and not inflater.unused_data else None
