"""The span processor: the door through which spans bring their calls into the ledger, ours and those of others."""

from itertools import chain
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from tollspan.ledger import internal_errors

from . import _dialects
from ._coverage import OWN_SCOPE, coverage
from ._dialects import attributes_of, is_marked
from ._settle import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.ledger import Ledger, Limit

    from ._dialects import Inference
    from ._foreign import Books
    from ._record import CallRecord

_bound: "dict[int, tuple[CallRecord, Ledger]]" = {}
"""Records of spans that are about to end, and the ledgers they are meant for, by span id."""


def _configured() -> "Books":
    """The books of the process, which the pipeline puts in this place: it is above, and attaches this processor."""
    raise RuntimeError("no pipeline is there yet")


def keep_books_in(books: "Callable[[], Books]") -> None:
    """Say where foreign calls are accounted by a processor that is not told."""
    global _configured  # noqa: PLW0603 - a process has one pipeline at a time
    _configured = books


def _no_limits(_record: "CallRecord") -> "tuple[Limit, ...]":
    return ()


_limits_of: "Callable[[CallRecord], tuple[Limit, ...]]" = _no_limits
"""The balances that a foreign call counts in; budgets are above, and put themselves in this place."""


def charge_by(limits_of: "Callable[[CallRecord], tuple[Limit, ...]]") -> None:
    """Say which balances a foreign call counts in; it is asked where its span ends, once for each call."""
    global _limits_of  # noqa: PLW0603 - as above
    _limits_of = limits_of


def bind(span_id: int, record: "CallRecord", ledger: "Ledger") -> None:
    """Bind a record to the span with this id, just before the span is ended."""
    _bound[span_id] = record, ledger


def take(span_id: int) -> "tuple[CallRecord, Ledger] | None":
    """The record bound to a span and its ledger, once; None for a foreign span and for one that was taken already."""
    return _bound.pop(span_id, None)


class LedgerSpanProcessor(SpanProcessor):
    """Turns ended spans of calls to models into events of a ledger: ours, and those of other instrumentations.

    Add it to a TracerProvider of your own; `instrument()` and zero-code mode do so themselves. `ledger` None is the one
    that the calls are accounted in, as configured. A call that tollspan's instrumentation sees, or that several foreign
    instrumentations see, is counted once, and no prompt or answer is kept. A foreign call has its cost from its span,
    or else by the price of its usage; without usage it is committed without a cost, and `reason` says so. Foreign spans
    that a sampler drops are not seen here: `instrument()` takes care of those, too.
    """

    def __init__(self, ledger: "Ledger | None" = None) -> None:
        self._ledger = ledger
        self._written: Ledger | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's interface
        """Remember the span while it is open: a call below it may be the one that it tells of."""
        try:  # for every span of the application: a guard that is entered costs more than all of this
            coverage.started(span)
        except Exception:  # the guard decides
            with internal_errors:
                raise

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue the event of a call; anything wrong is logged, for nobody guards the caller against us."""
        try:
            self._ended(span)
        except Exception:  # the guard decides
            with internal_errors:
                raise

    def shutdown(self) -> None:
        """Write what is queued; the ledger stays open, because calls may still be recorded without a provider."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what is queued; False when that took longer than `timeout_millis`."""
        with internal_errors:
            return self._written is None or self._written.flush(timeout_millis / 1000)
        return False

    def _ended(self, span: ReadableSpan) -> None:
        span_id = span.context.span_id
        covered = coverage.ended(span_id)
        if span_id in _bound and (bound := take(span_id)) is not None:
            record, configured = bound
            self._written = self._ledger or configured
            settle(record, self._written)
        elif is_marked(attributes_of(span)) and coverage.first_look(span_id) and not covered:
            self._count(span)

    def _books(self) -> "Books":
        return _configured()

    def _count(self, span: ReadableSpan) -> None:
        """The call of a foreign span, unless it is counted already."""
        said = _dialects.read(span)
        if said is None or said.answer_follows or said.scope == OWN_SCOPE or _leaves_it_to_another(said, span):
            return
        from ._foreign import book, record_of  # noqa: PLC0415 - most processes never come here

        books = self._books()
        record = record_of(said, books.settings)
        if coverage.counts(said.scope, record, span):
            book(record, said, books.prices)
            record.limits = _limits_of(record)
            self._written = self._ledger or books.ledger
            settle(record, self._written)


def _leaves_it_to_another(said: "Inference", span: ReadableSpan) -> bool:
    """A span without usage leaves the call to an open one around or below it, which may still learn the usage."""
    if said.usage is not None or said.cost_usd is not None:
        return False
    others = chain(coverage.ancestors(span), coverage.descendants(said.span_id))
    return any(
        _dialects.operation_of(attributes_of(other)) is not None and not coverage.covers(other) for other in others
    )
