"""Mistral's transcription and speech in real time: from what is said to the event that ends it, a call.

Its SDK sends in a task of its own, whose errors nobody sees before the end: so the row of `connect` asks the budgets,
and its call waits here for what is said first. What is said after an end begins the next one.
"""

from typing import Any
from urllib.parse import parse_qs

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._readers import ResponseFacts
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._mistral._pieces import MISTRAL_SPEECH, MISTRAL_TRANSCRIPTIONS
from tollspan.instrumentation._sockets._talk import Heard, Message, Talk, Unsaid, talk_begun
from tollspan.instrumentation._urls import Url
from tollspan.ledger import internal_errors

_HEARS, _SPEAKS = "/audio/transcriptions/realtime", "/audio/speech/realtime"
_SAYS = frozenset({"input_audio.append", "input_audio.flush", "input_text.append", "input_text.flush"})
_ENDS = frozenset({"transcription.done", "speech.audio.done", "error"})
_FRAME = b"data: %b\n\n"


def mistral_session(url: Any, query: str) -> Talk | None:
    """A session at this URL, or None."""
    if not url.path.endswith((_HEARS, _SPEAKS)):
        return None
    return _Session(url, next(iter(parse_qs(query).get("model", ())), None))


def connected(connection: Any, url: Url, call: Call) -> None:
    """Leave a call that was admitted for a connection to what is said there first."""
    with internal_errors:
        talk = talk_begun(connection, "", lambda: _Session(url, call.facts.model))
        if isinstance(talk, _Session):
            talk.admitted(call, "")


class _Session(Talk):
    """One session, and the call that is open."""

    def __init__(self, url: Any, model: str | None) -> None:
        super().__init__()
        self._url, self._model = url, model
        self._reader = MISTRAL_SPEECH if url.path.endswith(_SPEAKS) else MISTRAL_TRANSCRIPTIONS
        self._call: Call | None = None
        self._heard: Heard | None = None
        self._characters = 0

    def says_no_more(self, message: Message) -> bool:
        """See `Talk.says_no_more`."""
        return self._call is not None

    def begun_by(self, message: Message) -> Call | None:
        """See `Talk.begun_by`."""
        if self._call is not None or _event(message).get("type") not in _SAYS:
            return None
        asked = {"model": self._model, "stream": True}
        return open_call(self._reader, self._url, asked, self._url.path, vendor="mistral_ai", changeable=False)

    def admitted(self, call: Call, message: Message) -> None:
        """See `Talk.admitted`."""
        self._call, self._heard, self._characters = call, None, 0
        call.facts.stream = True
        if self._reader is MISTRAL_SPEECH:
            call.facts.usage_of = self._spoken
        call.kept_open()

    def sending(self, message: Message) -> None:
        """See `Talk.sending`."""
        event = _event(message)
        if event.get("type") in _SAYS and self._call is not None:
            self._characters += len(sse.text(event.get("text")) or "")
            self._heard = self._heard or Heard(self._call)

    def received(self, message: Message) -> None:
        """See `Talk.received`."""
        event, heard = _event(message), self._heard
        kind = event.get("type")
        if heard is None or not isinstance(kind, str):
            return
        if kind not in _ENDS:
            if kind.endswith(".delta"):
                heard.hear_sound()
            return
        self._call = self._heard = None
        content = message.encode() if isinstance(message, str) else message
        if kind == "error" and heard.sink.first_at is None:
            heard.call.unbilled(_FRAME % content)
        else:
            heard.hear(content)
            heard.sink.end()

    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """See `Talk.ended`."""
        call, heard = self._call, self._heard
        self._call = self._heard = None
        if heard is not None:
            heard.sink.end(error, left=left)
        elif call is not None:
            call.failed(Unsaid())

    def abandoned(self) -> None:
        """See `Talk.abandoned`."""
        if self._call is not None:
            self._call.deferred(self._left)

    def _left(self) -> None:
        self.ended(None, left=True)

    def _spoken(self, answer: ResponseFacts) -> dict[str, float] | None:
        """Give the characters that were said, whatever the answer counts."""
        return {"characters_in": self._characters} if self._characters and answer.error_type is None else None


def _event(message: Message) -> dict[str, Any]:
    return sse.parsed_object(message.encode() if isinstance(message, str) else message)
