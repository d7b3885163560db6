"""What a call has cost is corrected by events that are added, in the windows where it counts; nothing is changed."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ._batch import Key, key_of
from ._errors import LedgerConflict
from ._events import SPENDING, Charge, LedgerEvent, event_id_for
from ._money import to_nano
from ._queries import events_for_call
from ._runs import MOST_ADJUSTS, live, next_sequence
from ._store import SQLiteStore
from ._units import unit_of

_BY_HAND: dict[str, Any] = {"category": None, "records": ()}  # not the marks of a run that corrected it before


def corrections(store: SQLiteStore, call_id: bytes, cost_usd: Decimal, reason: str) -> list[LedgerEvent]:
    """The events after which a call has cost `cost_usd`: one takes back estimates, one puts the rest in their place.

    Only accounts in USD change; what the call has used in tokens and requests stays. Raises KeyError, LedgerConflict.
    """
    events = events_for_call(store, call_id=call_id)
    spending = [event for event in events if event.event_type in SPENDING]
    if not spending:
        raise KeyError(f"the ledger has no spend of a call {call_id.hex()}")
    adjusts = [event for event in events if event.event_type == "adjust"]
    sequence = next_sequence(adjusts)
    if sequence + 2 > MOST_ADJUSTS:
        raise LedgerConflict(f"call {call_id.hex()} was corrected {len(adjusts)} times, and no more fits")
    estimates = [event for event in spending if event.estimated]
    actuals = [event for event in spending if not event.estimated]
    back, put = -_spent(estimates), cost_usd - _spent(actuals)
    like = replace(
        spending[-1], event_type="adjust", offset=None, usage={}, reason=reason, timestamp=time.time(), **_BY_HAND
    )
    corrected: list[LedgerEvent] = []
    if back:
        charges = _charges({key: -amount for key, amount in _charged(estimates).items()})
        adjust_id = event_id_for(call_id, "adjust", sequence).hex()
        corrected.append(
            replace(like, event_id=adjust_id, cost_est_usd=back, cost_actual_usd=None, estimated=True, charges=charges)
        )
    if put or spend_of(spending) is None:  # 0 for what had no price: it is free
        before = _charged(actuals)
        keys = dict.fromkeys(key for event in spending for key in map(key_of, event.charges) if _in_usd(key))
        charges = _charges({key: to_nano(cost_usd) - before[key] for key in keys})
        adjust_id = event_id_for(call_id, "adjust", sequence + len(corrected)).hex()
        corrected.append(
            replace(like, event_id=adjust_id, cost_est_usd=None, cost_actual_usd=put, estimated=False, charges=charges)
        )
    return corrected


def spend_of(events: Sequence[LedgerEvent]) -> Decimal | None:
    """What the events of a call come to; None where it has no price, or what gave it one was taken back."""
    adjusts = [event for event in events if event.event_type == "adjust"]
    given = [*(event for event in events if event.event_type != "adjust"), *live(adjusts)]
    known = [event.spend_usd for event in given if event.spend_usd is not None]
    return sum(known, Decimal(0)) if known else None


def _spent(events: Sequence[LedgerEvent]) -> Decimal:
    return sum((event.spend_usd for event in events if event.spend_usd is not None), Decimal(0))


def _charged(events: Sequence[LedgerEvent]) -> Counter[Key]:
    charged: Counter[Key] = Counter()
    for event in events:
        for charge in event.charges:
            if _in_usd(key_of(charge)):
                charged[key_of(charge)] += charge.amount
    return charged


def _charges(amounts: dict[Key, int]) -> tuple[Charge, ...]:
    return tuple(
        Charge(budget=account, scope=scope, window_start=start, amount=amount)
        for (account, scope, start), amount in amounts.items()
        if amount
    )


def _in_usd(key: Key) -> bool:
    return unit_of(key[0]) == "USD"
