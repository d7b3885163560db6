"""The writer's thread: what waits, what is written when, and what happens if it cannot be."""

import asyncio
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from decimal import Decimal

import pytest
from samples import a_request, cancel_of, commit, requests_limit, script, until

from tollspan.ledger import (
    Balance,
    Entry,
    Grant,
    Ledger,
    LedgerConflict,
    LedgerError,
    LedgerUnavailable,
    Refusal,
)
from tollspan.ledger._filelock import FileLock

B = ("b [requests]", "", 0)


@contextmanager
def locked(path):
    """Another connection that keeps everyone from writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("COMMIT")


@pytest.fixture(name="brief")
def _brief(tmp_path):
    """A ledger that gives up on a locked file after 100 ms."""
    with Ledger(tmp_path / "brief.db", busy_timeout_ms=100) as ledger:
        ledger.append(commit())
        yield ledger


def ids(ledger):
    return [event.event_id for event in ledger.events]


# ---- what is written when


def test_an_event_is_written_soon_without_being_asked_for(ledger):
    """A lone event is on disk within the interval, for others to see."""
    ledger.write_event(commit())
    with Ledger(ledger.path) as other:
        until(lambda: other.latest_offset() == 1, 2)


def test_a_settlement_is_written_at_once(ledger):
    """An entry that releases a hold is on disk long before the interval of 200 ms is over."""
    request = a_request(requests_limit(1))
    ledger.writer.ask(request).wait(5)
    spans = []
    for _ in range(3):
        request = a_request(requests_limit(9))
        ledger.writer.ask(request).wait(5)
        began = time.monotonic()
        ledger.writer.put(cancel_of(request))
        until(lambda: not ledger.writer.pending)
        spans.append(time.monotonic() - began)
    assert min(spans) < 0.1


def test_a_flush_waits_for_a_batch_that_has_left_the_queue(ledger):
    """Events on their way to disk are pending, and a flush does not return before they are there."""
    with ledger.writer.store_lock:
        ledger.write_event(commit())
        until(lambda: not ledger.writer._queue)
        assert ledger.writer.pending
        assert not ledger.flush(0.01)
    assert ledger.flush()
    assert not ledger.writer.pending


def test_a_flush_waits_for_what_was_deferred(ledger):
    """What runs at the writer's next turn is done, and what it enqueues is written, before a flush returns."""
    ledger.writer.defer(lambda: ledger.write_event(commit("0.5")))
    assert ledger.flush()
    assert len(ids(ledger)) == 1


def test_an_error_in_what_was_deferred_keeps_nothing_back(ledger, caplog):
    """A deferred action that fails is logged; the next one and all events are served by the same thread."""
    ledger.write_event(commit())
    thread = ledger.writer._thread
    ledger.writer.defer(lambda: 1 / 0)
    ledger.writer.defer(lambda: ledger.write_event(commit()))
    assert ledger.flush()
    assert "ZeroDivisionError" in caplog.text
    assert len(ids(ledger)) == 2
    assert ledger.writer._thread is thread


def test_replays_and_conflicts_are_counted(ledger, caplog):
    """A replay is counted in silence; a conflict is counted, logged, and raised where somebody waits for the event."""
    event = commit("1")
    offset = ledger.append(event)
    assert ledger.append(event) == offset
    with pytest.raises(LedgerConflict, match="another model"):
        ledger.append(commit("1", event_id=event.event_id, call_id=event.call_id, timestamp=event.timestamp, model="x"))
    counts = ledger.writer.counts
    assert (counts.written, counts.replayed, counts.conflicts, counts.rejected) == (1, 2, 1, 0)
    assert "another model" in caplog.text


def test_closing_loses_nothing_that_is_put_meanwhile(ledger):
    """However often a ledger is closed while others write to it, every event arrives."""
    events = [commit() for _ in range(3000)]

    def produce():
        for event in events:
            ledger.write_event(event)

    producer = threading.Thread(target=produce)
    producer.start()
    while producer.is_alive():
        with suppress(LedgerError):  # something came in after the last look
            ledger.close()
    assert ledger.flush()
    assert ids(ledger) == [event.event_id for event in events]


def test_producers_who_are_never_done_do_not_keep_waiters_from_being_served(ledger):
    """A waiter in line is served while each event that is written is followed by another one."""
    limit = requests_limit(1)
    first, done = a_request(limit), threading.Event()
    ledger.writer.ask(first).wait(5)
    waiting = ledger.writer.ask(a_request(limit), wait_s=5)

    def go_on():
        while not done.is_set():
            if len(ledger.writer._queue) < 2000:
                ledger.write_event(commit())

    producer = threading.Thread(target=go_on)
    producer.start()
    until(lambda: ledger.writer.pending > 600)
    ledger.writer.put(cancel_of(first))
    try:
        assert isinstance(waiting.wait(4), Grant)
    finally:
        done.set()
        producer.join()


# ---- what cannot be written

POISON = {
    "text for a number": {"http_status": "no number"},
    "an object for text": {"model": object()},
    "text that is no text": {"user_id": "\ud800"},
    "a sum beyond 64 bits": {"cost_actual_usd": Decimal(10**12)},
    "a value that is missing": {"attempts": None},
}
NO_EVENT = {
    "JSON that is none": {"usage": {"tokens_in": object()}},
    "no number at all": {"cost_actual_usd": Decimal("nan")},
    "an id that is none": {"event_id": "not hexadecimal"},
}


@pytest.mark.parametrize("wrong", POISON.values(), ids=POISON)
def test_an_event_that_cannot_be_stored_keeps_nothing_back(ledger, caplog, wrong):
    """All but the poisonous event are stored, in order; it is logged, and raised where somebody waits for it."""
    events = [commit() for _ in range(40)]
    poison = commit(**wrong)
    with ledger.writer.store_lock:  # so that all are in one batch
        for event in [*events[:30], poison, *events[30:]]:
            ledger.write_event(event)
    granted = ledger.writer.ask(a_request(requests_limit(1)))
    assert isinstance(granted.wait(5), Grant)
    assert ids(ledger)[:40] == [event.event_id for event in events]
    assert ledger.writer.counts.rejected == 1
    assert "cannot be stored and was left out" in caplog.text
    with pytest.raises(Exception, match=r"."):
        ledger.append(poison)


@pytest.mark.parametrize("wrong", NO_EVENT.values(), ids=NO_EVENT)
def test_what_has_no_row_is_refused_at_once(ledger, wrong):
    """An event whose fields are of no use to any store is refused where it is handed over."""
    with pytest.raises((TypeError, ValueError)):
        ledger.write_event(commit(**wrong))
    assert ids(ledger) == []


def test_a_settlement_that_cannot_be_stored_leaves_its_hold_as_spend(ledger):
    """A call whose settlement is poisonous may have been billed: its hold becomes estimated spend."""
    request = a_request(requests_limit(1))
    ledger.writer.ask(request).wait(5)
    ledger.writer.put(Entry.of(commit(http_status="no number"), request.hold_id))
    until(lambda: len(ids(ledger)) == 2)
    last = ledger.tail()[-1]
    assert (last.event_type, last.estimated, last.spend_usd) == ("commit", True, Decimal("0.5"))
    assert last.reason == "its settlement could not be stored"
    assert ledger.balance(B) == Balance(0, 0, 0)
    assert ledger.spend_today() == 0.5


def test_a_hold_that_was_never_stored_leaves_no_cancel(ledger, monkeypatch):
    """Where a commit fails and it turns out that nothing of it is stored, nothing is there to be given back."""
    ledger.append(commit())
    write = ledger.store.write

    def fail(*_arguments):
        error = LedgerUnavailable("the disk is full")
        error.uncertain = True
        raise error

    monkeypatch.setattr(ledger.store, "write", fail)
    with pytest.raises(LedgerUnavailable):
        ledger.writer.ask(a_request(requests_limit(1))).wait(5)
    monkeypatch.setattr(ledger.store, "write", write)
    until(ledger.flush)
    assert [event.event_type for event in ledger.tail()] == ["commit"]
    assert ledger.balance(B) == Balance()


def test_a_hold_that_cannot_be_described_is_answered_with_the_error(ledger):
    """A request whose event cannot be made gets that error, and the others of its batch their answers."""
    bad = a_request(requests_limit(5))
    object.__setattr__(bad, "describe", lambda grant: 1 / 0)
    with ledger.writer.store_lock:
        tickets = [ledger.writer.ask(r) for r in (a_request(requests_limit(5)), bad, a_request(requests_limit(5)))]
    with pytest.raises(ZeroDivisionError):
        tickets[1].wait(5)
    assert [type(tickets[i].wait(5)) for i in (0, 2)] == [Grant, Grant]
    assert ledger.balance(B).held == 2


def test_events_outlast_a_locked_file(brief, caplog):
    """While another program keeps the file locked events wait, and then they all arrive, in order and once."""
    events = [commit() for _ in range(1200)]
    with locked(brief.path):
        for event in events:
            brief.write_event(event)
        until(lambda: brief.writer.counts.failures >= 2)
        assert brief.writer.pending == 1200
    assert brief.flush()
    assert ids(brief)[1:] == [event.event_id for event in events]
    assert brief.writer.counts.last_error is None
    assert caplog.text.count("Events wait") == 1


def test_who_waits_for_a_locked_file_is_told_within_the_busy_timeout(brief):
    """A hold, one that stands in line, and a durable event raise LedgerUnavailable in time; the event arrives later."""
    event = commit()
    with locked(brief.path):
        for ask in (
            lambda: brief.writer.ask(a_request(requests_limit(1))).wait(5),
            lambda: brief.writer.ask(a_request(requests_limit(1)), wait_s=5).wait(5),
            lambda: brief.append(event),
            lambda: asyncio.run(brief.awrite_event(commit(), sync=True)),
        ):
            began = time.monotonic()
            with pytest.raises(LedgerUnavailable, match="locked"):
                ask()
            assert time.monotonic() - began < 1
    assert brief.flush()
    assert event.event_id in ids(brief)
    assert brief.balance(B).held == 0


def test_a_poisonous_event_in_a_locked_file_leaves_the_order_as_it_was(brief, monkeypatch):
    """A batch that was taken apart for one event and then met a locked file is put back whole and in order."""
    events, write, calls = [commit() for _ in range(9)], brief.store.write, []

    def write_unless_locked(*batch):
        calls.append(batch)
        if len(calls) in (3, 4, 6):
            raise LedgerUnavailable("locked for a moment")
        return write(*batch)

    monkeypatch.setattr(brief.store, "write", write_unless_locked)
    with brief.writer.store_lock:
        for event in [*events[:4], commit(http_status="no number"), *events[4:]]:
            brief.write_event(event)
    until(lambda: not brief.writer.pending)
    assert ids(brief)[1:] == [event.event_id for event in events]
    assert (brief.writer.counts.rejected, brief.writer.counts.failures) == (1, 3)


SPOILT = {
    "garbage": lambda path: path.write_bytes(b"no database at all. " * 500),
    "a directory": lambda path: path.mkdir(),
    "another program's": lambda path: sqlite3.connect(path).execute("CREATE TABLE recipe (name)").connection.close(),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_events_outlast_a_file_that_is_no_ledger(tmp_path, spoil):
    """Events wait, holds are refused with the reason, and all arrive once the file is out of the way."""
    path = tmp_path / "spoilt.db"
    spoil(path)
    ledger = Ledger(path)
    events = [commit() for _ in range(3)]
    for event in events:
        ledger.write_event(event)
    with pytest.raises(LedgerUnavailable, match=r"spoilt\.db.*TOLLSPAN_LEDGER"):
        ledger.writer.ask(a_request(requests_limit(1))).wait(5)
    with pytest.raises(LedgerError, match=r"3 events could not be written: .*TOLLSPAN_LEDGER"):
        ledger.close()
    path.rename(tmp_path / "away")
    ledger.write_event(commit())
    assert ledger.flush()
    assert ids(ledger)[:3] == [event.event_id for event in events]
    ledger.close()


def test_a_process_that_cannot_write_does_not_hold_up_its_calls(tmp_path):
    """With a file that is no ledger, enqueueing and looking at cached balances cost no wait."""
    (tmp_path / "spoilt.db").mkdir()
    ledger = Ledger(tmp_path / "spoilt.db")
    ledger.write_event(commit())
    until(lambda: ledger.writer.counts.failures)
    began = time.monotonic()
    for _ in range(20):
        ledger.write_event(commit())
        with pytest.raises(LedgerUnavailable, match="is a directory"):
            ledger.cached_balance(B)
    assert time.monotonic() - began < 0.1
    with pytest.raises(LedgerError):
        ledger.close()


KEEP_LOCKED = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_enqueueing_never_waits_for_another_process(ledger):
    """While another process keeps the file locked, a thousand events are enqueued at once, and are written after it."""
    ledger.append(commit())
    with script(KEEP_LOCKED, ledger.path) as other:
        other.stdout.readline()
        ledger.write_event(commit())
        until(lambda: not ledger.writer._queue)  # the writer is at the lock
        began = time.monotonic()
        for _ in range(1000):
            ledger.write_event(commit())
        assert time.monotonic() - began < 0.2
        assert ledger.writer.pending == 1001
    assert ledger.flush()
    assert ledger.latest_offset() == 1002


def test_a_process_that_stands_still_in_a_write_does_not_keep_others_from_ending(ledger):
    """While another holds the lock on the file and goes no further, closing gives up in time; later all is written."""
    ledger.append(commit())
    with FileLock(ledger.path.with_name("own.db-lock")):
        ledger.write_event(commit())
        began = time.monotonic()
        assert not ledger.flush(0.1)
        with pytest.raises(LedgerError, match="events could not be written: out of time"):
            ledger.close(0.1)
        assert time.monotonic() - began < 2
    assert ledger.flush()
    assert ledger.latest_offset() == 2


# ---- cached balances


def test_a_cached_balance_follows_this_process_and_others(ledger):
    """What is seen without a wait is what this process has written, and soon what others have."""
    assert ledger.cached_balance(B) == Balance()
    ledger.writer.ask(a_request(requests_limit(5))).wait(5)
    assert ledger.cached_balance(B).held == 1
    with Ledger(ledger.path) as other:
        other.writer.ask(a_request(requests_limit(5))).wait(5)
        until(lambda: ledger.cached_balance(B).held == 2, 2)


# ---- tickets


def test_a_ticket_is_answered_or_given_up_never_both(ledger):
    """Whoever comes first, the writer or the waiter, decides; the other is told."""
    given_up = ledger.writer.ask(a_request(requests_limit(1)))
    given_up.give_up()
    answered = ledger.writer.ask(a_request(requests_limit(1)))
    until(lambda: answered.settled)
    assert given_up.settled
    assert not answered.give_up()
    assert isinstance(answered.result(), Grant | Refusal)
    until(lambda: ledger.balance(B).held == 1)
