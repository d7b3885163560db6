"""Live sessions of Gemini: each turn of the model is a call.

Google bills each turn, all that was said before it included, and tells its usage in one message (Google's guide "Live
API", section "Token count"). The setup, which a session begins with, opens the first call, so that a budget refuses
before anything is said; what is sent after a turn opens the next one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._readers._facts import InputBound
from tollspan.instrumentation._readers._gemini._live import GEMINI_LIVE
from tollspan.instrumentation._sockets._talk import Message, Talk, Unsaid

_HEAD, _EDGE = 64, 160
_OK = 200
# A session hears 16-bit PCM alone, which has 16,000 bytes a second or more, and is 32 tokens a second (Google's guides
# "Live API capabilities" and "Audio understanding").
_PCM, _BYTES_PER_TOKEN = '"audio/pcm', 500
_DECODED = 3 / 4
_VERTEX = "aiplatform"


def live_session(url: Any, message: Message) -> Talk | None:
    """A session that begins with this message, or None."""
    if '"setup"' not in str(message[:_HEAD]):
        return None
    setup = orjson.loads(message).get("setup")
    return _Live(url, setup) if isinstance(setup, dict) and "model" in setup else None


def _tokens(message: Message) -> int:
    """Bound the tokens of a message: no text has more than bytes, and sound has far fewer."""
    edges = f"{message[:_EDGE]!s}{message[-_EDGE:]!s}"
    return int(len(message) * _DECODED) // _BYTES_PER_TOKEN + 1 if _PCM in edges else len(message)


class _Live(Talk):
    """One session: its setup, and the call that is open."""

    def __init__(self, url: Any, setup: dict[str, Any]) -> None:
        super().__init__()
        self._url, self._setup = url, setup
        self._call: Call | None = None
        self._is_set_up = False
        self._held = self._sent = 0

    def says_no_more(self, message: Message) -> bool:
        """See `Talk.says_no_more`."""
        return self._call is not None

    def begun_by(self, message: Message) -> Call | None:
        """See `Talk.begun_by`."""
        return self._opened() if self._call is None else None

    def admitted(self, call: Call, message: Message) -> None:
        """See `Talk.admitted`."""
        self._call = call
        call.kept_open()

    def sending(self, message: Message) -> None:
        """See `Talk.sending`: the setup alone says nothing."""
        self._sent += _tokens(message)
        if self._is_set_up and self._call is not None and not self._call.record.attempts:
            self._call.before_attempt()
        self._is_set_up = True

    def received(self, message: Message) -> None:
        """See `Talk.received`: the usage of a turn ends it, also of one that the server began."""
        content = message.encode() if isinstance(message, str) else bytes(message)
        usage = GEMINI_LIVE.response(content).usage if b'"usageMetadata"' in content else None
        if usage is None:
            return
        call, self._call = self._call or self._opened(), None
        self._held, self._sent = int(usage["tokens_in"] + usage["tokens_out"]), 0
        if call is not None:
            call.record.attempts = max(call.record.attempts, 1)
            call.answered(_OK, content)
            call.returned(None)

    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """See `Talk.ended`: nobody will be told what the turn has used that was going on, if any was."""
        call, self._call = self._call, None
        if call is None:
            return
        if not call.record.attempts:
            call.failed(Unsaid())
        elif error is None:
            call.left()
        else:
            call.broke(error)
            call.failed(error)

    def abandoned(self) -> None:
        """See `Talk.abandoned`."""
        if self._call is not None:
            self._call.deferred(partial(self.ended, None, left=True))

    def _opened(self) -> Call | None:
        vendor = "gcp.vertex_ai" if _VERTEX in self._url.path else None
        call = open_call(GEMINI_LIVE, self._url, self._setup, "", vendor=vendor, changeable=False)
        if call is not None:
            call.facts.measure = partial(self._bound, call.facts.measure)
        return call

    def _bound(self, setup: Callable[[], InputBound]) -> InputBound:
        """Bound the input of a turn: the setup, all of the last turn, and what was said since."""
        tokens, endless = setup()
        return tokens + self._held + self._sent, endless
