"""What is said on one websocket: a protocol tells which of its messages begin a call, and which end one.

The wires of the websocket libraries report every message, and ask the budgets before one that begins a call is sent.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from tollspan.budget import CallRefused
from tollspan.instrumentation._call import Call, Expected, current
from tollspan.instrumentation._refusals import AttemptRefused
from tollspan.ledger import internal_errors

Message = str | bytes

_OK = 200


class Unsaid(BaseException):
    """A connection ended before anything was said that a call could be billed for: no error of anybody's."""


class Heard:
    """A call of which the answer is being heard, message by message."""

    __slots__ = ("call", "sink")

    def __init__(self, call: Call) -> None:
        self.call = call
        call.before_attempt()
        self.sink = call.listen(_OK)
        self.sink.is_complete = None  # there is nobody who could read on where the connection is left

    def hear(self, content: bytes) -> None:
        """Keep a message that the reader wants to see."""
        self.sink.take(b"data: %b\n\n" % content)

    def hear_sound(self) -> None:
        """Note that something of the answer has come, which need not be kept."""
        if self.sink.first_at is None:
            self.sink.take(b"")


class Talk(ABC):
    """One connection in one protocol, and the calls that are open on it."""

    def __init__(self) -> None:
        self._turn, self._async_turn = threading.Lock(), asyncio.Lock()

    def admit(self, message: Message) -> None:
        """Ask the budgets about the call that a message begins, if it does. Raises CallRefused, AttemptRefused."""
        if self.says_no_more(message):
            return
        with self._turn:
            if (call := self._new(message)) is not None:
                try:
                    call.admit()
                except CallRefused as refusal:
                    _refuse(refusal)
                self.admitted(call, message)

    async def aadmit(self, message: Message) -> None:
        """As `admit`, from a task."""
        if self.says_no_more(message):
            return
        async with self._async_turn:
            if (call := self._new(message)) is not None:
                try:
                    await call.aadmit()
                except CallRefused as refusal:
                    _refuse(refusal)
                self.admitted(call, message)

    def _new(self, message: Message) -> Call | None:
        with internal_errors:
            return self.begun_by(message)
        return None

    def says_no_more(self, message: Message) -> bool:
        """Tell at a glance whether a message only goes on with what has begun, as most of them do."""
        return isinstance(message, bytes)

    @abstractmethod
    def begun_by(self, message: Message) -> Call | None:
        """Open the call that a message begins; None where it begins none."""

    @abstractmethod
    def admitted(self, call: Call, message: Message) -> None:
        """Note that the budgets have admitted the call that a message begins."""

    @abstractmethod
    def sending(self, message: Message) -> None:
        """Note that a message is about to be sent."""

    @abstractmethod
    def received(self, message: Message) -> None:
        """Note a message of the server's."""

    @abstractmethod
    def ended(self, error: BaseException | None, *, left: bool) -> None:
        """Settle what is open: the connection is closed; `left` tells that the caller did it, and no error."""

    @abstractmethod
    def abandoned(self) -> None:
        """Settle what is open; called by the garbage collector, in which no lock may be taken."""


def _refuse(refusal: CallRefused) -> None:
    """Raise a refusal so that it comes through the SDK: inside of a row's method, the row makes it what it was."""
    if isinstance(current(), Expected):
        raise AttemptRefused(refusal) from None
    raise refusal


class _Kept:
    """Lives as long as its connection: who drops that without closing it leaves the calls on it."""

    __slots__ = ("talk",)

    def __init__(self, talk: Talk) -> None:
        self.talk = talk

    def __del__(self) -> None:
        self.talk.abandoned()


_talks: "WeakKeyDictionary[Any, _Kept | None]" = WeakKeyDictionary()
"""Of each connection on which something was sent; None where that is no protocol known here."""


def forget(connection: Any) -> None:
    """Begin anew with a connection that is opened once more."""
    if (kept := _talks.pop(connection, None)) is not None:
        kept.talk.ended(None, left=True)


def leave_all() -> None:
    """Settle what is open: nobody is going to hear its end, because the wires are taken away."""
    for kept in list(_talks.values()):
        if kept is not None:
            with internal_errors:
                kept.talk.ended(None, left=True)
    _talks.clear()


def talk_on(connection: Any) -> Talk | None:
    """Find the talk of a connection, or None."""
    with internal_errors:
        kept = _talks.get(connection)
        return kept.talk if kept is not None else None
    return None


def talk_begun(connection: Any, message: object, make: Callable[[], Talk | None]) -> Talk | None:
    """Find the talk of a connection; `make` tells the protocol by the first message that is sent."""
    with internal_errors:
        try:
            kept = _talks[connection]
        except KeyError:
            talk = make() if isinstance(message, str | bytes) else None
            _talks[connection] = kept = None if talk is None else _Kept(talk)
        return None if kept is None else kept.talk
    return None
