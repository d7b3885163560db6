"""Calls for the crash tests, made below any SDK: what they hold, what they are billed, how they are settled."""

import time
from decimal import Decimal

from tollspan.ledger import Demand, Entry, HoldRequest, LedgerEvent, Limit, charge_of, event_id_for, new_call_id
from tollspan.ledger._postings import posting_of

BILLED, HELD = 30, 50
"""Tokens that every call is billed, and that its hold holds."""


def until(condition, timeout_s=20.0):
    """Wait for what another thread or process is about to do."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.001)


def commit(usd="0.01", **fields):
    """A commit that cost so much."""
    return LedgerEvent(event_type="commit", cost_actual_usd=Decimal(usd), **fields)


def a_limit(tokens, budget="crash"):
    """A limit in tokens, of the window `total`."""
    return Limit(budget, "", 0, "tokens", tokens)


def a_hold(limit, tokens=HELD):
    """A hold of so many tokens, or of none."""
    call_id = new_call_id()

    def describe(grant):
        charges = (charge_of(limit, grant.amounts[0]),)
        return posting_of(LedgerEvent(event_type="precheck_hold", call_id=call_id.hex(), charges=charges))

    def withdraw():
        return posting_of(LedgerEvent(event_type="cancel", call_id=call_id.hex(), status="cancelled"))

    demand = Demand(None, 0, tokens, tokens)
    return HoldRequest(event_id_for(call_id, "precheck_hold"), demand, (limit,), describe, withdraw)


def settlement_of(hold, tokens=BILLED):
    """The commit that ends a held call, billed for so many tokens."""
    (limit,) = hold.limits
    charge = charge_of(limit, tokens)
    return Entry.of(commit(call_id=hold.hold_id[:-2].hex(), charges=(charge,)), hold.hold_id)


def cancel_of(hold):
    """The cancel that ends a held call which was not billed."""
    return Entry.of(LedgerEvent(event_type="cancel", call_id=hold.hold_id[:-2].hex()), hold.hold_id)
