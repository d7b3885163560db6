"""The span processor: the door through which a recording span of ours brings its call into the ledger."""

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from tollspan.ledger import Ledger, internal_errors

from ._record import CallRecord
from ._settle import settle

_bound: dict[int, tuple[CallRecord, Ledger]] = {}
"""Records of spans that are about to end, and the ledgers they are meant for, by span id."""


def bind(span_id: int, record: CallRecord, ledger: Ledger) -> None:
    """Bind a record to the span with this id, just before the span is ended."""
    _bound[span_id] = record, ledger


def take(span_id: int) -> tuple[CallRecord, Ledger] | None:
    """The record bound to a span and its ledger, once; None for a foreign span and for one that was taken already."""
    return _bound.pop(span_id, None)


class LedgerSpanProcessor(SpanProcessor):
    """Turns the ended spans of tollspan's instrumentation into events of a ledger.

    Add it to a TracerProvider of your own; `instrument()` and zero-code mode do so themselves. `ledger` None is the one
    that the calls are accounted in, as configured. Spans of other instrumentations are let through untouched.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger
        self._written: Ledger | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue the event of one of our spans; anything wrong is logged, for nobody guards the caller against us."""
        with internal_errors:
            context = span.get_span_context()
            bound = take(context.span_id) if context else None
            if bound is not None:
                record, configured = bound
                self._written = self._ledger or configured
                settle(record, self._written)

    def shutdown(self) -> None:
        """Write what is queued; the ledger stays open, because calls may still be recorded without a provider."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what is queued; False when that took longer than `timeout_millis`."""
        with internal_errors:
            return self._written is None or self._written.flush(timeout_millis / 1000)
        return False
