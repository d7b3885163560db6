"""The span processor: the door through which a recording span of ours brings its call into the ledger."""

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from tollspan.ledger import internal_errors

from ._translate import settlement

if TYPE_CHECKING:
    from tollspan.ledger import Ledger

    from ._record import CallRecord

_bound: "dict[int, CallRecord]" = {}
"""Records of spans that are about to end, by span id."""


def bind(span_id: int, record: "CallRecord") -> None:
    """Bind a record to the span with this id, just before the span is ended."""
    _bound[span_id] = record


def take(span_id: int) -> "CallRecord | None":
    """The record bound to a span, once; None for a foreign span and for one whose record was taken already."""
    return _bound.pop(span_id, None)


class LedgerSpanProcessor(SpanProcessor):
    """Turns the ended spans of tollspan's instrumentation into events of a ledger.

    Add it to a TracerProvider of your own; `instrument()` and zero-code mode do so themselves. `ledger` None is the
    configured one. Spans of other instrumentations are let through untouched.
    """

    def __init__(self, ledger: "Ledger | None" = None) -> None:
        self._ledger = ledger

    @property
    def ledger(self) -> "Ledger":
        """The ledger that this processor writes to."""
        if self._ledger is None:
            from ._pipeline import pipeline  # noqa: PLC0415 - the pipeline makes processors, and this one only asks back

            return pipeline().ledger
        return self._ledger

    def on_end(self, span: ReadableSpan) -> None:
        """Enqueue the event of one of our spans; anything wrong is logged, for nobody guards the caller against us."""
        with internal_errors:
            context = span.get_span_context()
            record = take(context.span_id) if context else None
            if record is not None:
                self.ledger.writer.put(settlement(record))

    def shutdown(self) -> None:
        """Write what is queued; the ledger stays open, because calls may still be recorded without a provider."""
        self.force_flush()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what is queued; False when that took longer than `timeout_millis`."""
        with internal_errors:
            return self.ledger.flush(timeout_millis / 1000)
        return False
