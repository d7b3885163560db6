"""Answers that are fetched again, such as those made in the background: each counts once, however often it is asked.

A provider that keeps its answers tells the usage of each whenever it is asked. Whether the ledger has counted it is
decided inside the transaction that would store it, by the provider's id of the answer.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from sqlite3 import Connection, Row
from typing import Any

from ._events import Charge, LedgerEvent, call_id_prefix, event_id_for
from ._lookup import FOUND, lookup_key
from ._money import to_nano
from ._postings import Posting
from ._rows import from_row
from ._units import tokens_of, unit_of

FETCHED = "the answer was fetched"
"""Why there is an adjust where an answer was fetched of which only an estimate was known."""


def fetched_call_id(response_id: str, created: float) -> bytes:
    """The call id of an answer whose call may not be known here; `created` in epoch seconds, as the provider says."""
    return call_id_prefix(int(created * 1000)) + hashlib.blake2b(response_id.encode(), digest_size=8).digest()


def is_fetched(posting: Posting) -> bool:
    """Whether an event is of an answer that was fetched, and not of the call that made it."""
    if posting.response_id is None or posting.event_type != "commit":
        return False
    return posting.call_id == fetched_call_id(posting.response_id, posting.timestamp)


def uncounted(connection: Connection, event: LedgerEvent) -> list[LedgerEvent]:
    """What a fetched answer adds to the ledger.

    Itself, where its call is not known; nothing, where its usage is; else adjusts that take the estimate back and put
    the actual cost in its place, in the windows where the call counts.
    """
    call = _call_of(connection, event)
    if call is None:
        return [event]
    if call.usage or _is_adjusted(connection, call):
        return []
    return list(_adjusts(call, event))


def _call_of(connection: Connection, event: LedgerEvent) -> LedgerEvent | None:
    cursor = connection.cursor()
    cursor.row_factory = Row
    key = lookup_key("response_id", event.response_id or "")
    found = cursor.execute(FOUND.format(kind="response_id"), {"key": key, "value": event.response_id, "after": 0})
    return next((from_row(row) for row in found if row["event_type"] == "commit"), None)


def _is_adjusted(connection: Connection, call: LedgerEvent) -> bool:
    sql = "SELECT 1 FROM event WHERE event_id BETWEEN ? AND ?"
    return connection.execute(sql, (_adjust_id(call, 0), _adjust_id(call, 255))).fetchone() is not None


def _adjusts(call: LedgerEvent, event: LedgerEvent) -> Iterator[LedgerEvent]:
    same: dict[str, Any] = {"offset": None, "event_type": "adjust", "reason": FETCHED}
    same["timestamp"] = event.timestamp
    if call.spend_usd is not None:
        yield replace(
            call,
            **same,
            event_id=_adjust_id(call, 0).hex(),
            cost_est_usd=-call.spend_usd if call.estimated else None,
            cost_actual_usd=None if call.estimated else -call.spend_usd,
            charges=tuple(replace(charge, amount=-charge.amount) for charge in call.charges),
        )
    yield replace(
        call,
        **same,
        event_id=_adjust_id(call, 1).hex(),
        model=event.model or call.model,
        usage=event.usage,
        cost_est_usd=None,
        cost_actual_usd=event.cost_actual_usd,
        cost_source=event.cost_source,
        cost_rates=event.cost_rates,
        estimated=False,
        charges=tuple(_charged(charge, event) for charge in call.charges),
    )


def _charged(charge: Charge, event: LedgerEvent) -> Charge:
    """What the answer uses of a balance that its call counts in; what was estimated stays where that is not known."""
    unit = unit_of(charge.budget)
    if unit == "tokens":
        return replace(charge, amount=tokens_of(event.usage))
    cost = event.cost_actual_usd
    return replace(charge, amount=to_nano(cost)) if unit == "USD" and isinstance(cost, Decimal) else charge


def _adjust_id(call: LedgerEvent, sequence: int) -> bytes:
    return event_id_for(bytes.fromhex(call.call_id), "adjust", sequence)
