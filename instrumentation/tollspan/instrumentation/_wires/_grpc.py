"""gRPC, as far as xai-sdk speaks it: the interceptors that set the time-out of each of its requests.

They are on every channel of it, so a client that was made before us passes them as well. Messages are told to the
readers in the JSON of xAI's REST API. gRPC repeats what was `UNAVAILABLE` below this: one attempt is seen.
"""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import orjson

from tollspan.instrumentation._lately import Lately
from tollspan.instrumentation._tap import HideUsage, Sink
from tollspan.instrumentation._urls import Url
from tollspan.instrumentation._wires._exchange import aexchange, exchange
from tollspan.instrumentation._wires._grpc_messages import BODIES, FETCHED, answer_of, chunk_of
from tollspan.instrumentation._wrappers import Wrapper
from tollspan.ledger import internal_errors

Maker = Callable[[ModuleType], Wrapper]

# As google.rpc.Code maps them, so that outcomes are judged as everywhere; but nobody bills what is not implemented.
_STATUS = {
    "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400,
    "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 404, "INTERNAL": 500, "UNAVAILABLE": 503, "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}  # fmt: skip
_OK, _FIRST_SERVER_ERROR = 200, 500
# What gRPC itself says when a connection has come to harm: nobody can tell what became of the request. A connection
# that could not be made, and all that the server says, is an error in the provider's name.
_LOST = re.compile(
    r"stream removed|socket closed|recvmsg|sendmsg|connection (?:reset|closed|dropped|aborted)|broken pipe|goaway|ping"
    r"|keepalive|transport|tcp stream|endpoint|rst_stream|http2",
    re.IGNORECASE,
)
_NOT_MADE = re.compile(r"failed to connect|errors resolving|DNS resolution failed", re.IGNORECASE)


class _Asked:
    """One request: its method, and its message."""

    __slots__ = ("message", "path")

    def __init__(self, path: str, message: Any) -> None:
        self.path, self.message = path, message


class _Answer:
    """What came of a request: a message, a stream that has begun, or an error. `result` is what gRPC hands on."""

    __slots__ = ("content", "result", "status", "stream")

    def __init__(self, result: Any, content: bytes, *, status: int = _OK, stream: Any = None) -> None:
        self.result, self.content, self.status, self.stream = result, content, status, stream


def _failed(result: Any, error: Any) -> _Answer:
    code, details = error.code(), str(error.details() or "")
    name = getattr(code, "name", "UNKNOWN")
    status = _STATUS.get(name, _FIRST_SERVER_ERROR)
    lost = not details or (_LOST.search(details) is not None and _NOT_MADE.search(details) is None)
    if status >= _FIRST_SERVER_ERROR and lost:
        return _Answer(result, b"", status=status)
    return _Answer(result, orjson.dumps({"error": {"type": name, "message": details}}), status=status)


class _Grpc:
    """See `Library`."""

    def __init__(self) -> None:
        self._started: Lately[float] = Lately()

    def method(self, request: _Asked) -> str:
        """See `Library.method`."""
        return "POST" if request.path in BODIES else "GET"

    def url(self, request: _Asked) -> Url:
        """See `Library.url`. Which host a channel leads to, an interceptor is not told."""
        return Url("https", "", None, request.path)

    def body(self, request: _Asked) -> bytes | None:
        """See `Library.body`."""
        make = BODIES.get(request.path)
        return b"" if make is None else orjson.dumps(make(request.message))

    def is_changeable(self, request: _Asked) -> bool:
        """See `Library.is_changeable`."""
        return True

    def with_body(self, request: _Asked, body: bytes) -> _Asked:
        """See `Library.with_body`: a copy, with the model and the limit of that body."""
        changed, message = orjson.loads(body), type(request.message)()
        message.CopyFrom(request.message)
        for name in ("max_tokens", "model"):
            if changed.get(name) is not None:
                setattr(message, name, changed[name])
        return _Asked(request.path, message)

    def sibling(self, request: _Asked, path: str, body: bytes, timeout_s: float) -> None:
        """See `Library.sibling`: there is none."""

    def status(self, response: _Answer) -> int:
        """See `Library.status`."""
        return response.status

    def headers(self, response: _Answer) -> Mapping[str, str]:
        """See `Library.headers`."""
        return {}

    def content(self, response: _Answer) -> bytes | None:
        """See `Library.content`."""
        return None if response.stream is not None else response.content

    def with_content(self, response: _Answer, content: bytes) -> _Answer:
        """See `Library.with_content`: a message is handed on as it came."""
        return response

    def tap(self, response: _Answer, sink: Sink, hide: HideUsage | None) -> None:
        """See `Library.tap`."""
        del hide
        sink.is_complete = None
        response.stream.sink = sink

    def answer(self, request: _Asked, result: Any, message: Any) -> _Answer:
        """What a message says; of one that cannot be read, nothing."""
        with internal_errors:
            return _Answer(result, orjson.dumps(self._told(request, message)))
        return _Answer(result, b"")

    def _told(self, request: _Asked, message: Any) -> dict[str, Any]:
        """What a message says, with the time at which its call began where that is what a later one is known by."""
        body = answer_of(request.path, message)
        if request.path in FETCHED:
            asked = getattr(request.message, "request_id", "")
            for found in body["answers"]:
                found["id"] = asked or found.get("id")
                found["created"] = self._started.get(asked) or found.get("created")
        elif (started := getattr(message, "request_id", "")) and started not in self._started:
            self._started.note(started, time.time())
        return body


class _SyncGrpc(_Grpc):
    """See `SyncLibrary`."""

    is_async = False

    def finish(self, response: _Answer) -> None:
        """See `SyncLibrary.finish`: an error has nothing to be read."""


class _AsyncGrpc(_Grpc):
    """See `AsyncLibrary`."""

    is_async = True

    async def finish(self, response: _Answer) -> None:
        """See `AsyncLibrary.finish`: an error has nothing to be read."""


_SYNC, _ASYNC = _SyncGrpc(), _AsyncGrpc()


class _Stream:
    """The messages of a stream, whose first one has come already; what is no message is the call's below."""

    def __init__(self, call: Any, messages: Iterator[Any], first: Any) -> None:
        self._call, self._messages, self._first = call, messages, first
        self.sink: Sink | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            message = next(self._messages) if self._first is None else self._first
        except BaseException as error:
            _end(self.sink, error)
            raise
        self._first = None
        _take(self.sink, message)
        return message

    def __del__(self) -> None:
        if self.sink is not None:
            self.sink.abandon()


class _AsyncStream:
    """As _Stream, of a task."""

    def __init__(self, messages: AsyncIterator[Any], first: Any) -> None:
        self._messages, self._first = messages, first
        self.sink: Sink | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            message = await anext(self._messages) if self._first is None else self._first
        except BaseException as error:
            _end(self.sink, error)
            raise
        self._first = None
        _take(self.sink, message)
        return message

    def __del__(self) -> None:
        if self.sink is not None:
            self.sink.abandon()


class _Failed:
    """A stream that failed before its first message: grpc.aio raises its error once only."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        raise self._error


def _take(sink: Sink | None, message: Any) -> None:
    if sink is not None:
        with internal_errors:
            sink.take(b"data: %b\n\n" % orjson.dumps(chunk_of(message)))


def _end(sink: Sink | None, error: BaseException) -> None:
    """A stream that gRPC has ended well is whole: what marks that elsewhere is put behind it."""
    if sink is None:
        return
    if isinstance(error, StopIteration | StopAsyncIteration):
        if sink.open:
            sink.take(b"data: [DONE]\n\n")
        sink.end()
    else:
        sink.end(error)


def _blocking(sending: Callable[[type[Exception], Callable[[Any], Any], _Asked], _Answer]) -> Maker:
    """Make the wrappers of an interceptor's method that blocks: `sending` gives what came of a request."""

    def maker(_module: ModuleType) -> Wrapper:
        send = partial(sending, import_module("grpc").RpcError)

        def intercept(wrapped: Callable[..., Any], _on: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            asked = _asked(args, kwargs)
            if asked is None:
                return wrapped(*args, **kwargs)
            return exchange(_SYNC, partial(send, partial(wrapped, *args[:2])), asked).result

        return intercept

    return maker


def _awaiting(sending: Callable[[type[Exception], Callable[[Any], Any], _Asked], Awaitable[_Answer]]) -> Maker:
    """As _blocking, of grpc.aio."""

    def maker(_module: ModuleType) -> Wrapper:
        send = partial(sending, import_module("grpc").RpcError)

        async def intercept(
            wrapped: Callable[..., Awaitable[Any]], _on: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            asked = _asked(args, kwargs)
            if asked is None:
                return await wrapped(*args, **kwargs)
            return (await aexchange(_ASYNC, partial(send, partial(wrapped, *args[:2])), asked)).result

        return intercept

    return maker


def _asked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Asked | None:
    """The request in the arguments of an interceptor: a continuation, details and a message; None for other methods."""
    if kwargs or len(args) != 3:  # noqa: PLR2004 - gRPC's own
        return None
    method = args[1].method
    path = method.decode() if isinstance(method, bytes) else str(method)
    return _Asked(path, args[2]) if path in BODIES or path in FETCHED else None


def _send(rpc_error: type[Exception], send: Callable[[Any], Any], asked: _Asked) -> _Answer:
    result = send(asked.message)
    error = result.exception()
    if isinstance(error, rpc_error):
        return _failed(result, error)
    return _Answer(result, b"") if error is not None else _SYNC.answer(asked, result, result.result())


def _send_for_stream(rpc_error: type[Exception], send: Callable[[Any], Any], asked: _Asked) -> _Answer:
    call = send(asked.message)
    messages = iter(call)
    try:
        first = next(messages, None)
    except rpc_error as error:
        return _failed(call, error)
    stream = _Stream(call, messages, first)
    return _Answer(stream, b"", stream=stream)


async def _asend(rpc_error: type[Exception], send: Callable[[Any], Any], asked: _Asked) -> _Answer:
    call = await send(asked.message)
    try:
        message = await call
    except rpc_error as error:
        return _failed(call, error)
    return _ASYNC.answer(asked, call, message)


async def _asend_for_stream(rpc_error: type[Exception], send: Callable[[Any], Any], asked: _Asked) -> _Answer:
    messages = aiter(await send(asked.message))
    try:
        first = await anext(messages, None)
    except rpc_error as error:
        return _failed(_Failed(error), error)
    stream = _AsyncStream(messages, first)
    return _Answer(stream, b"", stream=stream)


unary_wrapper, stream_wrapper = _blocking(_send), _blocking(_send_for_stream)
async_unary_wrapper, async_stream_wrapper = _awaiting(_asend), _awaiting(_asend_for_stream)
"""The wrappers of `intercept_unary_unary` and `intercept_unary_stream`, and of those of grpc.aio."""
