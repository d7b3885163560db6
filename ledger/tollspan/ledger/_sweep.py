"""Holds whose owner is gone: nobody will ever know what those calls cost, so their holds become estimated spend."""

import threading
from dataclasses import replace

from ._events import LedgerEvent, event_id_for
from ._owners import owners_with_a_file, taken_over
from ._rows import from_row
from ._store import Entry, SQLiteStore


def settle_dead_owners(store: SQLiteStore, lock: threading.RLock) -> int:
    """Commit every open hold of a dead owner at its full amount; safe to run in several processes at once."""
    if store.path is None:
        return 0
    settled = 0
    with lock:
        owners = {*store.open_hold_owners(), *owners_with_a_file(store.path)} - {store.owner.known_name}
        for owner in sorted(owners):
            with taken_over(owner, store.path) as dead:
                if dead:
                    settled += _settle(store, owner)
    return settled


def at_hold(store: SQLiteStore, hold_id: bytes, reason: str) -> Entry:
    """The entry that settles an open hold at its full amount."""
    row = store.query("SELECT * FROM event WHERE event_id = ?", (hold_id,))[0]
    return Entry(commit_at_hold(from_row(row), reason), hold_id)


def commit_at_hold(hold: LedgerEvent, reason: str) -> LedgerEvent:
    """The commit of a call whose outcome is unknown: its hold as estimated spend. One hold always gives one event."""
    sequence = bytes.fromhex(hold.event_id)[-1]
    event_id = event_id_for(bytes.fromhex(hold.call_id), "commit", sequence).hex()
    return replace(
        hold, event_type="commit", event_id=event_id, offset=None, estimated=True, status="error", reason=reason
    )


def _settle(store: SQLiteStore, owner: str) -> int:
    holds = store.holds_of(owner)
    if holds:
        store.write([at_hold(store, hold_id, "the process that made the call is gone") for hold_id in holds])
    return len(holds)
