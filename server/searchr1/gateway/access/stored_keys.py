"""The stored keys as this gateway knows them: read at its start, and again whenever they have changed.

A store that breaks later leaves the keys as they were last read; those that expire do so all the same. At the start it
stops the start.
"""

import asyncio
import logging
from contextlib import aclosing
from typing import Final, Self

from searchr1.gateway.metrics import Metrics
from searchr1.keyring.key_place import KeyPlace
from searchr1.keyring.key_ring import KeyRing
from searchr1.keyring.key_store import KeyStore, KeysUnreadableError, Reading
from searchr1.keyring.opening import open_keys

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
"""Seconds between two looks for new, changed and revoked keys."""


class StoredKeys:
    """The keys of a store. Use it as a context manager: they are kept fresh meanwhile.

    Entering raises ``KeysUnreadableError``.
    """

    def __init__(self, store: KeyStore, metrics: Metrics) -> None:
        self.ring = KeyRing()
        self._store, self._metrics = store, metrics
        self._mark: str | None = None
        self._faults = self._told = ""
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        reading = await self._store.read()
        assert reading is not None, "nothing was read before"
        self._take(reading)
        self._watching = asyncio.create_task(self._watch(), name="stored-keys")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._store.aclose()

    async def look(self) -> None:
        """Read the keys if they have changed."""
        try:
            reading = await self._store.read(self._mark)
        except KeysUnreadableError as error:
            self._tell(f"{error}; the {len(self.ring)} keys that were read before stay as they were")
            return
        if reading is None:
            self._tell(self._faults)
        else:
            self._take(reading)

    def _take(self, reading: Reading) -> None:
        had_keys = self._mark is None or len(self.ring) > 0
        self.ring, self._mark = KeyRing(reading.keys), reading.mark
        self._metrics.stored_keys.set(len(self.ring))
        logger.info("%d keys were read from %s", len(self.ring), self._store.name)
        if had_keys and not reading.keys:
            logger.warning(
                "%s: there is none, so no stored key opens anything; 'searchr1 keys create' makes one, "
                "and where there were some they are lost, as with an emptied Redis",
                self._store.name,
            )
        self._faults = "; ".join(reading.faults)
        self._tell(self._faults)

    def _tell(self, fault: str) -> None:
        """Note what is wrong with the store; empty where nothing is. The log is told of what is new."""
        self._metrics.stored_keys_up.set(not fault)
        if fault and fault != self._told:
            logger.error("%s", fault)
        elif not fault and self._told:
            logger.info("%s can be read again", self._store.name)
        self._told = fault

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception:  # Without it, no key would ever be revoked again.
                logger.exception("the look for changed keys met an error of the server's own")


async def check_stored_keys(place: KeyPlace | None) -> None:
    """Read the keys once, before anything that takes long is opened. Raises ``KeysUnreadableError``."""
    if place is not None:
        async with aclosing(open_keys(place)) as store:
            await store.read()
