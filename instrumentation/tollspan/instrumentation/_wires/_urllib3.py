"""What requests and botocore have in common: the body of a streamed answer is urllib3's, and is tapped there."""

from collections.abc import Iterator, Mapping
from typing import Any

import wrapt

from tollspan.instrumentation._tap import HideUsage, Sink
from tollspan.instrumentation._urls import Url, parsed_url


class OverUrllib3:
    """What the two answer alike; see `SyncLibrary`."""

    is_async = False

    def method(self, request: Any) -> str:
        """See `Library.method`."""
        return str(request.method).upper()

    def url(self, request: Any) -> Url:
        """See `Library.url`."""
        return parsed_url(request.url or "")

    def body(self, request: Any) -> bytes | None:
        """See `Library.body`."""
        body = request.body
        if isinstance(body, str):
            return body.encode()
        return bytes(body) if isinstance(body, bytes | bytearray) else b"" if body is None else None

    def sibling(self, request: Any, path: str, body: bytes, timeout_s: float) -> None:
        """See `Library.sibling`: there is none."""

    def status(self, response: Any) -> int:
        """See `Library.status`."""
        return int(response.status_code)

    def headers(self, response: Any) -> Mapping[str, str]:
        """See `Library.headers`."""
        headers: Mapping[str, str] = response.headers
        return headers

    def with_content(self, response: Any, content: bytes) -> Any:
        """See `Library.with_content`."""
        response._content = content  # noqa: SLF001 - there is no other way to give a response a body
        return response

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """See `Library.tap`. urllib3 undoes the content coding, and what is left of a stream is not drained."""
        sink.encoding, sink.is_complete = "identity", None
        response.raw = RawTap(response.raw, sink, hide)


class RawTap(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """An urllib3 response that a sink listens to."""

    def __init__(self, raw: Any, sink: Sink, hide: HideUsage | None) -> None:
        super().__init__(raw)
        self._self_sink = sink
        self._self_hide = hide

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """The body, piece by piece."""
        sink, hide = self._self_sink, self._self_hide
        try:
            for chunk in self.__wrapped__.stream(*args, **kwargs):
                sink.take(chunk)
                if hide is None:
                    yield chunk
                elif shown := hide(chunk):
                    yield shown
            if hide is not None and (rest := hide.rest()):
                yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            sink.end(error)
            raise
        sink.end()

    def __iter__(self) -> Iterator[bytes]:
        return self._heard(iter(self.__wrapped__))

    def _heard(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                self._self_sink.take(piece)
                yield piece
        except GeneratorExit:
            raise
        except BaseException as error:
            self._self_sink.end(error)
            raise
        self._self_sink.end()

    def read(self, amt: int | None = None, *args: Any, **kwargs: Any) -> bytes:
        """A part of the body, or all that is left."""
        data = self._taken(self.__wrapped__.read, amt, *args, **kwargs)
        if amt is None or amt < 0 or (amt and not data):
            self._self_sink.end()
        return data

    def read1(self, amt: int | None = None, *args: Any, **kwargs: Any) -> bytes:
        """What is there of the body."""
        data = self._taken(self.__wrapped__.read1, amt, *args, **kwargs)
        if amt != 0 and not data:
            self._self_sink.end()
        return data

    def _taken(self, read: Any, amt: int | None, *args: Any, **kwargs: Any) -> bytes:
        sink = self._self_sink
        try:
            data: bytes = read(amt, *args, **kwargs)
        except BaseException as error:
            sink.end(error)
            raise
        if data:
            sink.take(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """A part of the body, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the connection; before the end, that cuts the answer."""
        try:
            self.__wrapped__.close()
        finally:
            self._self_sink.end(left=True)

    def __del__(self) -> None:
        self._self_sink.abandon()
