"""The bytes of a stored run, which outlive releases.

A state is JSON, a record deflated JSON, an entry of the log some lines of JSON. All say their version. Readers ignore
fields that they do not know, and refuse a newer version, damage, and what is too large, before it is inflated.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import msgspec

from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta, RunState, RunUnreadableError

VERSION = 1
"""Raised only where a reader that ignores unknown fields would misread."""
MAX_STATE_BYTES = 16 * 2**20
MAX_RECORD_BYTES = 32 * 2**20
"""Bound of a record's JSON: far above what a run's token budget and its passages take."""
MAX_LOG_BYTES = 64 * 2**20
"""Bound of what is read of a log: it says a record's text in pieces, each with an envelope."""
EVENTS, ENTRY_VERSION, INPUTS = b"e", b"v", b"i"
"""Fields of a log's entry."""

# Beside the request's own fields: readers of the release before refuse one that they do not know anywhere else.
_STATE_VERSION = "store_version"
_EPOCH = "store_epoch"
_NEWER = "a newer release wrote it"
_DAMAGED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Owned(msgspec.Struct):
    scope: str
    kind: str


class _Salvaged(msgspec.Struct):
    meta: _Owned


def encode_state(state: RunState) -> bytes:
    """Return the bytes of a state."""
    fields = asdict(state)
    fields["meta"]["request"][_STATE_VERSION] = VERSION
    if epoch := fields["meta"].pop("epoch"):
        fields["meta"]["request"][_EPOCH] = epoch
    return msgspec.json.encode(fields)


def decode_state(run_id: str, data: bytes) -> RunState:
    """Return the state of the run ``run_id``.

    Raises:
        RunUnreadableError: ``data`` is none that this release can read; it tells the owner where that still can be.
    """
    try:
        if len(data) > MAX_STATE_BYTES:
            raise RunUnreadableError(run_id, "its state is too large")
        try:
            state = msgspec.json.decode(data, type=RunState)
        except _DAMAGED as error:
            raise RunUnreadableError(run_id, "its state is damaged, or of another release") from error
        _require_version(run_id, state.meta.request.pop(_STATE_VERSION, VERSION))
        if state.meta.id != run_id:
            raise RunUnreadableError(run_id, "its state is another run's")
        epoch = state.meta.request.pop(_EPOCH, 0)
        if not isinstance(epoch, int):
            raise RunUnreadableError(run_id, "its state is damaged, or of another release")
        return replace(state, meta=replace(state.meta, epoch=epoch))
    except RunUnreadableError as error:
        error.scope, error.kind = _owner_in(data)
        raise


def owner_token(meta: RunMeta) -> str:
    """Return the word by which the store knows a run's owner: no owner before or after has the same."""
    return f"{meta.epoch} {meta.replica}"


def encode_lease(sorts: Sequence[str]) -> bytes:
    """Return the bytes of a lease: the sorts of runs that its replica takes over."""
    return msgspec.json.encode(list(sorts))


def takes_runs_of(lease: bytes, sort: str) -> bool:
    """Return whether a lease's replica takes runs of a sort; one of the release before does not tell, and may."""
    try:
        return sort in msgspec.json.decode(lease, type=list[str])
    except _DAMAGED:
        return True


def encode_record(record: bytes) -> bytes:
    """Return the bytes of a record, whose JSON says its version as ``schema_version``."""
    return zlib.compress(record, 1)


def decode_record(run_id: str, data: bytes) -> bytes:
    """Return a record's JSON. Raises ``RunUnreadableError``."""
    inflater = zlib.decompressobj()
    try:
        record = inflater.decompress(data, MAX_RECORD_BYTES + 1)
    except zlib.error as error:
        raise RunUnreadableError(run_id, "its record is damaged") from error
    if len(record) > MAX_RECORD_BYTES:
        raise RunUnreadableError(run_id, "its record is too large")
    if not inflater.eof:
        raise RunUnreadableError(run_id, "its record is cut off")
    return record


def decode_entry(run_id: str, last_seq: int, fields: Mapping[bytes, bytes]) -> list[LoggedEvent]:
    """Return the events in an entry of the log whose last one is ``last_seq``. Raises ``RunUnreadableError``."""
    version = fields.get(ENTRY_VERSION, b"1")
    _require_version(run_id, int(version) if version.isdigit() and len(version) < 10 else None)
    if EVENTS not in fields:
        raise RunUnreadableError(run_id, "its log is damaged")
    parts = fields[EVENTS].split(b"\n")
    return [LoggedEvent(last_seq - len(parts) + 1 + i, data) for i, data in enumerate(parts)]


def _require_version(run_id: str, version: Any) -> None:
    if not isinstance(version, int) or version > VERSION:
        raise RunUnreadableError(run_id, _NEWER)


def _owner_in(data: bytes) -> tuple[str | None, str | None]:
    """Return the scope and the kind that a state names, though the rest of it can't be read."""
    if len(data) > MAX_STATE_BYTES:
        return None, None
    try:
        owned = msgspec.json.decode(data, type=_Salvaged).meta
    except _DAMAGED:
        return None, None
    return owned.scope, owned.kind
