"""botocore: `URLLib3Session.send`, which carries one attempt each, in all of its retry modes. Requests are signed."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from tollspan.instrumentation._tap import HideUsage, Sink
from tollspan.instrumentation._urls import parsed_url
from tollspan.instrumentation._wires._exchange import exchange
from tollspan.instrumentation._wires._urllib3 import RawTap
from tollspan.instrumentation._wrappers import Wrapper


class _Botocore:
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
        return bytes(body) if isinstance(body, bytes | bytearray) else b"" if body is None else None

    def is_changeable(self, request: Any) -> bool:
        """See `Library.is_changeable`: it is signed."""
        return False

    def with_body(self, request: Any, body: bytes) -> Any:
        """See `Library.with_body`: never asked for."""
        return request

    def status(self, response: Any) -> int:
        """See `Library.status`."""
        return int(response.status_code)

    def headers(self, response: Any) -> Mapping[str, str]:
        """See `Library.headers`."""
        headers: Mapping[str, str] = response.headers
        return headers

    def content(self, response: Any) -> bytes | None:
        """See `Library.content`."""
        content: bytes | None = response._content  # noqa: SLF001 - the public property would read it
        return content

    def with_content(self, response: Any, content: bytes) -> Any:
        """See `Library.with_content`."""
        response._content = content  # noqa: SLF001 - there is no other way to give a response a body
        return response

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """See `Library.tap`. What is left of a stream is not drained."""
        sink.encoding, sink.is_complete = "identity", None
        response.raw = RawTap(response.raw, sink, hide)

    def finish(self, response: Any) -> None:
        """See `SyncLibrary.finish`."""
        with suppress(Exception):
            _ = response.content


_LIBRARY = _Botocore()


def http_session_send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `URLLib3Session.send`."""

    def send(wrapped: Callable[..., Any], _session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = args[0] if args else kwargs["request"]
        return exchange(_LIBRARY, wrapped, request)

    return send
