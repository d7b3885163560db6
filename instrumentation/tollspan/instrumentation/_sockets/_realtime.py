"""Realtime sessions of OpenAI, and of Qwen's models, which speak as they do: each response is a call.

What is said begins the call, so that a budget refuses before it is sent; `response.done` tells the usage and ends it. A
response that the server begins by itself, while none is open, is counted, but nobody could have refused it. Sound that
was sent, and in which the server heard nothing, is billed by nobody.
"""

import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import InputBound, Reader
from tollspan.instrumentation._readers._realtime import OPENAI_HEARING, OPENAI_REALTIME, QWEN_HEARING, QWEN_REALTIME
from tollspan.instrumentation._sockets._talk import Heard, Message, Talk, Unsaid

_HEAD = 256
# OpenAI counts ten tokens for a second of sound, which has 8,000 bytes or more (G.711; guide "Managing costs"). Qwen
# counts 25, and takes sound that is compressed to 500 bytes ("Audio understanding").
_BYTES_PER_TOKEN, _QWEN_BYTES_PER_TOKEN = 800, 20
_DECODED = 3 / 4
_SOUND = re.compile(r'"type" ?: ?"(input_audio_buffer\.append|response\.(?:output_)?audio\.delta)"')
_ASKS = frozenset({"response.create", "input_text_buffer.commit"})
_SAYS = _ASKS | {
    "conversation.item.create",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_image_buffer.append",
    "input_text_buffer.append",
}
_HEARS = frozenset({"input_audio_buffer.committed", "input_audio_buffer.speech_started"})
_HEARD = "conversation.item.input_audio_transcription.completed"


def realtime_session(url: Any, query: str) -> Talk | None:
    """A session at this URL, or None."""
    return _Session(url, query) if url.path.rstrip("/").endswith("/realtime") else None


def _kind_of(message: Message) -> tuple[str, dict[str, Any]]:
    """The type of an event, and the event; of those that carry sound the type alone, because they are many and long."""
    head = message[:_HEAD]
    if found := _SOUND.search(head if isinstance(head, str) else head.decode(errors="replace")):
        return found[1], {}
    event = sse.parsed_object(message.encode() if isinstance(message, str) else message)
    return sse.text(event.get("type")) or "", event


class _Turn:
    """A call that is open. `asked` and `made`: whether its response was asked for, and whether the server makes it."""

    __slots__ = ("asked", "call", "heard", "made", "spoken")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.heard: Heard | None = None
        self.asked = self.made = self.spoken = False

    def listen(self) -> Heard:
        """Take it for billed from now on."""
        if self.heard is None:
            self.heard = Heard(self.call)
        return self.heard


class _Session(Talk):
    """One session: its configuration, and the responses that are open, oldest first."""

    def __init__(self, url: Any, query: str) -> None:
        super().__init__()
        asked = parse_qs(query)
        self._url, self._is_qwen = url, "/api-ws/" in url.path
        self._config: dict[str, Any] = {"model": next(iter(asked.get("model", ())), None)}
        self._transcribes = "transcription" in asked.get("intent", ()) or "asr" in str(self._config["model"])
        self._turns: deque[_Turn] = deque()
        self._held = self._sent = 0

    def says_no_more(self, message: Message) -> bool:
        """See `Talk.says_no_more`: sound comes many times a second."""
        return bool(self._turns) and _SOUND.search(message[:_HEAD]) is not None if isinstance(message, str) else False

    def begun_by(self, message: Message) -> Call | None:
        """See `Talk.begun_by`: what is said while a response is open belongs to it, but for asking for another one."""
        kind, _ = _kind_of(message)
        if kind not in _SAYS or (self._turns and not (kind in _ASKS and self._turns[-1].asked)):
            return None
        return self._opened()

    def admitted(self, call: Call, message: Message) -> None:
        """See `Talk.admitted`."""
        self._turns.append(_Turn(call))
        call.kept_open()

    def sending(self, message: Message) -> None:
        """See `Talk.sending`."""
        kind, event = _kind_of(message)
        self._sent += self._tokens(kind, len(message))
        if kind == "session.update":
            self._configure(event.get("session"))
        elif kind in _SAYS and self._turns:
            turn = self._turns[-1]
            turn.asked = turn.asked or kind in _ASKS
            turn.spoken = turn.spoken or kind in _ASKS or kind == "input_text_buffer.append"
            if kind != "conversation.item.create":
                turn.listen()

    def _tokens(self, kind: str, size: int) -> int:
        """Bound the tokens of a message: no text has more than bytes, and sound has far fewer."""
        if kind != "input_audio_buffer.append":
            return size
        per_token = _QWEN_BYTES_PER_TOKEN if self._is_qwen else _BYTES_PER_TOKEN
        return int(size * _DECODED) // per_token + 1

    def _configure(self, session: object) -> None:
        if isinstance(session, dict):
            self._config |= {key: value for key, value in session.items() if value is not None}
            self._transcribes = self._transcribes or session.get("type") == "transcription"

    def received(self, message: Message) -> None:
        """See `Talk.received`."""
        kind, event = _kind_of(message)
        if kind.endswith(".delta"):
            if self._turns:
                self._turns[0].listen().hear_sound()
        elif kind == "session.created":
            self._configure({"model": self._config["model"] or sse.at(event, "session", "model")})
        elif kind == "response.created":
            self._made()
        elif kind == "response.done":
            self._done(event, message)
        elif kind == _HEARD:
            self._transcribed(event, message)
        elif kind in _HEARS and self._turns:
            self._turns[-1].spoken = True
        elif kind == "error":
            self._refused(message)

    def _made(self) -> None:
        turn = next((turn for turn in self._turns if not turn.made), None)
        if turn is None and (call := self._opened()) is not None:
            turn = _Turn(call)
            self._turns.append(turn)
        if turn is not None:
            turn.listen()
            turn.asked = turn.made = turn.spoken = True

    def _done(self, event: dict[str, Any], message: Message) -> None:
        call = None if self._turns else self._opened()
        if not self._turns and call is None:
            return
        turn = self._turns.popleft() if call is None else _Turn(call)
        usage = sse.at(event, "response", "usage")
        self._held, self._sent = sse.count(sse.at(usage, "total_tokens")) or self._held, 0
        if sse.at(event, "response", "status") == "failed" and not usage:
            turn.call.unbilled(_framed(message))
        else:
            _finish(turn, message)

    def _transcribed(self, event: dict[str, Any], message: Message) -> None:
        """A session that only hears is billed for what it has heard; another one for that as well, by another model."""
        if self._transcribes and self._turns:
            _finish(self._turns.popleft(), message)
        elif self._transcribes or event.get("usage"):
            reader = QWEN_HEARING if self._is_qwen else OPENAI_HEARING
            call = self._opened(reader, None if self._transcribes else self._hearing_model())
            if call is not None:
                _finish(_Turn(call), message)

    def _hearing_model(self) -> object:
        nested = sse.at(self._config, "audio", "input", "transcription", "model")
        return nested or sse.at(self._config, "input_audio_transcription", "model")

    def _refused(self, message: Message) -> None:
        """An error, while the server makes no response of the last one that was asked for: it makes none of it."""
        if self._turns and self._turns[-1].asked and not self._turns[-1].made:
            self._turns.pop().call.unbilled(_framed(message))

    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """See `Talk.ended`."""
        while self._turns:
            turn = self._turns.popleft()
            if turn.heard is None:
                turn.call.failed(Unsaid())
            elif error is None and not turn.spoken:
                turn.call.unbilled()
            else:
                turn.heard.sink.end(error, left=left)

    def abandoned(self) -> None:
        """See `Talk.abandoned`."""
        if self._turns:
            self._turns[0].call.deferred(partial(self.ended, None, left=True))

    def _opened(self, reader: Reader | None = None, model: object = None) -> Call | None:
        if reader is None and self._transcribes:
            reader = QWEN_HEARING if self._is_qwen else OPENAI_HEARING
        reader = reader or (QWEN_REALTIME if self._is_qwen else OPENAI_REALTIME)
        asked = self._config | ({"model": model} if model else {})
        call = open_call(reader, self._url, asked, self._url.path, vendor=None, changeable=False)
        if call is not None:
            call.facts.measure = partial(self._bound, call.facts.measure)
        return call

    def _bound(self, config: Callable[[], InputBound]) -> InputBound:
        """Bound the input of a response: the configuration, all of the last one, and what was said since."""
        tokens, endless = config()
        return tokens + self._held + self._sent, endless


def _framed(message: Message) -> bytes:
    return b"data: %b\n\n" % (message.encode() if isinstance(message, str) else message)


def _finish(turn: _Turn, message: Message) -> None:
    """Settle a response by the event that tells its usage."""
    heard = turn.listen()
    heard.sink.chunks.clear()
    heard.hear(message.encode() if isinstance(message, str) else message)
    heard.sink.end()
