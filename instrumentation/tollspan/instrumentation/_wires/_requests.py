"""requests: `Session.send`, which is public. A redirect passes it a second time, inside of the first."""

from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from tollspan.instrumentation._wires._exchange import exchange
from tollspan.instrumentation._wires._library import is_signed
from tollspan.instrumentation._wires._urllib3 import OverUrllib3
from tollspan.instrumentation._wrappers import Wrapper


class _Requests(OverUrllib3):
    def is_changeable(self, request: Any) -> bool:
        """See `Library.is_changeable`."""
        return not is_signed(request.headers)

    def with_body(self, request: Any, body: bytes) -> Any:
        """See `Library.with_body`."""
        changed = request.copy()
        changed.body = body
        changed.headers["Content-Length"] = str(len(body))
        return changed

    def content(self, response: Any) -> bytes | None:
        """See `Library.content`. A body that is not read yet is False there."""
        content = response._content  # noqa: SLF001 - the public property would read it
        return content if isinstance(content, bytes) else b"" if content is None else None

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
