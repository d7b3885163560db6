"""Calls that only spans of others tell of count in budgets, too, from the moment that this room is imported."""

from typing import TYPE_CHECKING

from tollspan.exporter import charge_by

if TYPE_CHECKING:
    from tollspan.exporter import CallRecord
    from tollspan.ledger import Limit


def _charged(record: "CallRecord") -> "tuple[Limit, ...]":
    from ._matching import charged  # noqa: PLC0415 - an application may import this room and make no call

    return charged(record)


charge_by(_charged)
