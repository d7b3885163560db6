"""Writing what is queued when a process ends in order."""

import atexit
import multiprocessing.process
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress


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
        _keep_the_interrupt()


def _keep_the_interrupt() -> None:
    """Have Python remember that Ctrl-C ends this process, or its exit status is 1 and a shell's loop goes on.

    It forgets that whenever a text is run as code, as an import that makes dataclasses or named tuples does.
    """
    if getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1"):
        with suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - the only way to tell it
