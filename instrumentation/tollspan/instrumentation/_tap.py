"""Byte taps: an answer's bytes pass through to the SDK, and a copy of the references is read when the stream has ended.

Nothing of the SDK is wrapped, so its iterators, managers and helpers are what they are without us. Nothing is parsed
while the stream runs.
"""

import contextlib
import re
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any, Protocol

from tollspan.ledger import internal_errors

# Chunks: a long answer has a few thousand. What is cut out of the middle of a longer one leaves at most one torn event.
_KEEP_HEAD = 1_000
_KEEP_TAIL = 4_000
_COMPACT_AT = 20_000
_TAIL = 8  # in which the terminal event begins, if not in the chunk that it ends in

_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,')
_EMPTY_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_EVENT_END = re.compile(rb"\r?\n\r?\n")


def _never(_tail: bytes) -> bool:
    return False


class Sink:
    """Collects what one stream delivered, and reports its end once: finished, broken by an error, closed, or abandoned.

    `on_end` gets the error or None, and whether the stream was left before its end. `on_abandoned` is called by the
    garbage collector, perhaps while a lock of ours is held: it must take none.

    The terminal event is the end, even if nobody reads on or closes the stream: where one of the `marks` comes by,
    `is_terminal` is asked about the latest bytes. With `is_complete`, which finds the terminal event in bytes, the rest
    of the stream is read in the background when its caller leaves it: at `left_at` (seconds of `perf_counter`), from
    where `source` stands. Its end is told then.
    """

    __slots__ = (
        "chunks", "encoding", "first_at", "is_complete", "is_terminal", "left_at", "marks", "on_abandoned", "on_end",
        "open", "source",
    )  # fmt: skip

    def __init__(self, on_end: Callable[[BaseException | None, bool], None], on_abandoned: Callable[[], None]) -> None:
        self.chunks: list[bytes] = []
        self.encoding = "identity"
        self.first_at: float | None = None
        self.open = True
        self.on_end = on_end
        self.on_abandoned = on_abandoned
        self.marks: tuple[bytes, ...] = ()
        self.is_terminal: Callable[[bytes], bool] = _never
        self.is_complete: Callable[[bytes], bool] | None = None
        self.left_at: float | None = None
        # Reachable from the calls in progress, it is not collected together with who has read from it.
        self.source: Any = None

    @property
    def received(self) -> bytes:
        """All that was received (of a very long stream its head and its tail), with its content coding undone."""
        return decoded(b"".join(self.chunks), self.encoding)

    def take(self, chunk: bytes) -> None:
        """Note a chunk on its way."""
        if not self.chunks:
            self.first_at = time.perf_counter()
        self.chunks.append(chunk)
        if len(self.chunks) > _COMPACT_AT:
            self._compact()
        for mark in self.marks:
            if mark in chunk and self._is_over():
                self.end()
                return

    def _is_over(self) -> bool:
        with internal_errors:  # the stream goes on, whatever becomes of our reading of it
            return self.is_terminal(b"".join(self.chunks[-_TAIL:]))
        return False

    def end(self, error: BaseException | None = None, *, left: bool = False) -> None:
        """Report the end; the first report counts, and none while the rest is read in the background."""
        if self.open and self.left_at is None:
            self.open = False
            self.on_end(error, left)

    def abandon(self, stream: Any = None) -> None:
        """Report that nobody will read on; called by the garbage collector."""
        if self.open and self.left_at is None and not (self.is_complete is not None and stream.abandoned()):
            self.open = False
            self.on_abandoned()

    def drained(self, cause: BaseException | None) -> None:
        """Report the end of a stream that was left, because of an error or without one, and read in the background."""
        if self.open:
            self.open = False
            self.on_end(cause, True)

    def _compact(self) -> None:
        """Keep the head and the tail: usage stands in the first or in the last events of every flavour."""
        del self.chunks[_KEEP_HEAD:-_KEEP_TAIL]


def decoded(data: bytes, encoding: str) -> bytes:
    """Bytes with their HTTP content coding undone as far as they go; as they are where the coding is not known here."""
    with contextlib.suppress(zlib.error, ImportError):
        if encoding in ("gzip", "x-gzip", "deflate"):
            return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data)
        # httpx asks for these two only where their libraries are installed.
        if encoding == "br":
            return bytes(import_module("brotli").Decompressor().process(data))
        if encoding == "zstd":
            return bytes(import_module("zstandard").ZstdDecompressor().decompressobj().decompress(data))
    return data


class HideUsage:
    """Drops the chunk that only our own `include_usage` has brought, and the `"usage":null` it put into the others.

    Events are handed on whole; a part of one waits for its rest.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, chunk: bytes) -> bytes:
        data = self._rest + chunk if self._rest else chunk
        end = max(data.rfind(b"\n\n"), data.rfind(b"\n\r\n"))
        if end < 0:
            self._rest = data
            return b""
        cut = end + (2 if data.startswith(b"\n\n", end) else 3)
        self._rest = data[cut:]
        return self._clean(data[:cut])

    def rest(self) -> bytes:
        """What is left when the stream has ended."""
        rest, self._rest = self._rest, b""
        return rest

    def _clean(self, events: bytes) -> bytes:
        if b'"usage"' not in events:
            return events
        # A quote inside generated text is escaped, so this pattern can only be the key itself.
        events = events.replace(b',"usage":null', b"")
        if b'"usage"' in events:
            events = _NULL_USAGE.sub(b"", events)
        if b'"usage"' not in events or not _EMPTY_CHOICES.search(events):
            return events
        kept, start = [], 0
        for match in _EVENT_END.finditer(events):
            event = events[start : match.end()]
            if not (b'"usage"' in event and _EMPTY_CHOICES.search(event)):
                kept.append(event)
            start = match.end()
        return b"".join(kept) + events[start:]


class ByteStream(Protocol):
    """What httpx calls a sync byte stream."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class AsyncByteStream(Protocol):
    """What httpx calls an async byte stream."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the bytes."""
        ...

    async def aclose(self) -> None:
        """Let go of the connection."""
        ...


class Tap:
    """A sync byte stream that a sink listens to. Mixed with the HTTP library's own base class, which it checks for."""

    def __init__(self, stream: ByteStream, sink: Sink, hide: HideUsage | None) -> None:
        self._stream = stream
        self._sink = sink
        self._hide = hide

    # A generator function: openai iterates the stream a second time to drain it.
    def __iter__(self) -> Iterator[bytes]:
        sink, hide = self._sink, self._hide
        try:
            if hide is None:
                for chunk in self._stream:
                    sink.take(chunk)
                    yield chunk
            else:
                for chunk in self._stream:
                    sink.take(chunk)
                    shown = hide(chunk)
                    if shown:
                        yield shown
                if rest := hide.rest():
                    yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            sink.end(error)
            raise
        sink.end()

    @property
    def elapsed(self) -> timedelta | None:
        """How long the answer took; httpx2 looks for it here."""
        return getattr(self._stream, "elapsed", None)

    def close(self) -> None:
        """Close the stream below; before its end, that cuts it."""
        try:
            self._stream.close()
        finally:
            self._sink.end(left=True)

    def __del__(self) -> None:
        self._sink.abandon(self._stream)


class AsyncTap:
    """As Tap, for async byte streams."""

    def __init__(self, stream: AsyncByteStream, sink: Sink, hide: HideUsage | None) -> None:
        self._stream = stream
        self._sink = sink
        self._hide = hide

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sink, hide, stream = self._sink, self._hide, self._stream.__aiter__()
        try:
            if hide is None:
                async for chunk in stream:
                    sink.take(chunk)
                    yield chunk
            else:
                async for chunk in stream:
                    sink.take(chunk)
                    shown = hide(chunk)
                    if shown:
                        yield shown
                if rest := hide.rest():
                    yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            sink.end(error)
            raise
        finally:
            # As httpx2 does: a generator that is only dropped is closed some time later, by the event loop.
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        sink.end()

    @property
    def elapsed(self) -> timedelta | None:
        """How long the answer took; httpx2 looks for it here."""
        return getattr(self._stream, "elapsed", None)

    async def aclose(self) -> None:
        """Close the stream below; before its end, that cuts it."""
        try:
            await self._stream.aclose()
        finally:
            self._sink.end(left=True)

    def __del__(self) -> None:
        self._sink.abandon(self._stream)


def tap_class(tap: type[Any], base: type[Any]) -> type[Any]:
    """A tap that is an instance of the HTTP library's own stream class, too."""
    return type(tap.__name__, (tap, base), {"__module__": __name__})
