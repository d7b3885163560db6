"""aiohttp: `ClientSession._request`, by which all of its verbs send; nothing public comes before a request leaves.

The body of an answer is read from its `content`, by whichever of many methods: so that object is tapped.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

import orjson
import wrapt

from tollspan.instrumentation._tap import HideUsage, Sink
from tollspan.instrumentation._urls import parsed_url
from tollspan.instrumentation._wires._exchange import aexchange
from tollspan.instrumentation._wires._library import OF_ONE_REQUEST, is_signed
from tollspan.instrumentation._wrappers import Wrapper


class _Asked:
    """One request: what `_request` was called with."""

    __slots__ = ("_body", "kwargs", "method", "target", "url")

    def __init__(self, method: str, target: Any, url: Any, kwargs: dict[str, Any]) -> None:
        self.method, self.target, self.url, self.kwargs = method.upper(), target, url, kwargs
        self._body: bytes | None = None

    @property
    def body(self) -> bytes | None:
        """Its body; None where that is a form or a stream."""
        if self._body is None:
            self._body = _body(self.kwargs)
        return self._body


def _body(kwargs: dict[str, Any]) -> bytes | None:
    data, json = kwargs.get("data"), kwargs.get("json")
    if json is not None:
        with suppress(TypeError):
            return orjson.dumps(json, default=str)
        return None
    if isinstance(data, str):
        return data.encode()
    return bytes(data) if isinstance(data, bytes | bytearray) else b"" if data is None else None


class _Aiohttp:
    """See `AsyncLibrary`."""

    is_async = True

    def method(self, request: _Asked) -> str:
        """See `Library.method`."""
        return request.method

    def url(self, request: _Asked) -> Any:
        """See `Library.url`."""
        return request.url

    def body(self, request: _Asked) -> bytes | None:
        """See `Library.body`."""
        return request.body

    def is_changeable(self, request: _Asked) -> bool:
        """See `Library.is_changeable`."""
        return not is_signed(request.kwargs.get("headers") or {})

    def with_body(self, request: _Asked, body: bytes) -> _Asked:
        """See `Library.with_body`."""
        kwargs = {name: value for name, value in request.kwargs.items() if name != "json"}
        given = kwargs.get("headers") or {}
        named = given.items() if isinstance(given, Mapping) else given
        headers = [(k, v) for k, v in named if str(k).lower() not in ("content-length", "content-type")]
        kwargs |= {"data": body, "headers": [*headers, ("Content-Type", "application/json")]}
        return _Asked(request.method, request.target, request.url, kwargs)

    def sibling(self, request: _Asked, path: str, body: bytes, timeout_s: float) -> _Asked | None:
        """See `Library.sibling`. What its session says holds for it, too; the query has no credentials here."""
        if is_signed(request.kwargs.get("headers") or {}) or not hasattr(request.url, "with_path"):
            return None
        asked = self.with_body(request, body)
        headers = [(k, v) for k, v in asked.kwargs["headers"] if str(k).lower() not in OF_ONE_REQUEST]
        headers += [("Accept", "application/json"), ("Content-Type", "application/json")]
        kwargs = {name: value for name, value in asked.kwargs.items() if name != "params"}
        kwargs |= {"headers": headers, "timeout": import_module("aiohttp").ClientTimeout(total=timeout_s)}
        url = request.url.with_path(path)
        return _Asked("POST", url, url, kwargs)

    def status(self, response: Any) -> int:
        """See `Library.status`."""
        return int(response.status)

    def headers(self, response: Any) -> Mapping[str, str]:
        """See `Library.headers`."""
        headers: Mapping[str, str] = response.headers
        return headers

    def content(self, response: Any) -> bytes | None:
        """See `Library.content`."""
        content: bytes | None = response._body  # noqa: SLF001 - nothing public tells whether it is read
        return content

    def with_content(self, response: Any, content: bytes) -> Any:
        """See `Library.with_content`."""
        response._body = content  # noqa: SLF001 - there is no other way to give a response a body
        return response

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """See `Library.tap`. aiohttp undoes the content coding; nothing is hidden, and nothing drained."""
        del hide  # its readers take lines and blocks of any size: a usage chunk that is shown harms none of them
        sink.encoding, sink.is_complete = "identity", None
        response.content = _ReaderTap(response.content, sink)

    async def finish(self, response: Any) -> None:
        """See `AsyncLibrary.finish`."""
        with suppress(Exception):
            await response.read()
        response.release()


class _ReaderTap(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """An aiohttp StreamReader that a sink listens to."""

    def __init__(self, reader: Any, sink: Sink) -> None:
        super().__init__(reader)
        self._self_sink = sink

    async def _heard(self, reading: Awaitable[Any]) -> Any:
        sink = self._self_sink
        try:
            data = await reading
        except BaseException as error:
            sink.end(error)
            raise
        self._take(data)
        return data

    def _take(self, data: bytes) -> None:
        if data:
            self._self_sink.take(data)
        if self.__wrapped__.at_eof():
            self._self_sink.end()

    async def read(self, n: int = -1) -> Any:
        """A part of the body, or all that is left."""
        return await self._heard(self.__wrapped__.read(n))

    async def readany(self) -> Any:
        """What is there of the body."""
        return await self._heard(self.__wrapped__.readany())

    async def readline(self, **kwargs: Any) -> Any:
        """A line."""
        return await self._heard(self.__wrapped__.readline(**kwargs))

    async def readuntil(self, separator: bytes = b"\n", **kwargs: Any) -> Any:
        """All up to a separator."""
        return await self._heard(self.__wrapped__.readuntil(separator, **kwargs))

    async def readexactly(self, n: int) -> Any:
        """So many bytes."""
        return await self._heard(self.__wrapped__.readexactly(n))

    async def readchunk(self) -> tuple[bytes, bool]:
        """A chunk as it was sent, and whether it is a whole one."""
        try:
            data, is_end = await self.__wrapped__.readchunk()
        except BaseException as error:
            self._self_sink.end(error)
            raise
        self._take(data)
        return data, is_end

    def read_nowait(self, n: int = -1) -> Any:
        """What is there, without waiting."""
        data = self.__wrapped__.read_nowait(n)
        self._take(data)
        return data

    # aiohttp's own iterators, over the methods above.

    def __aiter__(self) -> AsyncIterator[Any]:
        iterator: AsyncIterator[Any] = type(self.__wrapped__).__aiter__(self)
        return iterator

    def iter_any(self) -> Any:
        """What is there, again and again."""
        return type(self.__wrapped__).iter_any(self)

    def iter_chunked(self, n: int) -> Any:
        """Blocks of so many bytes at the most."""
        return type(self.__wrapped__).iter_chunked(self, n)

    def iter_chunks(self) -> Any:
        """Chunks as they were sent."""
        return type(self.__wrapped__).iter_chunks(self)

    def __del__(self) -> None:
        self._self_sink.abandon()


_LIBRARY = _Aiohttp()


def request_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientSession._request`."""

    async def request(
        wrapped: Callable[..., Awaitable[Any]], session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if session.closed:  # nothing is going to be sent
            return await wrapped(*args, **kwargs)
        try:
            method, target = args
            url = _url(session, target)
        except Exception:  # noqa: BLE001 - what aiohttp does not take is aiohttp's to complain about
            return await wrapped(*args, **kwargs)
        asked = _Asked(method, target, url, kwargs)
        return await aexchange(_LIBRARY, lambda asked: wrapped(asked.method, asked.target, **asked.kwargs), asked)

    return request


def _url(session: Any, target: Any) -> Any:
    build = getattr(session, "_build_url", None)
    return build(target) if build is not None else parsed_url(str(target))


def leave_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientResponse.close` and `.release`: before its end, that cuts an answer."""

    def leave(wrapped: Callable[..., Any], response: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return wrapped(*args, **kwargs)
        finally:
            content = response.content
            if type(content) is _ReaderTap:
                content._self_sink.end(left=True)  # noqa: SLF001 - its own module

    return leave
