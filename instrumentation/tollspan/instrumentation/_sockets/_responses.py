"""OpenAI's Responses over a websocket: each `response.create` is a call, and its events are those of a stream.

A connection may have several lanes, each with its `stream_id` on all of its events (OpenAI's guide "WebSocket mode").
"""

from typing import Any

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._content import CAPTURE
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._readers import OPENAI_RESPONSES
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._sockets._talk import Heard, Message, Talk

_CREATES = "response.create"
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"})


def responses(url: Any) -> Talk | None:
    """A connection to this URL, or None."""
    return _Responses(url) if url.path.rstrip("/").endswith("/responses") else None


def _event(message: Message) -> dict[str, Any]:
    return sse.parsed_object(message.encode() if isinstance(message, str) else message)


class _Responses(Talk):
    """The responses of one connection that are open, oldest first, each with its lane."""

    def __init__(self, url: Any) -> None:
        super().__init__()
        self._url = url
        self._open: list[tuple[object, Heard]] = []

    def begun_by(self, message: Message) -> Call | None:
        """See `Talk.begun_by`."""
        asked = _event(message)
        if asked.pop("type", None) != _CREATES:
            return None
        asked["stream"] = True
        return open_call(OPENAI_RESPONSES, self._url, asked, self._url.path, vendor=None, changeable=False)

    def admitted(self, call: Call, message: Message) -> None:
        """See `Talk.admitted`."""
        self._open.append((_event(message).get("stream_id"), Heard(call)))
        if CAPTURE.active:
            call.asked = message.encode() if isinstance(message, str) else message

    def sending(self, message: Message) -> None:
        """See `Talk.sending`: nothing else that is sent costs anything."""

    def received(self, message: Message) -> None:
        """See `Talk.received`."""
        event = _event(message)
        kind, lane = event.get("type"), event.get("stream_id")
        found = next((one for one in self._open if one[0] == lane), None)
        if found is None:
            return
        content = message.encode() if isinstance(message, str) else message
        if kind not in _ENDS:
            found[1].hear(content)
            return
        self._open.remove(found)
        if kind == "error" and found[1].sink.first_at is None:
            found[1].call.unbilled(b"data: %b\n\n" % content)
        else:
            found[1].hear(content)
            found[1].sink.end()

    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """See `Talk.ended`."""
        while self._open:
            self._open.pop(0)[1].sink.end(error, left=left)

    def abandoned(self) -> None:
        """See `Talk.abandoned`."""
        for _, heard in tuple(self._open):
            heard.sink.abandon()
