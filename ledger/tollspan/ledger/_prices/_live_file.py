"""The price file of a running process: read again when it has changed, looked at once a second at the most."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tollspan.ledger._prices._file import NO_PRICES, PriceFile, PriceFileError, read_price_file

LOOK_EVERY_S = 1.0

_log = logging.getLogger("tollspan.ledger")


class LivePriceFile:
    """The last version of a price file that could be read; `changed` is called after another one took its place.

    Whoever asks when it is time to look does so, and whoever asks meanwhile gets what there is: nobody waits. A version
    that cannot be read is logged once. With `strict`, the first one must be readable: PriceFileError.
    """

    def __init__(self, path: Path | None, changed: Callable[[], object], *, strict: bool) -> None:
        self.path = path = path.absolute() if path is not None else None  # the program may change its directory
        self._changed = changed
        self._file = NO_PRICES
        self._state: tuple[int, ...] | None = None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._renew()
        if path is not None:
            self._state = _state_of(path)
            self._read(path, strict=strict)

    def current(self) -> PriceFile:
        """What the file says now, or said a second ago."""
        if self.path is not None and time.monotonic() >= self._look_at:
            self._look(self.path)
        return self._file

    def _look(self, path: Path) -> None:
        if self._pid != os.getpid():  # the lock may have been held by a thread that a forked child does not have
            self._renew()
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            state = _state_of(path)  # before the reading: what is written meanwhile is another state the next time
            if state != self._state:
                self._state = state
                self._read(path, strict=False)
        finally:
            self._lock.release()

    def _read(self, path: Path, *, strict: bool) -> None:
        try:
            self._file = read_price_file(path)
        except PriceFileError as error:
            if strict:
                raise
            kept = "its last good version stays in force" if self._file.path else "it is left out"
            _log.error("%s. Until that is put right, %s", error, kept)
        else:
            self._changed()

    def _renew(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()


def _state_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)
