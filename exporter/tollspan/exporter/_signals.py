"""SIGTERM: what is queued is written, and then happens what would have happened without us.

By default SIGTERM ends a process on the spot. Servers such as uvicorn stop gracefully and then raise it again, so that
no handler of `atexit` ever runs.
"""

import _thread
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from tollspan.ledger import internal_errors

_FLUSH_S = 3.0
_installed: Any = None


def flush_on_sigterm(flush: Callable[[float], object]) -> None:
    """Call `flush` with a time limit in seconds when SIGTERM comes, before the handler that is in place now.

    It works in the main thread only, and leaves alone a process that ignores SIGTERM or handles it outside of Python.
    """
    global _installed  # noqa: PLW0603 - a process has one handler
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_IGN or before is None or before is _installed:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            _in_another_thread(flush)
        finally:  # whatever that meets, the signal has its effect
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

    _installed = handle
    signal.signal(signal.SIGTERM, handle)


def _in_another_thread(flush: Callable[[float], object]) -> None:
    """Call `flush`, and wait for it no longer than its time limit.

    The signal may have come while this thread held any lock, also one of those that it takes to start a Thread or to
    set an Event: so nothing is used here but a bare thread and a pipe.
    """
    done, tell = os.pipe()

    def work() -> None:
        try:
            with internal_errors:
                flush(_FLUSH_S)
        finally:
            os.write(tell, b"x")

    _thread.start_new_thread(work, ())
    select.select([done], [], [], _FLUSH_S)
