"""What runs after a commit: listeners get the events that are on disk, in order, on a thread of their own."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from ._events import LedgerEvent
from ._postings import Posting, event_of

_log = logging.getLogger("tollspan.ledger")

Listener = Callable[[Sequence[LedgerEvent]], None]
_Told = tuple[int, Sequence[Posting]]


class Listeners:
    """The listeners of one ledger in one process. One that raises is logged, and the others go on."""

    def __init__(self) -> None:
        self._listeners: tuple[partial[None], ...] = ()
        self._changing = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child, which has the listeners and not the thread."""
        self._changing = threading.Lock()
        self._queue: SimpleQueue[_Told | threading.Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call a listener after each commit from now on; what is given back takes it away again."""
        own = partial(listener)  # the same function may listen twice, and is then taken away once
        with self._changing:
            self._listeners = (*self._listeners, own)

        def remove() -> None:
            with self._changing:
                self._listeners = tuple(one for one in self._listeners if one is not own)

        return remove

    def publish(self, stored: Sequence[Posting], latest: int) -> None:
        """Hand on what was committed; the last of it has the offset `latest`. Called by the writer's thread."""
        if not self._listeners or not stored:
            return
        self._queue.put((latest - len(stored) + 1, stored))
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._queue,), name="tollspan-listeners", daemon=True
            )
            self._thread.start()

    def drain(self, timeout_s: float) -> None:
        """Wait until the listeners have been told of all that was committed, at most so many seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """As `drain`, and end the thread; what is committed later starts another one."""
        self.drain(timeout_s)
        if self._thread is not None:
            ended, self._thread, self._queue = self._queue, None, SimpleQueue()
            ended.put(None)

    def _run(self, queue: "SimpleQueue[_Told | threading.Event | None]") -> None:
        while (told := queue.get()) is not None:
            if isinstance(told, threading.Event):
                told.set()
                continue
            first, stored = told
            events = tuple(event_of(posting, offset) for offset, posting in enumerate(stored, start=first))
            for listener in self._listeners:
                try:
                    listener(events)
                except Exception:  # noqa: BLE001 - it is the application's, and the next ones must be told all the same
                    _log.exception("a listener of the ledger failed")
