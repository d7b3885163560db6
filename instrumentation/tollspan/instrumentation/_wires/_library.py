"""What the wires ask of an HTTP library."""

from collections.abc import Mapping
from typing import Any, Protocol

from tollspan.instrumentation._tap import HideUsage, Sink

# What a request says of itself alone; its credentials and its version of the API hold for another one, too.
OF_ONE_REQUEST = frozenset(
    {"accept", "content-encoding", "content-length", "content-type", "idempotency-key", "transfer-encoding"}
)


class Library(Protocol):
    """What there is to know of an HTTP library's requests and answers."""

    is_async: bool
    """Whether it awaits: then one method of an SDK may send several requests at a time."""

    def method(self, request: Any) -> str:
        """The HTTP method, in upper case."""
        ...

    def url(self, request: Any) -> Any:
        """The URL: anything with `scheme`, `host`, `port` and `path`."""
        ...

    def body(self, request: Any) -> bytes | None:
        """The body; None where it is streamed, and so cannot be sent a second time."""
        ...

    def is_changeable(self, request: Any) -> bool:
        """Whether its body may still be changed: not where it is signed."""
        ...

    def with_body(self, request: Any, body: bytes) -> Any:
        """The request with another body, of JSON."""
        ...

    def sibling(self, request: Any, path: str, body: bytes, timeout_s: float) -> Any | None:
        """A POST like this one, with the same credentials, to another path; None where none can be made here.

        It is given up where connecting, sending or receiving stands still for so many seconds.
        """
        ...

    def status(self, response: Any) -> int:
        """The HTTP status."""
        ...

    def headers(self, response: Any) -> Mapping[str, str]:
        """The headers of the answer; names in any case find them."""
        ...

    def content(self, response: Any) -> bytes | None:
        """The body of the answer where it is read already, else None."""
        ...

    def with_content(self, response: Any, content: bytes) -> Any:
        """An answer like this one, with another body."""
        ...

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """Have the sink hear what is read from the answer."""
        ...


def is_signed(headers: Mapping[Any, Any]) -> bool:
    """Whether a request is signed as AWS wants it: its body cannot be changed after that."""
    return any(str(headers.get(name, "")).startswith("AWS4-") for name in ("authorization", "Authorization"))


class SyncLibrary(Library, Protocol):
    """One that blocks."""

    def finish(self, response: Any) -> None:
        """Read the rest of an answer that is not going to be handed on, and let go of its connection."""
        ...


class AsyncLibrary(Library, Protocol):
    """One that awaits."""

    async def finish(self, response: Any) -> None:
        """Read the rest of an answer that is not going to be handed on, and let go of its connection."""
        ...
