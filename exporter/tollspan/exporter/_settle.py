"""Where the settlement of a call goes over into the ledger."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tollspan.ledger import Ledger

    from ._record import CallRecord


def settle(record: "CallRecord", ledger: "Ledger") -> None:
    """Hand the settlement of a call to a ledger; where it cannot be made, the call is settled at what it held."""
    try:
        from ._translate import settlement  # noqa: PLC0415 - with the first call, and not before it

        entry = settlement(record)
    except Exception:
        if record.held is not None:
            ledger.writer.settle_at_hold(record.held.hold_id, "its settlement could not be made")
        raise
    ledger.writer.put(entry)
