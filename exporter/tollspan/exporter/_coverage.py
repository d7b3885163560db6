"""Count once: which spans tell of a call that is counted already, or will be.

A billed call may be on many spans: ours, a vendor SDK's own, those of other instrumentations around or inside the SDK.
It is counted once, by these rules, in this order.

1. A span that starts while a call of ours is in force belongs to it, and so do the spans around that call.
2. Of foreign spans within each other the innermost one counts, unless only an outer one has usage.
3. An answer's id that was counted is not counted again.
4. Where a span has no id to tell, it repeats a counted call that another scope recorded at the same time for the same
   model, if it names one, with the same usage; each counted call stands for one span of each scope. So of two
   instrumentations that see all calls, every call is counted once. Should two of them see different calls only, and two
   of these calls be alike in all this, then one of the two is missed: nothing on such spans tells them apart.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

if TYPE_CHECKING:
    from ._record import CallRecord

OWN_SCOPE = "tollspan.instrumentation"
"""The instrumentation scope of our own spans."""

_MOST_SPANS = 16_384
_MOST_CALLS = 1024
_CLOCK_S = 0.005
_DISTINCTIVE_ID = 16
"""Characters from which on an id is taken as unique for ever. Some servers number their answers, or draw from 1,000."""


class _Force(Protocol):
    @property
    def in_force(self) -> bool: ...


CURRENT: ContextVar[Any] = ContextVar("tollspan_call", default=None)
"""The call that an SDK is making here, for the wire and for the spans that start meanwhile."""


def in_call() -> bool:
    """Whether a call of ours is in force here. A context that was copied inside a call may outlive that call."""
    here: _Force | None = CURRENT.get()
    return here is not None and here.in_force


class _Bounded(OrderedDict[Any, None]):
    """The newest keys that were added. It needs no lock: a race may only drop one more or one less of the oldest."""

    def add(self, key: Any) -> None:
        self[key] = None
        if len(self) > _MOST_SPANS:
            with suppress(KeyError):  # another thread was quicker
                self.popitem(last=False)


@dataclass(slots=True)
class CountedCall:
    """What is known of a call that is counted, or of ours and still going on. Instants in epoch seconds."""

    scope: str
    started: float
    models: frozenset[str | None]
    ended: float | None = None
    usage: Mapping[str, float] | None = None
    response_id: str | None = None
    repeated_by: set[str] = field(default_factory=set)

    def fill(self, record: "CallRecord") -> None:
        """Take over what the end of the call has told."""
        self.ended = record.started + (record.total_ms or 0) / 1000
        self.models = frozenset({record.request_model, record.response_model})
        self.usage, self.response_id = record.usage, record.response_id

    def is_repeated_by(self, other: "CountedCall") -> bool:
        """Whether another span tells of this call, too: rule 4, and ids that are too short for rule 3."""
        if not self._meets(other) or (self.response_id and other.response_id):
            return self._meets(other) and self.response_id == other.response_id
        if other.scope in (self.scope, *self.repeated_by):
            return False
        return self._has_model_of(other) and self._has_usage_of(other)

    def _meets(self, other: "CountedCall") -> bool:
        return _end(other) >= self.started and _end(self) >= other.started

    def _has_model_of(self, other: "CountedCall") -> bool:
        named = other.models - {None}
        return not named or bool(named & self.models)

    def _has_usage_of(self, other: "CountedCall") -> bool:
        if other.usage is None:
            return _is_within(self, other) or _is_within(other, self)
        if self.usage is not None:
            return all(self.usage.get(key, 0) == other.usage.get(key, 0) for key in ("tokens_in", "tokens_out"))
        if self.scope != OWN_SCOPE:
            return False
        # Ours, whose answer told no usage or is still to come. An answer that is there for one is there for both.
        return _is_within(self, other) and (self.ended is not None or not other.response_id)


def _is_within(inner: CountedCall, outer: CountedCall) -> bool:
    """Whether a call lies within another one, as far as it has gone. How long they last is told by different clocks."""
    return outer.started <= inner.started and (inner.ended is None or inner.ended <= _end(outer) + _CLOCK_S)


def _end(call: CountedCall) -> float:
    return math.inf if call.ended is None else call.ended


class Coverage:
    """What a process knows of the spans that are open and of the calls that it has counted. All of it is bounded."""

    def __init__(self) -> None:
        self._open: dict[int, ReadableSpan] = {}
        self._covered = _Bounded()
        self._decided = _Bounded()
        self._ids = _Bounded()
        self._calls: deque[CountedCall] = deque(maxlen=_MOST_CALLS)

    # ---- spans, as they start and end

    def started(self, span: ReadableSpan) -> None:
        """Any span has started, in its own context."""
        context = span.context
        here: _Force | None = CURRENT.get()  # as in_call(), which is not called because this is for every span
        if here is not None and here.in_force:
            self._covered.add(context.span_id)
        self._open[context.span_id] = span
        if len(self._open) > _MOST_SPANS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget the span that is open for longest: where there are so many, spans are started that never end."""
        with suppress(RuntimeError, StopIteration):  # another thread changed it meanwhile
            self._open.pop(next(iter(self._open)), None)

    def ended(self, span_id: int) -> bool:
        """Any span has ended. Tells whether a counted call covers it."""
        self._open.pop(span_id, None)
        return self._covered.pop(span_id, self) is None

    def first_look(self, span_id: int) -> bool:
        """Whether nobody asked this about a span before: with two processors of ours, the first one decides."""
        if span_id in self._decided:
            return False
        self._decided.add(span_id)
        return True

    def ancestors(self, span: Any) -> Iterator[ReadableSpan]:
        """The open spans around a span, the nearest first."""
        seen = 0
        while seen < _MOST_SPANS and (parent := getattr(span, "parent", None)) is not None:
            span = self._open.get(parent.span_id)
            if span is None:
                return
            seen += 1
            yield span

    def descendants(self, span_id: int) -> Iterator[ReadableSpan]:
        """The spans below a span that are still open when it has ended. This looks through all open spans."""
        for span in tuple(self._open.values()):
            chain = (span, *self.ancestors(span))
            if any(one.parent is not None and one.parent.span_id == span_id for one in chain):
                yield span

    def covers(self, span: ReadableSpan) -> bool:
        """Whether an open span is covered by a counted call."""
        return span.context.span_id in self._covered

    def cover(self, span: Any) -> None:
        """A call below this span is counted: neither the span nor those around it are to count it again."""
        context = span.get_span_context()
        if not context.is_valid:
            return
        self._covered.add(context.span_id)
        parent = getattr(span, "parent", None)
        if parent is not None:  # also where it started before we could see it
            self._covered.add(parent.span_id)
        for around in self.ancestors(span):
            self._covered.add(around.context.span_id)

    # ---- calls

    def opened(self, record: "CallRecord") -> CountedCall:
        """A call of ours begins. Its span, if it has one, is not yet current; `settled` takes what this gives."""
        self.cover(trace.get_current_span())
        call = CountedCall(OWN_SCOPE, record.started, frozenset({record.request_model}))
        self._calls.append(call)
        return call

    def settled(self, call: CountedCall, record: "CallRecord") -> None:
        """A call of ours has ended."""
        call.fill(record)
        self._note_id(record.response_id)

    def counts(self, scope: str, record: "CallRecord", span: ReadableSpan) -> bool:
        """Whether a foreign span is the first to tell of its call; if so, the call is taken as counted."""
        told = CountedCall(scope, record.started, frozenset())
        told.fill(record)
        first = record.response_id not in self._ids and not self._is_repetition(told)
        if first:
            self._calls.append(told)
            self._note_id(record.response_id)
        for around in self.ancestors(span):
            self._covered.add(around.context.span_id)
        return first

    def _is_repetition(self, told: CountedCall) -> bool:
        for call in reversed(tuple(self._calls)):
            if call.is_repeated_by(told):
                call.repeated_by.add(told.scope)
                return True
        return False

    def _note_id(self, response_id: str | None) -> None:
        if response_id is not None and len(response_id) >= _DISTINCTIVE_ID:
            self._ids.add(response_id)


coverage = Coverage()
"""The process's one: spans of any provider may tell of the same call."""
