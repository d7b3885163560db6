"""Writing what is queued when a process ends in order."""

import atexit
import multiprocessing.process
import sys
import weakref
from collections.abc import Callable


def at_the_end(action: Callable[[], None]) -> None:
    """Call a bound method at the end of this process, if its object is still there; say so in each process anew.

    A child of multiprocessing ends with os._exit, which runs no atexit handler but does run its own finalizers.
    """
    method = weakref.WeakMethod(action)
    atexit.register(_act, method)
    if multiprocessing.process.parent_process() is not None:
        from multiprocessing.util import Finalize  # noqa: PLC0415 - only ever needed inside a child of multiprocessing

        Finalize(None, _act, args=(method,), exitpriority=0)


def _act(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    action = method()
    if action is not None and not sys.is_finalizing():
        action()
