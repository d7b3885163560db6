"""requests: `Session.send`, which is public. A redirect passes it a second time, inside of the first."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from tollspan.instrumentation._tap import HideUsage, Sink
from tollspan.instrumentation._urls import parsed_url
from tollspan.instrumentation._wires._exchange import exchange
from tollspan.instrumentation._wires._library import is_signed
from tollspan.instrumentation._wires._urllib3 import RawTap
from tollspan.instrumentation._wrappers import Wrapper


class _Requests:
    """See `SyncLibrary`."""

    is_async = False

    def method(self, request: Any) -> str:
        """See `Library.method`."""
        return str(request.method).upper()

    def url(self, request: Any) -> Any:
        """See `Library.url`."""
        return parsed_url(request.url or "")

    def body(self, request: Any) -> bytes | None:
        """See `Library.body`."""
        body = request.body
        if isinstance(body, str):
            return body.encode()
        return body if isinstance(body, bytes) else b"" if body is None else None

    def is_changeable(self, request: Any) -> bool:
        """See `Library.is_changeable`."""
        return not is_signed(request.headers)

    def with_body(self, request: Any, body: bytes) -> Any:
        """See `Library.with_body`."""
        changed = request.copy()
        changed.body = body
        changed.headers["Content-Length"] = str(len(body))
        return changed

    def status(self, response: Any) -> int:
        """See `Library.status`."""
        return int(response.status_code)

    def headers(self, response: Any) -> Mapping[str, str]:
        """See `Library.headers`."""
        headers: Mapping[str, str] = response.headers
        return headers

    def content(self, response: Any) -> bytes | None:
        """See `Library.content`. A body that is not read yet is False there."""
        content = response._content  # noqa: SLF001 - the public property would read it
        return content if isinstance(content, bytes) else b"" if content is None else None

    def with_content(self, response: Any, content: bytes) -> Any:
        """See `Library.with_content`."""
        response._content = content  # noqa: SLF001 - there is no other way to give a response a body
        return response

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """See `Library.tap`. urllib3 undoes the content coding, and what is left of a stream is not drained."""
        sink.encoding, sink.is_complete = "identity", None
        response.raw = RawTap(response.raw, sink, hide)

    def finish(self, response: Any) -> None:
        """See `SyncLibrary.finish`."""
        try:
            with suppress(Exception):
                _ = response.content
        finally:
            response.close()


_LIBRARY = _Requests()


def session_send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `Session.send`."""

    def send(wrapped: Callable[..., Any], _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return exchange(_LIBRARY, lambda request: wrapped(request, *args[1:], **kwargs), args[0])
        more = {name: value for name, value in kwargs.items() if name != "request"}
        return exchange(_LIBRARY, lambda request: wrapped(request, **more), kwargs["request"])

    return send
