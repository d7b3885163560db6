"""Streams that are read to their end although their caller leaves them early, for calls that ask for it.

They stand between a tap and the HTTP library's own stream. To leave one takes no lock and starts no thread, because the
garbage collector may do it.
"""

import asyncio
import errno
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from tollspan.ledger import internal_errors

from ._drain_work import TaskDrain, ThreadDrain, make_ready, quiet_task, take_slot
from ._open_streams import how_many
from ._tap import Sink


def drainable(response: Any, sink: Sink, closed: type[Exception], *, is_async: bool) -> Any:
    """The stream of a response as one whose rest is read if it is left; in a foreign event loop, as it is.

    `closed` is what the HTTP library raises for a stream that was closed.
    """
    with internal_errors:
        if not is_async:
            make_ready(how_many())
            return DrainableStream(response, sink, closed)
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            make_ready(0)
            return AsyncDrainableStream(response, sink, closed, loop)
    sink.is_complete = None
    return response.stream


class _Stream:
    """What the two kinds of streams share. The response is not held: what is forgotten has to be found out."""

    def __init__(self, response: Any, sink: Sink, closed: type[Exception]) -> None:
        self.below, self.sink = response.stream, sink
        # What is read is reachable from the calls in progress, and `below` leads to the response in older httpx.
        self.inside = getattr(self.below, "_stream", self.below)
        self.is_http1 = response.http_version.startswith("HTTP/1")
        self.network = response.extensions.get("network_stream")
        self._closed = closed
        self._response = weakref.ref(response)
        # Where httpx keeps it, and where older ones do.
        timer = getattr(self.below, "_timer", None)
        self._began = getattr(self.below, "_start", None) or getattr(timer, "start", None) or time.perf_counter()

    @property
    def elapsed(self) -> timedelta | None:
        """How long the answer took; httpx2 looks for it here."""
        return getattr(self.below, "elapsed", None)

    def tell_elapsed(self) -> None:
        """Have `response.elapsed` be the time until its caller left, which the library would set on closing."""
        response, left_at = self._response(), self.sink.left_at
        if response is not None and left_at is not None:
            response.elapsed = timedelta(seconds=left_at - self._began)

    def _note_leaving(self) -> None:
        self.sink.left_at = time.perf_counter()
        self.tell_elapsed()

    def _is_worth_it(self) -> bool:
        """Whether something is still to come; SDKs close their streams after the terminal event, too."""
        sink = self.sink
        return sink.open and sink.is_complete is not None and not sink.is_complete(sink.received)


class DrainableStream(_Stream):
    """A sync byte stream whose rest is read by a thread when it is left."""

    def __init__(self, response: Any, sink: Sink, closed: type[Exception]) -> None:
        super().__init__(response, sink, closed)
        self._in_use = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        in_use, source = self._in_use, iter(self.inside)
        self.sink.source = source
        while True:
            if not in_use.acquire(blocking=False):
                raise self._closed(str(OSError(errno.EBADF, os.strerror(errno.EBADF))))
            try:
                chunk = next(source, None)
            finally:
                in_use.release()
            if chunk is None:
                return
            yield chunk

    def rest(self) -> Iterator[bytes]:
        """What has not been read."""
        return iter(self.inside) if self.sink.source is None else self.sink.source

    def close_below(self) -> None:
        """Let go of the connection."""
        self.below.close()

    def close(self) -> None:
        """Leave the stream; where its rest is not read, close the stream below."""
        if not self.leave():
            self.below.close()

    def leave(self) -> bool:
        """Have a thread read the rest; False where there is none, or a limit is reached, or somebody reads just now."""
        if self.sink.left_at is not None:
            return True
        with internal_errors:
            if self._in_use.acquire(blocking=False):
                if self._is_worth_it() and take_slot():
                    self._note_leaving()
                    ThreadDrain(self).start()
                    return True
                self._in_use.release()
        return False

    abandoned = leave


class AsyncDrainableStream(_Stream):
    """An async byte stream whose rest is read by a task of its event loop when it is left.

    Each chunk is awaited in a task of its own: a read that is cancelled with its caller takes the connection along.
    """

    def __init__(self, response: Any, sink: Sink, closed: type[Exception], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(response, sink, closed)
        self.loop = loop
        self._source: AsyncIterator[bytes] | None = None
        self._reading: asyncio.Task[bytes | None] | None = None
        self._is_awaited = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        source: AsyncIterator[bytes] = aiter(self.inside)
        if not self._is_worth_it():
            return source  # openai's SDK reads on after the last event, for a moment
        self._source = self.sink.source = source
        return self

    async def __anext__(self) -> bytes:
        if self.sink.left_at is not None:
            raise self._closed("")
        self._reading = reading = quiet_task(self.loop, self._next())
        self._is_awaited = True
        try:
            await asyncio.wait((reading,))
        except asyncio.CancelledError:
            self._is_awaited = False
            # Told as a new one: the caller's has the caller's frames on it.
            if reading.cancelling() or not self.leave(asyncio.CancelledError()):
                self._reading = None
                await _cancelled(reading)
            raise
        finally:
            self._is_awaited = False
        self._reading = None
        chunk = reading.result()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def rest(self) -> bytes | None:
        """The next chunk of what has not been read, None at the end. The first may be on its way already."""
        reading, self._reading = self._reading, None
        return await (self._next() if reading is None else reading)

    async def _next(self) -> bytes | None:
        if self._source is None:
            self._source = aiter(self.inside)
        return await anext(self._source, None)

    async def close_below(self) -> None:
        """Let go of the connection."""
        if isinstance(self._source, AsyncGenerator) and self._reading is None:
            await self._source.aclose()
        await self.below.aclose()

    async def aclose(self) -> None:
        """Leave the stream; where its rest is not read, close the stream below."""
        if not self.leave():
            await self.close_below()

    def leave(self, cause: BaseException | None = None) -> bool:
        """Have a task read the rest; False where none is left, a limit is reached, or somebody awaits it just now."""
        if self.sink.left_at is not None:
            return True
        with internal_errors:
            if not self._is_awaited and _goes_on(self.loop) and self._is_worth_it() and take_slot():
                self._note_leaving()
                TaskDrain(self, cause).start()
                return True
        return False

    def abandoned(self) -> bool:
        """As `leave`, by the garbage collector, which runs in any thread."""
        if self.loop.is_closed() or not self._is_worth_it() or not take_slot():
            return False
        self._note_leaving()
        with suppress(RuntimeError):  # closed just now: the drain is stranded
            # What an event loop does itself for an asynchronous generator that is dropped.
            self.loop.call_soon_threadsafe(TaskDrain(self, None).start)
        return True


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end, whatever else is cancelled meanwhile."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # or the event loop complains that nobody looked


def _goes_on(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the event loop, and not about to end: then all tasks are cancelled, and all generators closed."""
    with suppress(RuntimeError):
        if asyncio.get_running_loop() is loop and not getattr(loop, "_asyncgens_shutdown_called", False):
            return not all(task.cancelling() for task in asyncio.all_tasks(loop))
    return False
