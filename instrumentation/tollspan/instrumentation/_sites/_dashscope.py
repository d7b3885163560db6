"""Alibaba Cloud's dashscope: what its many classes send passes one method, or of its `Client` one of two.

Its websockets (speech while it is spoken, and what is said in real time) are not covered.
"""

from tollspan.instrumentation._sites._site import CallSite, Kind

_REQUEST = "dashscope.api_entities.http_request"
_TRANSPORT = "dashscope.v2.transport.http"


def _row(since: str, module: str, name: str, kind: Kind) -> CallSite:
    return CallSite("dashscope", since, module, name, kind, vendor="dashscope")


DASHSCOPE: tuple[CallSite, ...] = (
    _row("1.0", _REQUEST, "HttpRequest.call", "sends"),
    _row("1.19", _REQUEST, "HttpRequest.aio_call", "async sends"),
    _row("2.0", _TRANSPORT, "SyncTransport.request", "sends"),
    _row("2.0", _TRANSPORT, "SyncTransport.open_stream", "sends"),
    _row("2.0", _TRANSPORT, "AsyncTransport.request", "async sends"),
    _row("2.0", _TRANSPORT, "AsyncTransport.open_stream", "async sends"),
)
