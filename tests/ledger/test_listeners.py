"""Listeners: told of what is on disk, in order and once, and no trouble of theirs is anybody else's."""

import os
import sqlite3
import threading
from contextlib import closing

import pytest
from samples import a_request, commit, requests_limit, script, until

from tollspan.ledger import Ledger, LedgerUnavailable
from tollspan.ledger._batch import Batch


class Notes:
    """A listener that remembers what it was told."""

    def __init__(self):
        self.batches = []

    def __call__(self, events):
        self.batches.append(events)

    @property
    def events(self):
        return [event for batch in self.batches for event in batch]


@pytest.fixture(name="notes")
def _notes(ledger):
    notes = Notes()
    ledger.subscribe(notes)
    return notes


def settled(ledger):
    """Every event is on disk, and the listeners were told of it."""
    assert ledger.flush()
    ledger.writer.listeners.drain(10)


def test_a_listener_is_told_of_every_event_with_its_offset_in_order(ledger, notes):
    """What it hears is what the log says: holds too, each once, with the offsets that the events have."""
    for n in range(1200):
        ledger.write_event(commit(model=f"m{n}"))
        if n % 400 == 0:
            ledger.writer.ask(a_request(requests_limit(10))).wait(5)
    settled(ledger)
    assert notes.events == list(ledger.events)
    assert len(notes.batches) > 1


def test_a_replay_in_a_batch_is_not_told_and_moves_no_offset(ledger, notes):
    """Among new events and replays a listener hears of the new ones, and their offsets are right."""
    known, new = commit(), [commit(), commit()]
    ledger.append(known)
    with ledger.writer.store_lock:
        for event in (known, new[0], known, new[1], known):
            ledger.write_event(event)
    settled(ledger)
    assert [event.event_id for event in notes.events] == [event.event_id for event in (known, *new)]
    assert notes.events == list(ledger.events)


WRITE = """
import sys
from samples import commit
from tollspan.ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    for _ in range(300):
        ledger.write_event(commit())
        if _ % 20 == 0:
            ledger.flush()
"""


def test_offsets_are_right_while_another_process_writes(ledger, notes):
    """Events of another process come in between, and are not told; those of this one have their own offsets."""
    with script(WRITE, ledger.path) as other:
        while other.poll() is None:
            ledger.append(commit(model="own"))
    settled(ledger)
    assert notes.events == [event for event in ledger.events if event.model == "own"]


def test_offsets_are_right_for_events_that_waited_in_the_journal(tmp_path):
    """What is read back from the journal in several transactions is told with the offsets that it got."""
    with Ledger(tmp_path / "small.db", busy_timeout_ms=50, queue_limit=5) as ledger:
        ledger.latest_offset()
        notes = Notes()
        ledger.subscribe(notes)
        with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(1100):
                ledger.write_event(commit())
            other.execute("COMMIT")
        settled(ledger)
        assert len(notes.events) == 1100
        assert notes.events == list(ledger.events)


def test_what_is_not_committed_is_not_told(ledger, notes, monkeypatch):
    """A listener never hears of a batch that was rolled back; it hears of it when it is on disk at last."""
    ledger.append(commit(model="first"))
    save, fails = Batch.save_balances, threading.Event()
    fails.set()

    def save_or_fail(batch):
        save(batch)
        if fails.is_set():
            raise LedgerUnavailable("the disk is away for a moment")

    monkeypatch.setattr(Batch, "save_balances", save_or_fail)
    ledger.write_event(commit(model="second"))
    until(lambda: ledger.writer.counts.failures >= 2)
    ledger.writer.listeners.drain(10)
    assert [event.model for event in notes.events] == ["first"]
    fails.clear()
    settled(ledger)
    assert [event.model for event in notes.events] == ["first", "second"]
    assert ledger.latest_offset() == 2


def test_an_event_that_was_told_can_be_read(ledger):
    """When a listener hears of an event, a reader of the file finds it at its offset."""
    seen = []
    ledger.subscribe(lambda events: seen.extend((event.event_id, at(ledger, event.offset)) for event in events))
    for _ in range(50):
        ledger.write_event(commit())
    settled(ledger)
    assert len(seen) == 50
    assert all(told == stored for told, stored in seen)


def at(ledger, offset):
    return ledger.store.query("SELECT lower(hex(event_id)) AS id FROM event WHERE offset = ?", (offset,))[0]["id"]


def test_one_that_raises_does_not_keep_the_others_from_being_told(ledger, notes, caplog):
    """Its error is logged each time, the next listener is told, and so is the one that raises of what comes later."""
    calls = []

    def fails(events):
        calls.append(events)
        raise RuntimeError("a listener's own trouble")

    later = Notes()
    ledger.subscribe(fails)
    ledger.subscribe(later)
    for _ in range(3):
        ledger.append(commit())
    settled(ledger)
    assert notes.events == later.events == list(ledger.events)
    assert len(calls) == 3
    assert caplog.text.count("a listener of the ledger failed") == 3


def test_a_listener_may_write_to_the_ledger(ledger):
    """A listener runs on a thread of its own: what it writes is written, and it is told of that as well."""
    told = []

    def answer(events):
        told.extend(events)
        for event in events:
            if event.model == "question":
                ledger.append(commit(model="answer"))

    ledger.subscribe(answer)
    ledger.append(commit(model="question"))
    until(lambda: [event.model for event in told] == ["question", "answer"])


def test_one_that_is_slow_holds_up_no_writing(ledger):
    """Events reach the disk while a listener is busy with earlier ones."""
    go_on = threading.Event()
    ledger.subscribe(lambda events: go_on.wait(20))
    try:
        for _ in range(10):
            ledger.append(commit())
        assert ledger.latest_offset() == 10
    finally:
        go_on.set()


def test_who_unsubscribes_is_not_told_any_more(ledger, notes):
    """What `subscribe` gives back ends it, once and for this one alone, even where one listens twice."""
    twice = Notes()
    ends = [ledger.subscribe(twice), ledger.subscribe(twice)]
    ledger.append(commit())
    settled(ledger)
    assert len(twice.events) == 2
    ends[0]()
    ends[0]()
    ledger.append(commit())
    settled(ledger)
    assert len(twice.events) == 3
    ends[1]()
    ledger.append(commit())
    settled(ledger)
    assert (len(twice.events), len(notes.events)) == (3, 3)


def test_closing_waits_until_the_listeners_were_told(ledger):
    """After close() a listener has heard of everything, however slow it was; later events are told as before."""
    told, go_on = [], threading.Event()

    def listen(events):
        go_on.wait(20)
        told.extend(events)

    ledger.subscribe(listen)
    for _ in range(300):
        ledger.write_event(commit())
    threading.Timer(0.05, go_on.set).start()
    ledger.close()
    assert len(told) == 300
    ledger.append(commit())
    settled(ledger)
    assert len(told) == 301


def test_a_listener_may_close_the_ledger(ledger):
    """Closing from inside a listener does not wait for that listener."""
    closed = threading.Event()
    ledger.subscribe(lambda events: (ledger.close(), closed.set()))
    ledger.append(commit())
    assert closed.wait(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_tells_its_listeners_of_its_own_events(ledger, notes):
    """A child has the listeners of its parent: they hear of the child's events there, and of the parent's here."""
    ledger.append(commit(model="parent"))
    settled(ledger)
    pid = os.fork()
    if pid == 0:
        try:
            before = len(notes.events)
            ledger.append(commit(model="child"))
            settled(ledger)
            os._exit(0 if [event.model for event in notes.events[before:]] == ["child"] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    ledger.append(commit(model="parent"))
    settled(ledger)
    assert [(event.model, event.offset) for event in notes.events] == [("parent", 1), ("parent", 3)]
