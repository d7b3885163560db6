"""OpenAI's Live sessions: each, from `session.start` to `session.closed`, is a call; so is what it delegates.

The models that a session delegates to are billed by themselves: their answers pass by as events of the session, and
nobody could have refused them. Other connections to the same session hear them too, and count nothing.
"""

from typing import Any

import orjson

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._readers import OPENAI_RESPONSES
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._openai._live import OPENAI_LIVE
from tollspan.instrumentation._sockets._talk import Heard, Message, Talk
from tollspan.instrumentation._urls import Url

_OK = 200
_DELEGATED = {
    "response.completed": ("/responses", "response"),
    "response.incomplete": ("/responses", "response"),
    "response.failed": ("/responses", "response"),
    "decision.completed": ("/decisions", "decision"),
}


def openai_live(url: Any) -> Talk | None:
    """A session at this URL, or None."""
    return _Session(url) if "/live/sessions" in url.path else None


class _Session(Talk):
    """One session, once it is started."""

    def __init__(self, url: Any) -> None:
        super().__init__()
        self._url = url
        self._heard: Heard | None = None

    def begun_by(self, message: Message) -> Call | None:
        """See `Talk.begun_by`."""
        event = _event(message)
        session = event.get("session")
        if self._heard is not None or event.get("type") != "session.start" or not isinstance(session, dict):
            return None
        return open_call(OPENAI_LIVE, self._url, session, self._url.path, vendor=None, changeable=False)

    def admitted(self, call: Call, message: Message) -> None:
        """See `Talk.admitted`."""
        self._heard = Heard(call)

    def sending(self, message: Message) -> None:
        """See `Talk.sending`: a session costs by its time."""

    def received(self, message: Message) -> None:
        """See `Talk.received`."""
        heard, event = self._heard, _event(message)
        kind, nested = event.get("type"), event.get("event")
        if heard is None or not isinstance(kind, str):
            return
        if isinstance(nested, dict) and nested.get("type") in _DELEGATED:
            self._delegated(nested)
        content = message.encode() if isinstance(message, str) else message
        if kind.endswith(".delta"):
            heard.hear_sound()
        elif kind == "error" and heard.sink.first_at is None:
            self._heard = None
            heard.call.unbilled(b"data: %b\n\n" % content)
        elif kind == "session.started":
            heard.hear_sound()
        elif kind == "session.closed":
            self._heard = None
            heard.hear(content)
            heard.sink.end()

    def _delegated(self, event: dict[str, Any]) -> None:
        """Count an answer of a model that the session has asked."""
        path, name = _DELEGATED[str(event["type"])]
        answer = event.get(name)
        url = Url("https", self._url.host, self._url.port, path)
        asked = {"model": sse.at(answer, "model")}
        call = open_call(OPENAI_RESPONSES, url, asked, path, vendor=None, changeable=False)
        if call is not None:
            call.before_attempt()
            call.answered(_OK, orjson.dumps(answer))
            call.returned(None)

    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """See `Talk.ended`."""
        heard, self._heard = self._heard, None
        if heard is not None:
            heard.sink.end(error, left=left)

    def abandoned(self) -> None:
        """See `Talk.abandoned`."""
        if self._heard is not None:
            self._heard.sink.abandon()


def _event(message: Message) -> dict[str, Any]:
    return sse.parsed_object(message.encode() if isinstance(message, str) else message)
