"""The calls whose streams are still to be read, and what becomes of them when the process ends."""

import atexit
import multiprocessing.process
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol


class Streaming(Protocol):
    """A call whose stream is still to be read."""

    def left(self) -> None:
        """Nobody will read on."""
        ...

    def disowned(self) -> None:
        """This is a forked child, and the call is its parent's."""
        ...


_open: set[Streaming] = set()


def opened(call: Streaming) -> None:
    """Note a call whose stream is going to be read."""
    _open.add(call)
    _watch_the_end(os.getpid())


def ended(call: Streaming) -> None:
    """Forget a call: its stream has come to an end."""
    _open.discard(call)


def how_many() -> int:
    """Of how many calls the streams are still to be read."""
    return len(_open)


def at_the_end(action: Callable[[], None]) -> None:
    """Call a function at the end of this process, before its open streams are settled; say so in each process anew.

    A child of multiprocessing ends with os._exit, which runs no atexit handler but does run its own finalizers.
    """
    atexit.unregister(action)
    atexit.register(action)
    if multiprocessing.process.parent_process() is not None:
        from multiprocessing.util import Finalize  # noqa: PLC0415 - only ever needed inside a child of multiprocessing

        Finalize(None, action, exitpriority=1)  # the ledger's has 0, and comes later


@lru_cache(maxsize=1)
def _watch_the_end(pid: int) -> None:  # noqa: ARG001 - a forked child does it anew, after its ledger has done the same
    atexit.unregister(_leave_all)
    atexit.register(_leave_all)


def _leave_all() -> None:
    """Settle what a process leaves open when it ends; the handlers run in reverse, so its ledger still writes."""
    for call in tuple(_open):
        call.left()


def _disown_all() -> None:
    for call in _open:
        call.disowned()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
