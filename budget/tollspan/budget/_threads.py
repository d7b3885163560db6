"""Threads: what is in force where a thread is started, or where work is given to a pool, is in force in it.

Only what is ours is carried, into the context that the work has anyway: whether spans have parents in other threads is
for the application to say. Nothing is done where nothing is in force.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from types import MethodType
from typing import Any

from tollspan.ledger import internal_errors

from ._reach import NOTHING, Carried, carried, is_anything_in_force, within

# OpenTelemetry's instrumentation of `threading` gives `Timer` a `start` of its own; without it, there is none to wrap.
_PLACES = ((threading.Thread, "start"), (threading.Timer, "start"), (ThreadPoolExecutor, "submit"))

Wrapper = Callable[..., Any]


class Threads:
    """What is done to threads and pools in this process, once."""

    def __init__(self) -> None:
        self._is_active = False
        self._wrappers: dict[tuple[type, str], tuple[Wrapper, Wrapper]] = {}  # what was there, and ours
        self._lock = threading.Lock()

    def install(self) -> None:
        """Carry what is in force into threads; harmless when it is done already."""
        with self._lock:
            self._is_active = True
            for kind, name in _PLACES:
                if name in vars(kind) and not self._is_in(vars(kind)[name]):
                    wrap = self._submit_around if name == "submit" else self._start_around
                    ours = wrap(getattr(kind, name))
                    self._wrappers[kind, name] = vars(kind)[name], ours
                    setattr(kind, name, ours)

    def remove(self) -> None:
        """Put back what was there; where somebody has wrapped ours since, it stays under theirs, idle."""
        with self._lock:
            self._is_active = False
            for (kind, name), (original, ours) in list(self._wrappers.items()):
                if vars(kind).get(name) is ours:
                    setattr(kind, name, original)
                    del self._wrappers[kind, name]

    def _is_in(self, found: Wrapper | None) -> bool:
        """Whether one of ours is under this, however deep."""
        all_ours = [ours for _, ours in self._wrappers.values()]
        while found is not None and not any(found is ours for ours in all_ours):
            found = getattr(found, "__wrapped__", None)
        return found is not None

    # Plain functions: those who unwrap what they find would take away a wrapper of wrapt in place of their own.
    def _start_around(self, original: Wrapper) -> Wrapper:
        @wraps(original)
        def start(thread: threading.Thread) -> None:
            what = self._to_carry()
            if what is None:
                original(thread)
            else:
                _start_with(what, thread, original)

        return start

    def _submit_around(self, original: Wrapper) -> Wrapper:
        @wraps(original)
        def submit(pool: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            what = self._to_carry()
            if what is None or _is_of_interpreters(pool):
                return original(pool, work, *args, **kwargs)  # type: ignore[no-any-return]
            # A thread that is started for it outlives the work, and must begin with nothing of ours.
            return within(NOTHING, original, pool, within, what, work, *args, **kwargs)  # type: ignore[no-any-return]

        return submit

    def _to_carry(self) -> Carried | None:
        if self._is_active:
            with internal_errors:
                return carried() if is_anything_in_force() else None
        return None


def _is_of_interpreters(pool: ThreadPoolExecutor) -> bool:
    """From Python 3.14 on there are such pools: what is given to one is pickled, and runs where we are not."""
    return any(kind.__name__ == "InterpreterPoolExecutor" for kind in type(pool).__mro__)


def _start_with(what: Carried, thread: threading.Thread, start: Wrapper) -> None:
    """Start a thread that has this in force: for its one run the object gets a `run`, which is gone when it begins."""
    own = vars(thread).get("run")
    # Bound, as error trackers take the function from what they find, and call it with the thread themselves.
    vars(thread)["run"] = MethodType(partial(within, what, partial(_run, own)), thread)
    try:
        start(thread)
    except BaseException:
        _put_back(own, thread)
        raise


def _run(own: Wrapper | None, thread: threading.Thread) -> None:
    _put_back(own, thread)
    thread.run()


def _put_back(own: Wrapper | None, thread: threading.Thread) -> None:
    if own is None:
        vars(thread).pop("run", None)
    else:
        vars(thread)["run"] = own


THREADS = Threads()
"""What carries the reach into threads, in this process."""
