"""Where the settlement of a call goes over into the ledger."""

from tollspan.ledger import Ledger

from ._record import CallRecord
from ._translate import settlement


def settle(record: CallRecord, ledger: Ledger) -> None:
    """Hand the settlement of a call to a ledger; where it cannot be made, the call is settled at what it held."""
    try:
        entry = settlement(record)
    except Exception:
        if record.held is not None:
            ledger.writer.settle_at_hold(record.held.hold_id, "its settlement could not be made")
        raise
    ledger.writer.put(entry)
