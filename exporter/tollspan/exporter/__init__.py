"""From spans and records of calls to events of the ledger, in batches.

`LedgerSpanProcessor` is for a TracerProvider of your own; `instrument()` and zero-code mode add it themselves.
"""

from typing import TYPE_CHECKING

from tollspan.ledger import lazy_face

if TYPE_CHECKING:
    from ._booking import book_stated, book_usage
    from ._coverage import CURRENT, CountedCall, coverage, in_call
    from ._pipeline import Pipeline, pipeline, use_pipeline
    from ._processor import LedgerSpanProcessor, charge_by
    from ._record import CallRecord, Held, Outcome
    from ._translate import beginning, hold_event, retry, settlement, wait_event, withdrawal
else:
    __getattr__, __dir__ = lazy_face(
        __name__,
        {
            "_booking": "book_stated book_usage",
            "_coverage": "CURRENT CountedCall coverage in_call",
            "_pipeline": "Pipeline pipeline use_pipeline",
            "_processor": "LedgerSpanProcessor charge_by",
            "_record": "CallRecord Held Outcome",
            "_translate": "beginning hold_event retry settlement wait_event withdrawal",
        },
    )

__all__ = [
    "CURRENT",
    "CallRecord",
    "CountedCall",
    "Held",
    "LedgerSpanProcessor",
    "Outcome",
    "Pipeline",
    "beginning",
    "book_stated",
    "book_usage",
    "charge_by",
    "coverage",
    "hold_event",
    "in_call",
    "pipeline",
    "retry",
    "settlement",
    "use_pipeline",
    "wait_event",
    "withdrawal",
]
