"""Threads: what is in force where a thread is started, or where work is given to a pool, is in force in it.

OpenTelemetry's instrumentation of `threading` carries its context into pools, timers and threads with a target. A
thread class with a `run` of its own passes it by: such a thread gets a `run` for its one run, which attaches the
context, and only where something of ours is in force.
"""

import os
import sys
import threading
from collections.abc import Callable
from functools import wraps

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from tollspan.ledger import internal_errors

_LOADER = "opentelemetry.instrumentation.auto_instrumentation._load"

Start = Callable[[threading.Thread], None]


class Threads:
    """What is done to `threading` in this process. `is_waiting`: its instrumentation is for somebody else to load.

    OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=threading leaves all of `threading` alone, and then nothing reaches threads.
    """

    def __init__(self, in_force: Callable[[], bool]) -> None:
        self.is_waiting = False
        self._in_force = in_force
        self._active = False
        self._start: Start | None = None
        self._instrumentor: ThreadingInstrumentor | None = None  # where it is ours to take away
        self._lock = threading.RLock()

    def install(self) -> None:
        """Carry what is in force into threads; harmless when it is done already.

        Zero-code mode loads the instrumentation of `threading` after us, and warns where it is there already; so there
        we wait, and only look after it when something is first put in force.
        """
        if _is_disabled():
            return
        with self._lock:
            if not _is_under(self._start):
                self._wrap_start()
            self._active = self.is_waiting = True
            if _LOADER not in sys.modules:
                self.complete()

    def complete(self) -> None:
        """Instrument `threading` if nobody has."""
        with self._lock:
            was_waiting, self.is_waiting = self.is_waiting, False
            instrumentor = ThreadingInstrumentor()
            if was_waiting and not instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.instrument()
                self._instrumentor = instrumentor

    def remove(self) -> None:
        """Put back what `install` changed; where somebody has wrapped `Thread.start` since, ours stays in it, idle."""
        with self._lock:
            self._active = self.is_waiting = False
            if self._instrumentor is not None and self._instrumentor.is_instrumented_by_opentelemetry:
                _uninstrument(self._instrumentor)
            self._instrumentor = None
            if self._start is not None and vars(threading.Thread)["start"] is self._start:
                threading.Thread.start = self._start.__wrapped__  # type: ignore[attr-defined,method-assign]
                self._start = None

    def _wrap_start(self) -> None:
        original: Start = threading.Thread.start

        # A plain function: those who unwrap what they find would take away a wrapper of wrapt in place of their own.
        @wraps(original)
        def start(thread: threading.Thread) -> None:
            if self._must_carry(thread):
                _start_in(get_current(), thread, original)
            else:
                original(thread)

        self._start = start
        threading.Thread.start = start  # type: ignore[assignment,method-assign]

    def _must_carry(self, thread: threading.Thread) -> bool:
        with internal_errors:
            return self._active and self._in_force() and _has_own_run(thread)
        return False


def _start_in(context: Context, thread: threading.Thread, start: Start) -> None:
    """Start a thread that runs in this context; it holds on to nothing of it but while it runs."""
    attributes, run, own = vars(thread), thread.run, vars(thread).get("run")

    def put_back() -> None:
        if own is None:
            attributes.pop("run", None)
        else:
            attributes["run"] = own

    def carried() -> None:
        put_back()
        token = attach(context)
        try:
            run()
        finally:
            detach(token)

    attributes["run"] = carried
    try:
        start(thread)
    except BaseException:
        put_back()
        raise


def _has_own_run(thread: threading.Thread) -> bool:
    if "run" in vars(thread):
        return True
    owner = next(kind for kind in type(thread).__mro__ if "run" in vars(kind))
    return owner not in (threading.Thread, threading.Timer)


def _is_under(ours: Start | None) -> bool:
    """Whether `Thread.start` is this one, or a wrapper of it."""
    found = vars(threading.Thread)["start"]
    while found is not None and found is not ours:
        found = getattr(found, "__wrapped__", None)
    return found is not None


def _uninstrument(instrumentor: ThreadingInstrumentor) -> None:
    """The instrumentor wraps the inherited `Timer.start`, and would leave half of that on the class."""
    instrumentor.uninstrument()
    if "start" in vars(threading.Timer):
        del threading.Timer.start


def _is_disabled() -> bool:
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    return bool({"threading", "*"} & {name.strip() for name in disabled.split(",")})
