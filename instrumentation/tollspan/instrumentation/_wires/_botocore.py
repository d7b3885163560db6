"""botocore: `URLLib3Session.send`, which carries one attempt each, in all of its retry modes. Requests are signed."""

from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from tollspan.instrumentation._wires._exchange import exchange
from tollspan.instrumentation._wires._urllib3 import OverUrllib3
from tollspan.instrumentation._wrappers import Wrapper


class _Botocore(OverUrllib3):
    def is_changeable(self, request: Any) -> bool:
        """See `Library.is_changeable`: it is signed."""
        return False

    def with_body(self, request: Any, body: bytes) -> Any:
        """See `Library.with_body`: never asked for."""
        return request

    def content(self, response: Any) -> bytes | None:
        """See `Library.content`."""
        content: bytes | None = response._content  # noqa: SLF001 - the public property would read it
        return content

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
