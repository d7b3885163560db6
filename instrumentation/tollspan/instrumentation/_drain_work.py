"""Reading in the background what is left of streams, up to the usage at their end: by threads, or by tasks.

The reader lets go of the connection and reports the end of the stream, once. The process waits a little for it.
"""

import asyncio
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from tollspan.ledger import internal_errors

from ._open_streams import at_the_end
from ._tap import Sink

T = TypeVar("T")

DRAIN_TIMEOUT_S = 30.0
"""How long a stream may go on after it was left, in seconds."""
MAX_BYTES = 8 * 1024 * 1024
"""How much of it may still come, in bytes on the wire."""
MAX_DRAINS = 16
"""How many streams of a process are drained at a time; what is left beyond them is cut."""
EXIT_WAIT_S = 2.0
"""How long all of them together keep a process from ending, in seconds."""

_LINGER_S = 1.0  # after the terminal event: a connection that was read to its last byte can be used again
_TAIL_CHUNKS = 64
_STRANDED = 64


class Stream(Protocol):
    """What a drain needs of the stream that was left."""

    sink: Sink
    is_http1: bool
    network: Any

    def tell_elapsed(self) -> None:
        """Put the time that its caller saw into the response."""
        ...


class SyncRest(Stream, Protocol):
    """A stream of which a thread reads the rest."""

    def rest(self) -> Iterator[bytes]:
        """What has not been read."""
        ...

    def close_below(self) -> None:
        """Let go of the connection."""
        ...


class AsyncRest(Stream, Protocol):
    """A stream of which a task reads the rest."""

    loop: asyncio.AbstractEventLoop

    async def rest(self) -> bytes | None:
        """The next chunk of what has not been read, None at the end."""
        ...

    async def close_below(self) -> None:
        """Let go of the connection."""
        ...


class _Drain:
    """The rest of one stream on its way.

    `settled` is set when the end of the stream has been reported, and `let_go` when its connection is nobody's here.
    """

    def __init__(self, sink: Sink, cause: BaseException | None) -> None:
        self.settled, self.let_go = threading.Event(), threading.Event()
        self.until = time.monotonic() + DRAIN_TIMEOUT_S
        self._sink, self._cause = sink, cause
        self._bytes_left = MAX_BYTES
        self._claim = [True]
        self._process = _process
        self._process.running.add(self)

    @property
    def is_alive(self) -> bool:
        """Whether somebody works on it."""
        return True

    def took(self, chunk: bytes) -> bool:
        """Note a chunk; False where no more is wanted. With the terminal event, the end is reported."""
        sink = self._sink
        self._bytes_left -= len(chunk)
        if not self.settled.is_set():
            if not sink.open:
                return False
            sink.take(chunk)
            # What is compressed would have to be unpacked from its beginning each time.
            tail = b"".join(sink.chunks[-_TAIL_CHUNKS:]) if sink.encoding == "identity" else b""
            if sink.is_complete is not None and sink.is_complete(tail):
                self.settle()
                self.until = min(self.until, time.monotonic() + _LINGER_S)
        return self._bytes_left >= 0 and time.monotonic() < self.until

    def settle(self) -> None:
        """Report the end, once."""
        try:
            self._claim.pop()
        except IndexError:
            return
        try:
            with internal_errors:
                self._sink.drained(self._cause)
        finally:
            self.settled.set()

    def give_up(self) -> None:
        """The process ends: report the end, or wait for whoever is about to."""
        self.settle()
        self.settled.wait(EXIT_WAIT_S)

    def over(self) -> None:
        """Report the end, if that is not done, and make room for another one, once."""
        self.settle()
        self.let_go.set()
        with suppress(KeyError):
            self._process.running.remove(self)
            self._process.slots.append(True)


class ThreadDrain(_Drain):
    """A rest that a thread reads."""

    def __init__(self, stream: SyncRest) -> None:
        super().__init__(stream.sink, None)
        self._stream = stream
        self._socket = _socket_of(stream.network)
        # A socket with a file lasts as long as that. Without, whoever closes the client now would free the number of
        # a socket that a TLS library still reads from, and the next socket may get it.
        self._file = self._socket.makefile("rb", buffering=0) if self._socket is not None else None
        self._lock = threading.Lock()
        self._is_mine = True

    def start(self) -> None:
        """Have a thread read it."""
        self._process.jobs.put(self)

    def run(self) -> None:
        """Read it."""
        self._process.watched.put(self)
        try:
            with suppress(Exception):  # it was cut: by the server, the network or the watch
                self._read()
            with self._lock:
                self._is_mine = False
            with suppress(Exception):
                self._stream.close_below()
            self._stream.tell_elapsed()
            if self._file is not None:
                self._file.close()
        finally:
            self.over()

    def _read(self) -> None:
        lingers = False
        for chunk in self._stream.rest():
            if not self.took(chunk):
                break
            if self.settled.is_set() and not lingers:
                lingers = True
                self._process.watched.put(self)

    def stop(self) -> None:
        """It takes too long: report the end, and wake its thread where that concerns no other stream."""
        with self._lock:
            if self._is_mine and self._socket is not None and self._stream.is_http1:
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self.settle()


class TaskDrain(_Drain):
    """A rest that a task of an event loop reads."""

    def __init__(self, stream: AsyncRest, cause: BaseException | None) -> None:
        super().__init__(stream.sink, cause)
        self._stream = stream
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        return self._stream.loop.is_running()

    @property
    def is_stranded(self) -> bool:
        """Whether nobody will work on it any more."""
        return self._stream.loop.is_closed()

    def start(self) -> None:
        """Begin to read it."""
        self._task = quiet_task(self._stream.loop, self._run())

    async def _run(self) -> None:
        try:
            with suppress(Exception):  # it was cut, or took too long
                await self._read()
            with suppress(Exception):
                await self._stream.close_below()
            self._stream.tell_elapsed()
        finally:
            self.over()

    async def _read(self) -> None:
        loop = self._stream.loop
        async with asyncio.timeout_at(loop.time() + self.until - time.monotonic()) as limit:
            while (chunk := await self._stream.rest()) is not None and self.took(chunk):
                if self.settled.is_set():
                    limit.reschedule(loop.time() + self.until - time.monotonic())

    def give_up(self) -> None:
        if not self.is_alive:
            self._process.stranded.append(self)
            self.over()
        super().give_up()


class _Process:
    """What the drains of one process share. It has as many threads as streams were open at a time, up to the limit.

    A coroutine that is dropped while it waits complains of its event loop, also at the end of the process. What the
    thread that watches can reach is not dropped then.
    """

    def __init__(self) -> None:
        self.slots = deque([True] * MAX_DRAINS)
        self.running: set[_Drain] = set()
        self.stranded: deque[TaskDrain] = deque(maxlen=_STRANDED)
        self.watched: SimpleQueue[ThreadDrain] = SimpleQueue()
        self.jobs: SimpleQueue[ThreadDrain] = SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()
        self._ends: bool | None = None

    def make_ready(self, streams: int) -> None:
        """Have a thread for each of so many streams, before one of them is left."""
        if self._ends is None:
            self._ends = False
            at_the_end(_end)
        for drain in self.running.copy():
            if isinstance(drain, TaskDrain) and drain.is_stranded:
                drain.give_up()
        wanted = 1 + min(streams, MAX_DRAINS)
        if self._threads < wanted:
            with self._lock:
                while self._threads < wanted:
                    work = self._work if self._threads else self._watch
                    threading.Thread(target=work, name=f"tollspan-drain-{self._threads}", daemon=True).start()
                    self._threads += 1

    def take_slot(self) -> bool:
        """Whether one more stream may be drained."""
        with suppress(IndexError):
            return not self._ends and self.slots.pop()
        return False

    def end(self) -> None:
        """Wait a little for what is being drained, and settle what is left."""
        self._ends = True
        until = time.monotonic() + EXIT_WAIT_S
        for drain in self.running.copy():
            if drain.is_alive:
                # A thread that dies with the interpreter inside of a connection pool keeps its lock, for which the
                # client's finalizer would wait for ever.
                drain.let_go.wait(max(0.0, until - time.monotonic()))
        for drain in self.running.copy():
            drain.give_up()

    def _work(self) -> None:
        while True:
            job = self.jobs.get()
            with internal_errors:
                job.run()
            del job

    def _watch(self) -> None:
        watched: set[ThreadDrain] = set()
        while True:
            soonest = min((drain.until for drain in watched), default=None)
            with suppress(Empty):
                watched.add(self.watched.get(timeout=soonest and max(0.0, soonest - time.monotonic())))
            late = {drain for drain in watched if drain.until <= time.monotonic()}
            watched = (watched - late) & self.running
            for drain in late:
                drain.stop()


_process = _Process()
_inherited: list[_Process] = []


def make_ready(streams: int) -> None:
    """Be ready to drain so many streams by threads."""
    _process.make_ready(streams)


def take_slot() -> bool:
    """Whether one more stream may be drained; whoever takes a slot makes a drain, which gives it back."""
    return _process.take_slot()


def _end() -> None:
    _process.end()


def _begin_anew() -> None:
    """In a forked child: what is drained is its parent's. It is kept, because to drop it would end it here."""
    global _process  # noqa: PLW0603 - the state of this process
    _inherited.append(_process)
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _socket_of(network: Any) -> socket.socket | None:
    """The socket below a stream of httpcore, if it has one."""
    found = network.get_extra_info("socket") if network is not None else None
    return found if isinstance(found, socket.socket) else None


def quiet_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that says nothing when its event loop ends before it: without us, nothing would be left there."""
    task = loop.create_task(work, name="tollspan-drain")
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way
    return task
