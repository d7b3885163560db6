"""Live sessions of Gemini, by whatever client of the websockets library: each turn of the model is a call.

Google bills each turn, all that was said before it included, and tells its usage in one message (Google's guide "Live
API", section "Token count"). The setup, which a session begins with, opens the first call, so that a budget refuses
before anything is said; what is sent after a turn opens the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from tollspan.instrumentation._call import Call
from tollspan.instrumentation._open_streams import opened
from tollspan.instrumentation._readers._facts import InputBound
from tollspan.instrumentation._readers._gemini._live import GEMINI_LIVE
from tollspan.instrumentation._urls import Url
from tollspan.instrumentation._wrappers import Wrapper, open_call
from tollspan.ledger import internal_errors

_HEAD = 64
_OK = 200
_VERTEX = "aiplatform"


class _Unused(BaseException):
    """A session ended before anything was said in it: no error of anybody's."""


class _Session:
    """One connection: its setup, and the call that is open."""

    def __init__(self, connection: Any, setup: dict[str, Any]) -> None:
        self._url, self._setup = _url_of(connection), setup
        self._call: Call | None = None
        self._admitting = asyncio.Lock()
        self._held = self._sent = 0

    async def admit(self, message: Any) -> Call | None:
        """Open a call where none is open, and count what is said in it. Raises CallRefused."""
        async with self._admitting:
            if self._call is None and (call := self._opened()) is not None:
                await call.aadmit()
                self._call = call
                opened(call)
        self._sent += len(message) if isinstance(message, str | bytes) else 0
        return self._call

    def received(self, message: Any) -> None:
        """Settle the turn whose usage a message tells; of one that the server began, too."""
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

    def ended(self) -> None:
        """The connection is closed: nobody will be told what the turn has used that was going on, if any was."""
        call, self._call = self._call, None
        if call is not None and call.record.attempts:
            call.left()
        elif call is not None:
            call.failed(_Unused())

    def _opened(self) -> Call | None:
        vendor = "gcp.vertex_ai" if _VERTEX in self._url.path else None
        call = open_call(GEMINI_LIVE, self._url, self._setup, "", vendor=vendor, changeable=False)
        if call is not None:
            call.facts.measure = partial(self._bound, call.facts.measure)
        return call

    def _bound(self, setup: Callable[[], InputBound]) -> InputBound:
        """Bound the input of a turn: the setup, all of the last turn, and the bytes of what was said since."""
        tokens, endless = setup()
        return tokens + self._held + self._sent, endless


_sessions: "WeakKeyDictionary[Any, _Session | None]" = WeakKeyDictionary()
"""Of each connection that something was sent on; None where that was no setup of a live session."""


def _url_of(connection: Any) -> Url:
    request = connection.request
    host, _, port = str(request.headers.get("Host") or "").partition(":")
    return Url("wss", host, int(port) if port.isdecimal() else None, str(request.path))


def _known(connection: Any) -> _Session | None:
    with internal_errors:
        return _sessions.get(connection)
    return None


def _session_of(connection: Any, message: Any) -> tuple[_Session | None, bool]:
    """The live session of a connection, and whether this message is its setup."""
    if connection in _sessions:
        return _sessions[connection], False
    session = None
    if isinstance(message, str | bytes) and '"setup"' in str(message[:_HEAD]):
        setup = orjson.loads(message).get("setup")
        session = _Session(connection, setup) if isinstance(setup, dict) and "model" in setup else None
    _sessions[connection] = session
    return session, True


def send_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.send`."""

    async def send(
        wrapped: Callable[..., Awaitable[Any]], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        session, is_setup = None, False
        with internal_errors:
            session, is_setup = _session_of(connection, args[0] if args else kwargs.get("message"))
        if session is None:
            return await wrapped(*args, **kwargs)
        call = await session.admit(args[0] if args else kwargs.get("message"))
        if call is not None and not is_setup and not call.record.attempts:
            await call.abefore_attempt()
        return await wrapped(*args, **kwargs)

    return send


def receive_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.recv`."""

    async def receive(
        wrapped: Callable[..., Awaitable[Any]], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        session = _known(connection)
        if session is None:
            return await wrapped(*args, **kwargs)
        try:
            message = await wrapped(*args, **kwargs)
        except Exception as error:
            if type(error).__name__.startswith("ConnectionClosed"):
                session.ended()
            raise
        with internal_errors:
            session.received(message)
        return message

    return receive


def close_wrapper(_module: ModuleType) -> Wrapper:
    """The wrapper of `ClientConnection.close`."""

    async def close(
        wrapped: Callable[..., Awaitable[Any]], connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return await wrapped(*args, **kwargs)
        finally:
            if (session := _known(connection)) is not None:
                session.ended()

    return close
