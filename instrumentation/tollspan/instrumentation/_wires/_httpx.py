"""httpx and httpx2: `Client.send` and `AsyncClient.send`, which are public, and carry one attempt of an SDK each."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any
from urllib.parse import quote

from tollspan.instrumentation._drain import drainable
from tollspan.instrumentation._tap import AsyncTap, HideUsage, Sink, Tap, tap_class
from tollspan.instrumentation._wires._exchange import aexchange, exchange
from tollspan.instrumentation._wires._library import OF_ONE_REQUEST, is_signed
from tollspan.instrumentation._wrappers import Wrapper

_IN_PATHS = "/:@!$&'()*+,;=~%"


class _Httpx:
    """See `Library`. The two libraries have unrelated classes of the same names."""

    def __init__(self, library: ModuleType, tap: type[Any], stream: type[Any]) -> None:
        self._library = library
        self._tap = tap_class(tap, stream)
        self.is_async = tap is AsyncTap

    def method(self, request: Any) -> str:
        """See `Library.method`."""
        return str(request.method)

    def url(self, request: Any) -> Any:
        """See `Library.url`."""
        return request.url

    def body(self, request: Any) -> bytes | None:
        """See `Library.body`."""
        return getattr(request, "_content", None)

    def is_changeable(self, request: Any) -> bool:
        """See `Library.is_changeable`."""
        return not is_signed(request.headers)

    def with_body(self, request: Any, body: bytes) -> Any:
        """See `Library.with_body`."""
        headers = [(k, v) for k, v in request.headers.multi_items() if k not in ("content-length", "transfer-encoding")]
        return self._library.Request(
            request.method, request.url, headers=headers, content=body, extensions=request.extensions
        )

    def sibling(self, request: Any, path: str, body: bytes, timeout_s: float) -> Any | None:
        """See `Library.sibling`. A key in the query goes along; that the answer be a stream does not."""
        if is_signed(request.headers):
            return None
        query = "&".join(part for part in request.url.query.decode("ascii").split("&") if part and part != "alt=sse")
        target = f"{quote(path, safe=_IN_PATHS)}?{query}" if query else quote(path, safe=_IN_PATHS)
        headers = [(k, v) for k, v in request.headers.multi_items() if k not in OF_ONE_REQUEST]
        return self._library.Request(
            "POST",
            request.url.copy_with(raw_path=target.encode("ascii")),
            headers=[*headers, ("accept", "application/json"), ("content-type", "application/json")],
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)},
        )

    def status(self, response: Any) -> int:
        """See `Library.status`."""
        return int(response.status_code)

    def headers(self, response: Any) -> Mapping[str, str]:
        """See `Library.headers`."""
        headers: Mapping[str, str] = response.headers
        return headers

    def content(self, response: Any) -> bytes | None:
        """See `Library.content`."""
        return getattr(response, "_content", None)

    def with_content(self, response: Any, content: bytes) -> Any:
        """See `Library.with_content`."""
        headers = [(k, v) for k, v in response.headers.multi_items() if k not in ("content-encoding", "content-length")]
        return self._library.Response(
            response.status_code,
            headers=headers,
            content=content,
            request=response.request,
            extensions=response.extensions,
            history=response.history,
            default_encoding=response.default_encoding,
        )

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """See `Library.tap`."""
        stream = response.stream
        if sink.is_complete is not None:
            stream = drainable(response, sink, self._library.ReadError, is_async=self.is_async)
        response.stream = self._tap(stream, sink, hide)


class _SyncHttpx(_Httpx):
    def finish(self, response: Any) -> None:
        """See `SyncLibrary.finish`. An error that cannot be read tells no more than its status."""
        try:
            with suppress(Exception):
                response.read()
        finally:
            response.close()


class _AsyncHttpx(_Httpx):
    async def finish(self, response: Any) -> None:
        """See `AsyncLibrary.finish`."""
        try:
            with suppress(Exception):
                await response.aread()
        finally:
            await response.aclose()


def send_wrapper(module: ModuleType) -> Wrapper:
    """The wrapper of `Client.send`."""
    library = _SyncHttpx(module, Tap, module.SyncByteStream)

    def send(wrapped: Callable[..., Any], _client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request, rest, more = _request(args, kwargs)
        return exchange(library, lambda request: wrapped(request, *rest, **more), request)

    return send


def async_send_wrapper(module: ModuleType) -> Wrapper:
    """The wrapper of `AsyncClient.send`."""
    library = _AsyncHttpx(module, AsyncTap, module.AsyncByteStream)

    async def send(
        wrapped: Callable[..., Awaitable[Any]], _client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        request, rest, more = _request(args, kwargs)
        return await aexchange(library, lambda request: wrapped(request, *rest, **more), request)

    return send


def _request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    if args:
        return args[0], args[1:], kwargs
    return kwargs["request"], (), {name: value for name, value in kwargs.items() if name != "request"}
