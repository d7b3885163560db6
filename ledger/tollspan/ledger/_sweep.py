"""Holds whose owner is gone: nobody will ever know what those calls cost, so their holds become estimated spend."""

import threading
from dataclasses import replace

from ._events import LedgerEvent, event_id_for
from ._owners import is_dead, remove
from ._rows import from_row
from ._store import Entry, SQLiteStore


def settle_dead_owners(store: SQLiteStore, lock: threading.RLock) -> int:
    """Commit every open hold of a dead owner at its full amount; safe to run in several processes at once."""
    if store.path is None:
        return 0
    settled = 0
    with lock:
        for owner in store.open_hold_owners():
            if owner != store.owner.known_name and is_dead(owner, store.path):
                entries = [_settlement(store, hold_id) for hold_id in store.holds_of(owner)]
                settled += len(entries)
                store.write(entries)
                remove(owner, store.path)
    return settled


def _settlement(store: SQLiteStore, hold_id: bytes) -> Entry:
    row = store.query("SELECT * FROM event WHERE event_id = ?", (hold_id,))[0]
    return Entry(commit_at_hold(from_row(row), "the process that made the call is gone"), hold_id)


def commit_at_hold(hold: LedgerEvent, reason: str) -> LedgerEvent:
    """The commit of a call whose outcome is unknown: its hold, as estimated spend. The same hold gives the same event."""
    sequence = bytes.fromhex(hold.event_id)[-1]
    event_id = event_id_for(bytes.fromhex(hold.call_id), "commit", sequence).hex()
    return replace(
        hold, event_type="commit", event_id=event_id, offset=None, estimated=True, status="error", reason=reason
    )
