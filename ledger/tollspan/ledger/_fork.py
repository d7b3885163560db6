"""What a fork means for the ledgers of a process.

All of them stop before it: a child that inherits a lock which a thread held has that lock for ever, and a child that
inherits an open WAL connection takes no real locks, and loses committed rows in silence.
"""

import os
import threading
import weakref
from typing import Protocol


class Forking(Protocol):
    """What has to stop for a fork."""

    def before_fork(self) -> None:
        """Come to rest, and stay so."""
        ...

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; a child begins anew, for what was there belongs to its parent."""
        ...


_known: "weakref.WeakSet[Forking]" = weakref.WeakSet()
_stopped: list[Forking] = []
_gate = threading.Lock()


def stop_for_forks(one: Forking) -> None:
    """Have one stopped around each fork for as long as it exists."""
    with _gate:
        _known.add(one)


def _before() -> None:
    _gate.acquire()
    _stopped[:] = _known
    for one in _stopped:
        one.before_fork()


def _after(*, in_child: bool) -> None:
    for one in _stopped:
        one.after_fork(in_child=in_child)
    _stopped.clear()
    _gate.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(in_child=False), after_in_child=lambda: _after(in_child=True)
    )
