"""What processes that are gone have left behind, made good by whoever opens the ledger next.

The events of their journals are stored. Calls that had begun and have no end, and holds that nobody settled, become
estimated spend: nobody will ever know what they cost, and an unknown outcome is no refund.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ._batch import Entry
from ._errors import LedgerUnavailable
from ._events import LedgerEvent, event_id_for
from ._journal import Segment
from ._journal_format import Contents, journals_of, read_journal, set_aside
from ._owners import owners_folder, owners_with_a_file, taken_over
from ._postings import Posting
from ._rows import from_row
from ._store import Outcome, SQLiteStore
from ._units import unit_of

_log = logging.getLogger("tollspan.ledger")
_GONE = "the process that made the call is gone"
_PIECE = 500


@dataclass(slots=True)
class Recovered:
    """What was found: events from journals, calls that had begun without a hold, holds, and lines that are damaged."""

    events: int = 0
    calls: int = 0
    holds: int = 0
    damaged: int = 0

    @property
    def estimated(self) -> int:
        """Calls that were counted at what they may have cost."""
        return self.calls + self.holds


def recover(store: SQLiteStore, lock: threading.RLock) -> Recovered:
    """Store what the journals of dead processes hold, then settle their open calls; several may do so at once.

    Raises LedgerUnavailable; the next one then goes on where this one stopped.
    """
    found = Recovered()
    if store.path is None:
        return found
    with lock:
        owners = {*store.open_hold_owners(), *owners_with_a_file(store.path)} - {store.owner.known_name}
        for owner in sorted(owners):
            with taken_over(owner, store.path) as dead:
                if dead:
                    _recover(store, owner, store.path, found)
    return found


def read_back(store: SQLiteStore, segment: Segment) -> Iterator[Outcome]:
    """Store the events of this process's own journal for which there was no room in memory; what each commit did."""
    contents = _read(segment.path)
    yield from _store_events(store, segment.path, contents)
    if contents.damaged:
        segment.suspect = True
        _log.error("%s: %s; it is kept", segment.path, _what_is_wrong(contents))
    segment.done += len(segment.spilled)
    segment.spilled.clear()
    for begun in segment.begun:
        begun.ended += 1


def at_hold(store: SQLiteStore, hold_id: bytes, reason: str) -> Entry:
    """The entry that settles an open hold at its full amount."""
    row = store.query("SELECT * FROM recorded WHERE event_id = ?", (hold_id,))[0]
    return Entry.of(commit_at_hold(from_row(row), reason), hold_id, substitute=True)


def commit_at_hold(hold: LedgerEvent, reason: str) -> LedgerEvent:
    """The commit of a call whose outcome is unknown: its hold as estimated spend. One hold always gives one event."""
    sequence = bytes.fromhex(hold.event_id)[-1]
    event_id = event_id_for(bytes.fromhex(hold.call_id), "commit", sequence).hex()
    spent = tuple(charge for charge in hold.charges if unit_of(charge.budget) != "concurrent")
    return replace(
        hold,
        event_type="commit",
        event_id=event_id,
        offset=None,
        charges=spent,
        estimated=True,
        status="error",
        reason=reason,
    )


def _as_gone(end: Posting) -> Posting:
    """The commit of a call of which only the beginning is known, at what it may have cost."""
    return end._replace(reason=_GONE if end.reason is None else f"{_GONE}; {end.reason}")


def _recover(store: SQLiteStore, owner: str, ledger: Path, found: Recovered) -> None:
    journals = journals_of(owner, owners_folder(ledger))
    contents = [_read(path) for path in journals]
    for path, one in zip(journals, contents, strict=True):
        found.events += sum(len(outcome.stored) for outcome in _store_events(store, path, one))
    for path, one in zip(journals, contents, strict=True):  # after the ends that stand in any of them
        found.calls += _settle_beginnings(store, path, one)
        found.damaged += one.damaged
    found.holds += _settle_holds(store, owner)
    for path, one in zip(journals, contents, strict=True):
        if one.damaged or one.foreign:
            _log.warning("%s: %s; it is kept as %s", path, _what_is_wrong(one), set_aside(path).name)
        else:
            path.unlink(missing_ok=True)


def _read(path: Path) -> Contents:
    try:
        return read_journal(path)
    except OSError as error:
        raise LedgerUnavailable(f"{path}: {error}; make the file readable, or move it away") from error


def _what_is_wrong(contents: Contents) -> str:
    if contents.foreign:
        return "this journal was written by a version of tollspan that this one does not know"
    return f"{contents.damaged} lines of this journal are damaged and were skipped"


def _store_events(store: SQLiteStore, path: Path, contents: Contents) -> Iterator[Outcome]:
    return _store(store, path, [Entry(posting, release) for release, posting in contents.postings], contents)


def _store(store: SQLiteStore, path: Path, entries: Sequence[Entry], contents: Contents) -> Iterator[Outcome]:
    for start in range(0, len(entries), _PIECE):
        for outcome in _store_piece(store, path, entries[start : start + _PIECE], contents):
            for conflict in outcome.conflicts.values():
                _log.error("%s, in the journal %s; it was not stored again", conflict, path)
            yield outcome


def _store_piece(store: SQLiteStore, path: Path, entries: Sequence[Entry], contents: Contents) -> Iterator[Outcome]:
    """One that cannot be stored must not keep back the others."""
    try:
        yield store.write(entries)
    except LedgerUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - logged for the one that it concerns
        if len(entries) == 1:
            _log.error("%s: an event cannot be stored: %s: %s", path, type(error).__name__, error)
            contents.damaged += 1
            return
        half = len(entries) // 2
        yield from _store_piece(store, path, entries[:half], contents)
        yield from _store_piece(store, path, entries[half:], contents)


def _settle_beginnings(store: SQLiteStore, path: Path, contents: Contents) -> int:
    without_end = [end for end in contents.beginnings if not _has_ended(store, end.call_id)]
    entries = [Entry(_as_gone(end)) for end in without_end]
    return sum(len(outcome.stored) for outcome in _store(store, path, entries, contents))


def _has_ended(store: SQLiteStore, call_id: bytes) -> bool:
    ends = (event_id_for(call_id, "commit"), event_id_for(call_id, "cancel"))
    return bool(store.query("SELECT 1 FROM event WHERE event_id IN (?, ?)", ends))


def _settle_holds(store: SQLiteStore, owner: str) -> int:
    holds = store.holds_of(owner)
    if holds:
        store.write([at_hold(store, hold_id, _GONE) for hold_id in holds])
    return len(holds)
