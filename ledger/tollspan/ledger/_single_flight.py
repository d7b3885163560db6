"""Loading things once, however many threads ask for them at the same moment."""

import os
import threading
import weakref
from collections.abc import Callable, Hashable, MutableMapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_all: "weakref.WeakSet[SingleFlight]" = weakref.WeakSet()


class SingleFlight:
    """One who loads; the others wait for what it loads. `races` counts those who found somebody loading."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.races = 0
        _all.add(self)

    def load(self, cache: MutableMapping[K, V], key: K, make: Callable[[], V]) -> V:
        """What the cache has under a key, made and put there if it is missing. Raises what `make` raises."""
        if not self._lock.acquire(blocking=False):
            self._lock.acquire()
            self.races += 1  # under the lock, so none is missed
        try:
            found = cache.get(key)
            if found is None:
                found = cache[key] = make()
            return found
        finally:
            self._lock.release()

    def renew(self) -> None:
        """In a forked child: do not wait for a thread that it does not have."""
        self._lock = threading.RLock()


def warm_races() -> int:
    """How often, in this process, somebody had to wait for another who was loading."""
    return sum(one.races for one in _all)


def _renew_all() -> None:
    for one in _all:
        one.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
