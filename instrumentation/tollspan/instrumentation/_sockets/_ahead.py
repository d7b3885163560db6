"""Calls that are admitted before their websocket is opened, because the SDK opens it in a thread of its own.

Such a thread knows no budget of its caller's, and what is raised there never reaches the caller. So the row of the
method that starts it asks the budgets, and leaves the call here, under the id of its task, for the wire to find.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._open_streams import ended, opened
from tollspan.instrumentation._sockets._talk import Unsaid


class _Waiting:
    """A call whose task is not yet run. See `_open_streams.Streaming`."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def left(self) -> None:
        """The process ends, and nothing was sent."""
        self.call.failed(Unsaid())

    def disowned(self) -> None:
        """This is a forked child."""
        self.call.disowned()


_waiting: dict[str, _Waiting] = {}
_lock = threading.Lock()


def is_ahead(task_id: str) -> bool:
    """Tell whether the call of a task is admitted already."""
    return task_id in _waiting


def leave(task_id: str, call: Call) -> None:
    """Leave an admitted call for the wire."""
    with _lock:
        _waiting[task_id] = waiting = _Waiting(call)
    opened(waiting)


def taken(task_id: str) -> Call | None:
    """Take the call of a task that is run now, if it was admitted before."""
    with _lock:
        waiting = _waiting.pop(task_id, None)
    if waiting is None:
        return None
    ended(waiting)
    return waiting.call


@contextmanager
def settled_unless_taken(task_id: str, *, by_thread: bool = False) -> Iterator[None]:
    """Around what runs the task: a call that nobody has taken by its end was never sent; a thread may do so later."""
    try:
        yield
    except BaseException as error:
        if (call := taken(task_id)) is not None:
            call.failed(error)
        raise
    else:
        if not by_thread and (call := taken(task_id)) is not None:
            call.failed(Unsaid())
