"""The journal: what a process handed over survives its kill, once; what is damaged costs itself alone."""

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import a_request, cancel_of, commit, requests_limit, script, tokens_limit, until
from test_store import events as plain_events
from test_store import optional

from tollspan.exporter import CallRecord, Held
from tollspan.exporter._settle import settle
from tollspan.ledger import (
    Balance,
    Charge,
    Entry,
    Ledger,
    LedgerError,
    LedgerEvent,
    Posting,
    event_id_for,
    event_of,
    new_call_id,
)
from tollspan.ledger import _journal as journal_module
from tollspan.ledger._journal import Journal
from tollspan.ledger._journal_format import framed, read_journal
from tollspan.ledger._owners import Owner, owners_folder

B = ("b [tokens]", "", 0)
GONE = "the process that made the call is gone"

large = st.integers(-(2**63), 2**63 - 1).map(lambda nano: Decimal(nano).scaleb(-9))
events = st.builds(
    replace,
    plain_events,
    cost_est_usd=st.none() | large,
    cost_actual_usd=st.none() | large,
    error_message=optional,
    model_profile=optional,
    response_id=optional,
    usage=st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(-(2**63), 2**63 - 1), max_size=2),
)
entries = st.builds(Entry.of, events, st.none() | st.binary(min_size=16, max_size=16))


def left_behind(path, *written, owner=None):
    """The journal that a process left which is gone now, with these entries and beginnings in it."""
    owner = owner or Owner(path)
    journal = Journal(path, owner, enabled=True)
    for one in written:
        assert journal.begin(one) if isinstance(one, Posting) else journal.append(one.posting, one.release)
    file = owner.journal_path(1)
    journal.forget()
    owner.forget()
    return file


def frames_in(file):
    """Where each line of a journal begins; the first one is the header."""
    data = file.read_bytes()
    bodies = [line[18:] for line in data.split(b"\n") if line]
    starts, at = [], 0
    for body in bodies:
        starts.append(at)
        at += len(framed(body))
    assert at == len(data)
    return [*starts, at]


def a_beginning(estimate=7_000_000, **fields):
    """A call that is about to be sent; its budget counts tokens."""
    charge = Charge(budget="b [tokens]", scope="", window_start=0, amount=40)
    call_id = fields.pop("call_id", None) or new_call_id()
    usual = {"operation": "chat", "provider": "openai", "model": "m", "status": "error", "charges": (charge,)}
    source = "unpriced" if estimate is None else "estimate"
    cost = {"cost_source": source, "cost_est_nusd": estimate, "estimated": estimate is not None}
    ids = {"event_id": event_id_for(call_id, "commit"), "call_id": call_id, "event_type": "commit"}
    return Posting(**{"timestamp": time.time(), **ids, **usual, **cost, **fields})


def files(path, pattern="*"):
    return sorted(file.name for file in owners_folder(path).glob(pattern))


def ids(ledger):
    return [event.event_id for event in ledger.events]


@contextmanager
def locked(path):
    """Another connection that keeps everyone from writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("COMMIT")


# ---- what goes in comes out


@settings(deadline=None, max_examples=40)
@given(st.lists(entries, min_size=1, max_size=4))
def test_an_entry_comes_back_as_it_was_written(tmp_path_factory, batch):
    """Every field of every event, and the hold that it settles, survives the way through a journal's file."""
    found = read_journal(left_behind(tmp_path_factory.mktemp("in") / "l.db", *batch))
    again = [(Entry(posting).row, release) for release, posting in found.postings]
    assert again == [(entry.row, entry.release) for entry in batch]
    assert (found.damaged, found.foreign) == (0, False)


@settings(deadline=None, max_examples=10)
@given(st.lists(events, min_size=1, max_size=4))
def test_the_next_ledger_stores_the_events_as_they_were(tmp_path_factory, batch):
    """What stands in a dead process's journal is in the ledger that is read next, equal in every field."""
    path = tmp_path_factory.mktemp("next") / "l.db"
    left_behind(path, *map(Entry.of, batch))
    with Ledger(path) as ledger:
        assert [replace(event, offset=None) for event in ledger.events] == batch
        assert ledger.verify() == []
    assert files(path) == []


# ---- damage


@pytest.fixture(name="sound", scope="module")
def _sound(tmp_path_factory):
    """A journal of four events: its file, its bytes, where each line begins, and what it holds."""
    written = [Entry.of(commit(model=f"m{n}", tags={"text": "a\nb\u2028ü"}, usage={"tokens_in": n})) for n in range(4)]
    file = left_behind(tmp_path_factory.mktemp("sound") / "l.db", *written)
    return file, file.read_bytes(), frames_in(file), [event_of(posting) for _, posting in read_journal(file).postings]


def loses_only(sound, damaged, first, last):
    """Whether a journal that is damaged from one byte to another loses at most the events that stand there, loudly."""
    file, _, starts, written = sound
    with file.open("r+b", buffering=0) as open_file:  # a file that is emptied first is synced by some file systems
        open_file.write(damaged)
        open_file.truncate()
        found = read_journal(file)
    events = [event_of(posting) for _, posting in found.postings]
    kept = [n for n, event in enumerate(written) if event in events]
    untouched = [n for n in range(4) if starts[n + 2] <= first or starts[n + 1] >= last]
    assert len(events) == len(kept), "what was read was never written"
    assert set(untouched) <= set(kept), "an event that stands elsewhere is lost"
    return len(kept) == len(written) or found.damaged > 0


def test_any_single_flipped_bit_loses_no_more_than_its_event(sound):
    """Whichever bit of a journal is flipped, all other events are read, nothing else is, and a loss is noticed."""
    data = sound[1]
    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            assert loses_only(sound, flipped, at, at + 1), (at, bit)


def test_a_journal_cut_anywhere_keeps_what_stands_before(sound):
    """Wherever a file ends, the events that are whole are read, and a torn one is noticed."""
    _, data, starts, _ = sound
    for at in range(len(data)):
        between_lines = any(start - at in (0, 1, -1) for start in starts)
        assert loses_only(sound, data[:at], at, len(data)) or between_lines, at


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_zeroed_run_loses_only_what_it_covers(sound, data):
    """Zeros over any part of a journal cost the events that stood there, and no others."""
    whole = sound[1]
    first = data.draw(st.integers(0, len(whole) - 1))
    last = data.draw(st.integers(first + 1, len(whole)))
    assert loses_only(sound, whole[:first] + bytes(last - first) + whole[last:], first, last)


def damaged_by(change):
    """A kind of damage to the last line of a journal."""
    return lambda lines: [*lines[:-1], change(lines[-1])]


DAMAGE = {
    "a torn last line": damaged_by(lambda line: line[: len(line) // 2]),
    "a malformed line": damaged_by(lambda line: b"this was never written by a journal\n"),
    "a right checksum of no event": damaged_by(lambda line: framed(b'["no hold", 1, 2]')),
    "a right checksum of no JSON": damaged_by(lambda line: framed(b"{")),
    "a right checksum of JSON of another kind": damaged_by(lambda line: framed(b"7")),
    "an event with a field that is none": damaged_by(lambda line: framed(line[18:].strip().replace(b"[]", b"7"))),
    "a damaged header": lambda lines: [lines[0].replace(b"fields", b"colours"), *lines[1:-1]],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_left_out_with_a_warning_and_kept_aside(ledger, caplog, damage):
    """The sound events are stored, the file stays beside the ledger for people, and nobody reads it a second time."""
    written = [commit() for _ in range(3)]
    file = left_behind(ledger.path, *map(Entry.of, written))
    starts, data = frames_in(file), file.read_bytes()
    lines = [data[start:end] for start, end in pairwise(starts)]
    file.write_bytes(b"".join(damage(lines)))
    assert ids(ledger) == [event.event_id for event in written[:2]]
    assert "1 lines of this journal are damaged" in caplog.text
    assert files(ledger.path) == [f"{file.name}.aside"]
    assert f"kept as {file.name}.aside" in caplog.text
    assert (ledger.recover().events, ledger.recover().damaged) == (0, 0)


def test_a_journal_of_another_version_is_kept_aside_unread(ledger, caplog):
    """A file whose header names a version that is not known here gives nothing, and waits for who knows it."""
    file = left_behind(ledger.path, Entry.of(commit()))
    file.write_bytes(file.read_bytes().replace(*_headers(file)))
    assert ids(ledger) == []
    assert "written by a version of tollspan that this one does not know" in caplog.text
    assert files(ledger.path) == [f"{file.name}.aside"]


def _headers(file):
    """The first line of a journal, and what a later version may write there."""
    end = frames_in(file)[1]
    return file.read_bytes()[:end], framed(b'{"tollspan_journal":3}')


def test_an_empty_file_is_no_damage(ledger, caplog):
    """A process that was killed before it wrote a first line leaves nothing to warn of."""
    left_behind(ledger.path, Entry.of(commit())).write_bytes(b"")
    found = ledger.recover()
    assert (found.events, found.damaged, files(ledger.path)) == (0, 0, [])
    assert caplog.text == ""


def test_an_event_that_cannot_be_stored_keeps_back_no_other(ledger, caplog):
    """Of a dead process's events the one that no ledger can store is left out, and its file kept aside."""
    good = [commit(), commit()]
    poison = Entry.of(commit(http_status="no number"))
    left_behind(ledger.path, Entry.of(good[0]), poison, Entry.of(good[1]))
    assert ids(ledger) == [event.event_id for event in good]
    assert "an event cannot be stored" in caplog.text
    assert len(files(ledger.path, "*.aside")) == 1


# ---- files come and go


def test_a_full_file_is_left_and_goes_when_all_of_it_is_stored(ledger):
    """After 1 MB a new file is begun; the old one stays for a call that has not ended, and no longer."""
    begun = ledger.writer.begin(a_beginning())
    for _ in range(2):
        for _ in range(60):
            ledger.write_event(commit(tags={"text": "x" * 20_000}))
        ledger.flush()
        until(lambda: ledger.writer.journal._segment is None)
    until(lambda: len(files(ledger.path, "*.journal")) == 1)
    assert files(ledger.path, "*.journal") == [begun.path.name]
    ledger.write_event(commit())
    assert [name.split(".")[-2] for name in files(ledger.path, "*.journal")] == ["000001", "000003"]
    ledger.writer.put(Entry.of(commit(), begun=begun))
    ledger.flush()
    until(lambda: [name.split(".")[-2] for name in files(ledger.path, "*.journal")] == ["000003"])


def test_a_clean_close_leaves_no_file(ledger):
    """What a closed ledger has stored stands in no journal any more, and its owner is gone too."""
    begun = ledger.writer.begin(a_beginning())
    ledger.write_event(commit())
    assert len(files(ledger.path, "*.journal")) == 1
    ledger.writer.put(Entry.of(commit(), begun=begun))
    ledger.close()
    assert files(ledger.path) == []
    ledger.write_event(commit())
    assert len(files(ledger.path, "*.journal")) == 1
    ledger.close()
    assert files(ledger.path) == []


def test_an_event_that_comes_while_the_ledger_closes_is_not_taken_for_a_dead_ones(ledger):
    """A thread that writes at the moment when its process stops being an owner begins a file of a living owner."""
    ledger.append(commit())
    leave, writing = Owner.leave, threading.Thread(target=ledger.write_event, args=(commit(),))

    def leave_late(owner):
        writing.start()
        writing.join(0.2)  # it ends before the owner has left, or waits for that
        leave(owner)

    with pytest.MonkeyPatch.context() as patch, suppress(LedgerError):
        patch.setattr(Owner, "leave", leave_late)
        ledger.close()
    writing.join()
    (journal,) = files(ledger.path, "*.journal")
    with Ledger(ledger.path) as other:
        assert other.recover().events == 0
    assert files(ledger.path, "*.journal") == [journal]


def test_a_journal_may_be_switched_off(tmp_path):
    """With `journal=False` nothing is written beside the ledger, and events reach it as ever."""
    with Ledger(tmp_path / "l.db", journal=False) as ledger:
        ledger.write_event(commit())
        assert ledger.writer.begin(a_beginning()) is None
        assert files(ledger.path) == []
        assert (len(ids(ledger)), ledger.writer.journal.works) == (1, False)


def test_a_folder_that_cannot_be_written_is_told_once_and_costs_no_event(ledger, caplog, monkeypatch):
    """Events wait in memory and reach the ledger; the journal says what is wrong, and works again when it can."""
    monkeypatch.setattr(journal_module, "_TRY_AGAIN_S", 0.0)
    owners_folder(ledger.path).write_text("no folder")
    events = [commit() for _ in range(20)]
    for event in events:
        ledger.write_event(event)
    assert ids(ledger) == [event.event_id for event in events]
    assert "own.db-owners" in ledger.writer.journal.last_error
    assert not ledger.writer.journal.works
    assert ledger.writer.journal.failures == 20
    assert len([record for record in caplog.records if "journal" in record.message]) == 1
    owners_folder(ledger.path).unlink()
    ledger.write_event(commit())
    assert ledger.writer.journal.last_error is None
    assert len(files(ledger.path, "*.journal")) == 1


# ---- processes that are killed

WRITE = """
import sys
from samples import commit
from tollspan.ledger import Ledger
ledger = Ledger(sys.argv[1])
with ledger.writer.store_lock:  # nothing gets further than the journal
    for _ in range(int(sys.argv[2])):
        event = commit()
        ledger.write_event(event)
        print(event.event_id, flush=True)
    sys.stdin.readline()
"""

RECOVER = """
import sys
from tollspan.ledger import Ledger
print("ready", flush=True)
sys.stdin.readline()
with Ledger(sys.argv[1]) as ledger:
    print(ledger.recover().events, flush=True)
"""

DIE_WITHIN = """
import os, signal, sys
from pathlib import Path
from tollspan.ledger import Ledger, _sweep
from tollspan.ledger._store import SQLiteStore
moments = {"store": (SQLiteStore, "write"), "beginnings": (_sweep, "_settle_beginnings")}
moments |= {"holds": (_sweep, "_settle_holds"), "removal": (Path, "unlink")}
setattr(*moments[sys.argv[2]], lambda *any, **more: os.kill(os.getpid(), signal.SIGKILL))
Ledger(sys.argv[1]).recover()
"""


def killed_after(path, count):
    """The ids of the events that a process handed over before it was killed."""
    with script(WRITE, path, count) as process:
        written = [process.stdout.readline().strip() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
    assert all(written)
    return written


def test_the_events_of_a_killed_process_are_in_the_next_ledger_that_is_read(ledger):
    """Without being asked to, the next one who reads stores what the dead one had handed over, in order and once."""
    written = killed_after(ledger.path, 30)
    assert files(ledger.path, "*.journal")
    assert ledger.spend_today() == pytest.approx(0.3)
    assert ids(ledger) == written
    with Ledger(ledger.path) as another:
        assert another.recover().events == 0
        assert ids(another) == written
    assert ledger.verify() == []


def test_many_may_recover_at_once(ledger):
    """Processes that come at the same moment store each event once, and each is counted by one of them."""
    written = [event_id for _ in range(2) for event_id in killed_after(ledger.path, 20)]
    processes = [script(RECOVER, ledger.path) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert sum(int(process.communicate(timeout=30)[0]) for process in processes) == 40
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sorted(ids(ledger)) == sorted(written)
    assert (ledger.verify(), files(ledger.path, "*.journal")) == ([], [])


@pytest.mark.parametrize("moment", ["store", "beginnings", "holds", "removal"])
def test_a_recovery_that_is_killed_is_done_again(ledger, moment):
    """Whenever who recovers is killed too, the next one finishes it: each event, call and hold is counted once."""
    settled, unsettled = a_request(tokens_limit(100), tokens=10), a_request(tokens_limit(100), tokens=10)
    with Ledger(ledger.path) as holder:
        for request in (settled, unsettled):
            holder.writer.ask(request).wait(5)
        event = commit(call_id=settled.hold_id[:-2].hex())
        with holder.writer.store_lock:  # it takes no part in what comes
            left_behind(ledger.path, Entry.of(event, settled.hold_id), a_beginning(), owner=holder.store.owner)
            with script(DIE_WITHIN, ledger.path, moment) as process:
                assert process.wait(30) == -signal.SIGKILL
            assert [e.event_type for e in ledger.events].count("commit") == 3
            assert (ledger.spend_today(), ledger.verify()) == (pytest.approx(0.517), [])
            assert ledger.balance(B) == Balance(40, 0, 40)
    assert files(ledger.path) == []


# ---- calls that had begun


def test_a_call_without_an_end_becomes_estimated_spend_once(ledger):
    """What a killed process had sent without a hold is counted at its estimate, where and when it began."""
    begun = a_beginning(trace_id=b"\xab" * 16, user_id="ada", run_id="r", tags={"k": "v"})
    left_behind(ledger.path, begun)
    found = [ledger.recover(), ledger.recover()]
    assert [(one.calls, one.estimated) for one in found] == [(1, 1), (0, 0)]
    (event,) = ledger.events
    assert (event.event_type, event.estimated, event.status, event.reason) == ("commit", True, "error", GONE)
    assert (event.spend_usd, event.cost_actual_usd, event.timestamp) == (Decimal("0.007"), None, begun.timestamp)
    assert (event.call_id, event.trace_id, event.user_id, event.run_id) == (begun.call_id.hex(), "ab" * 16, "ada", "r")
    assert (event.provider, event.model, event.operation, event.tags) == ("openai", "m", "chat", {"k": "v"})
    assert (ledger.balance(B), ledger.spend_today()) == (Balance(40, 0, 40), 0.007)
    assert ledger.verify() == []


def test_a_call_without_an_end_and_without_a_price_is_unpriced(ledger):
    """It is never a silent 0: the cost is unknown, and the reason says both why it ended and why it has no price."""
    left_behind(ledger.path, a_beginning(None, reason="its model has no price", charges=()))
    (event,) = ledger.events
    assert (event.spend_usd, event.estimated, event.cost_source) == (None, False, "unpriced")
    assert event.reason == f"{GONE}; its model has no price"


def test_an_estimate_beyond_all_measure_keeps_nobody_from_reading(ledger, caplog):
    """A beginning that no ledger can store is left out with an error, and everything else is stored."""
    left_behind(ledger.path, a_beginning(2**63), Entry.of(commit()), a_beginning())
    assert sorted(event.estimated for event in ledger.events) == [False, True]
    assert "an event cannot be stored" in caplog.text
    assert len(files(ledger.path, "*.aside")) == 1


@pytest.mark.parametrize("where", ["journal", "store", "cancel", "another file"])
def test_a_call_with_an_end_is_not_estimated(ledger, where):
    """A beginning counts for nothing where the ledger or a journal has the end of its call, be it a cancel."""
    begun = a_beginning()
    kind = "cancel" if where == "cancel" else "commit"
    end = LedgerEvent(event_type=kind, call_id=begun.call_id.hex(), cost_actual_usd=Decimal("0.001"))
    if where == "store":
        ledger.append(end)
        ledger.close()
        left_behind(ledger.path, begun)
    elif where == "another file":
        file = left_behind(ledger.path, begun)
        file.rename(file.with_name("1-x.000001.journal"))
        file = left_behind(ledger.path, Entry.of(end))
        file.rename(file.with_name("1-x.000002.journal"))
    else:
        left_behind(ledger.path, begun, Entry.of(end))
    with Ledger(ledger.path) as other:
        assert other.recover().calls == 0
        assert ids(other) == [end.event_id]


# ---- more than memory holds


@pytest.fixture(name="small")
def _small(tmp_path):
    """A ledger that keeps 20 events in memory and gives up on a locked file after 50 ms."""
    with Ledger(tmp_path / "small.db", busy_timeout_ms=50, queue_limit=20) as ledger:
        ledger.append(commit())
        yield ledger


def all_in(ledger, how):
    """Bring in what waits; whether that was all."""
    if how == "flush":
        return ledger.flush()
    if how == "close":
        ledger.close()
        return True
    return ledger.latest_offset() > 0


@pytest.mark.parametrize("how", ["flush", "close", "read"])
@pytest.mark.parametrize("in_flight", [False, True])
def test_what_memory_has_no_room_for_waits_in_the_journal(small, how, in_flight):
    """While the file is locked memory stays bounded; then every event arrives once, calls in flight or not."""
    begun = small.writer.begin(a_beginning()) if in_flight else None
    events = [commit() for _ in range(700)]
    with locked(small.path):
        for event in events:
            small.write_event(event)
            assert len(small.writer._queue) <= 20
        assert small.writer.pending == 700
        assert small.writer.counts.spilled >= 660
    assert all_in(small, how)
    assert (small.writer.pending, small.writer.journal.spilled) == (0, 0)
    assert sorted(ids(small)[1:]) == sorted(event.event_id for event in events)
    small.writer.put(Entry.of(commit(), begun=begun))
    small.close()
    assert (small.verify(), small.writer.counts.lost, files(small.path, "*.journal")) == ([], 0, [])


def test_a_settlement_that_waits_in_the_journal_alone_ends_its_hold(small):
    """What was held is free once the settlement is read back, and the call's beginning is done with."""
    request, begun = a_request(requests_limit(1)), small.writer.begin(a_beginning())
    small.writer.ask(request).wait(5)
    with locked(small.path):
        for _ in range(30):
            small.write_event(commit())
        small.writer.put(cancel_of(request))
        small.writer.put(Entry.of(commit(), begun=begun))
        assert small.writer.counts.spilled >= 2
    assert small.flush()
    assert small.balance(B) == Balance()
    small.close()
    assert files(small.path) == []


def test_without_a_journal_what_finds_no_room_is_lost_loudly(tmp_path, caplog):
    """It is counted, logged and noted in the ledger; a settlement of a hold always finds room."""
    with Ledger(tmp_path / "l.db", busy_timeout_ms=50, queue_limit=5, journal=False) as ledger:
        request = a_request(requests_limit(1))
        ledger.writer.ask(request).wait(5)
        with locked(ledger.path):
            for _ in range(50):
                ledger.write_event(commit())
            ledger.writer.put(cancel_of(request))
        assert ledger.flush()
        lost = ledger.writer.counts.lost
        assert lost >= 40
        assert len(ids(ledger)) == 52 - lost
        assert ledger.balance(B).held == 0
        ledger.append(commit())
        (noted,) = ledger.store.query("SELECT value FROM ledger_fact WHERE name = 'lost_events'")
        assert noted["value"] == lost
    assert "1 events are lost, for want of room in memory and of a journal" in caplog.text


SPILL = """
import sqlite3, sys
from samples import commit
from tollspan.ledger import Ledger
ledger = Ledger(sys.argv[1], busy_timeout_ms=50, queue_limit=20)
ledger.latest_offset()
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
for _ in range(100):
    event = commit()
    ledger.write_event(event)
    print(event.event_id, flush=True)
assert ledger.writer.journal.spilled
sys.stdin.readline()
"""


def test_what_waited_in_the_journal_alone_survives_a_kill(ledger):
    """Events that a killed process had in no memory are in the next ledger all the same."""
    with script(SPILL, ledger.path) as process:
        written = [process.stdout.readline().strip() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
    assert ids(ledger) == written


# ---- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_journal_alone(ledger):
    """A child writes a journal of its own: what it closes, and even its kill, changes nothing of the parent's."""
    begun = ledger.writer.begin(a_beginning())
    before = begun.path.read_bytes()
    pid = os.fork()
    if pid == 0:
        try:
            ledger.append(commit("1"))
            ledger.close()
            with ledger.writer.store_lock:
                ledger.write_event(commit("2"))
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert begun.path.read_bytes() == before
    assert (ledger.recover().events, ledger.spend_today()) == (1, 3.0)
    assert files(ledger.path, "*.journal") == [begun.path.name]
    ledger.writer.put(Entry.of(commit(call_id="00" * 14), begun=begun))
    ledger.close()
    assert files(ledger.path) == []


# ---- settlements that cannot be made


def test_a_settlement_that_cannot_be_made_leaves_its_hold_as_spend(ledger):
    """A record of which no event can be made raises, leaves no trace of itself, and its call counts what it held."""
    limit = requests_limit(5)
    request = a_request(limit)
    ledger.writer.ask(request).wait(5)
    call_id = request.hold_id[:-2]
    held = Held(request.hold_id, (limit,), (1,), 500_000_000)
    record = CallRecord(call_id=call_id, started=time.time(), operation="chat", held=held, trace_id=-1)
    with pytest.raises(OverflowError):
        settle(record, ledger)
    assert [event.event_type for event in ledger.events] == ["precheck_hold", "commit"]
    last = ledger.tail()[-1]
    assert (last.estimated, last.reason) == (True, "its settlement could not be made")
    assert last.event_id == event_id_for(call_id, "commit").hex()
    assert (ledger.balance(B).held, ledger.spend_today(), ledger.verify()) == (0, 0.5, [])
    assert (ledger.writer.counts.written, ledger.writer.counts.rejected) == (1, 0)
