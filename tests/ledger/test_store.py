"""The SQLite store: transactions, ids, balances, and what it says of files that it cannot use."""

import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import a_request, cancel_of, commit, in_threads, requests_limit, tokens_limit

from tollspan.ledger import (
    LEDGER_BUDGET,
    Balance,
    Charge,
    Definition,
    Entry,
    Grant,
    Ledger,
    LedgerConflict,
    LedgerEvent,
    LedgerUnavailable,
    Refusal,
)
from tollspan.ledger._store import SQLiteStore

words = st.text(st.characters(codec="utf-8"), max_size=20)
money = st.none() | st.decimals(-1000, 1000, places=9)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
optional = st.none() | words.filter(bool)
hexadecimal = st.none() | st.binary(min_size=8, max_size=16).map(bytes.hex)
events = st.builds(
    LedgerEvent,
    event_type=st.sampled_from(["precheck_hold", "commit", "cancel", "adjust", "wait", "retry", "exposure"]),
    trace_id=hexadecimal,
    span_id=hexadecimal,
    provider=optional,
    model=optional,
    usage=st.dictionaries(words, numbers, max_size=3),
    cost_est_usd=money,
    cost_actual_usd=money,
    cost_source=optional,
    cost_rates=st.none() | st.dictionaries(words, words, min_size=1, max_size=2),
    status=st.sampled_from(["ok", "error", "cancelled"]),
    timing=st.dictionaries(words, numbers, max_size=2),
    http_status=st.none() | st.integers(100, 599),
    timestamp=st.floats(1, 2**35),
    profile_id=optional,
    run_id=optional,
    tags=st.dictionaries(words, words, max_size=3),
    records=st.lists(st.dictionaries(words, numbers, min_size=1, max_size=2), max_size=2).map(tuple),
    charges=st.lists(
        st.builds(Charge, budget=words, scope=words, window_start=st.integers(0, 2**35), amount=st.integers(0, 2**40)),
        max_size=2,
    ).map(tuple),
    estimated=st.booleans(),
    reason=optional,
    attempts=st.integers(0, 9),
)


@pytest.fixture(name="store")
def _store(tmp_path):
    made = SQLiteStore(tmp_path / "store.db", busy_timeout_ms=200)
    yield made
    made.close()


def rows(store):
    return [tuple(row) for row in store.query("SELECT offset, lower(hex(event_id)) FROM event ORDER BY offset")]


# ---- what is stored


@settings(deadline=None)
@given(st.lists(events, min_size=1, max_size=3))
def test_an_event_comes_back_as_it_was_stored(batch):
    """Every field of every event survives the way through the store."""
    with Ledger(None) as ledger:
        for event in batch:
            ledger.write_event(event)
        stored = ledger.tail()
    assert [replace(event, offset=None) for event in stored] == batch


def test_mappings_of_any_kind_are_stored(store):
    """A read-only view of a dict is a mapping too, also inside of records."""
    view = MappingProxyType({"a": 1})
    store.write([Entry.of(commit(usage=view, records=(view,), cost_rates=view))])
    assert store.query("SELECT usage, records FROM event")[0][:] == ('{"a":1}', '[{"a":1}]')


def test_a_replay_changes_nothing(store):
    """An event that comes again, in a later batch or in its own, is stored and counted once."""
    event = commit("0.25", charges=(Charge(budget="b [requests]", scope="", window_start=0, amount=7),))
    outcomes = [store.write([Entry.of(event), Entry.of(event)]), store.write([Entry.of(event), Entry.of(commit())])]
    assert [o.duplicates for o in outcomes] == [1, 1]
    assert not any(o.conflicts for o in outcomes)
    assert [event_id for _, event_id in rows(store)].count(event.event_id) == 1
    assert len(rows(store)) == 2
    assert store.balances([("b [requests]", "", 0)]) == {("b [requests]", "", 0): Balance(7, 0, 0)}


def test_the_same_id_with_other_content_is_reported_and_not_stored(store):
    """A conflict names what differs, counts nothing, and leaves the rest of its batch alone."""
    event = commit("1", model="a")
    store.write([Entry.of(event)])
    outcome = store.write([Entry.of(commit("1")), Entry.of(replace(event, model="b", cost_actual_usd=Decimal(2)))])
    differs = "model, cost_actual_nusd, spend_nusd"
    assert outcome.conflicts == {1: f"event {event.event_id} is stored with another {differs}"}
    assert store.query("SELECT sum(spend_nusd) FROM event")[0][0] == 2 * 10**9
    assert {key[0]: balance.spent for key, balance in outcome.balances.items()} == {LEDGER_BUDGET: 2 * 10**9}


def test_offsets_grow_strictly_and_stay(store):
    """Offsets follow the order of writing, through replays and reopening, and are never given twice."""
    first = [commit() for _ in range(5)]
    store.write([Entry.of(e) for e in first])
    before = rows(store)
    store.close()
    store.write([Entry.of(e) for e in reversed([*first, commit()])])
    assert rows(store)[:5] == before
    assert [event_id for _, event_id in before] == [e.event_id for e in first]
    after = [offset for offset, _ in rows(store)]
    assert len(after) == 6
    assert after == sorted(set(after))


def test_a_batch_is_one_durable_transaction(store):
    """Events, holds and definitions share one BEGIN IMMEDIATE and one COMMIT, synced before it returns."""
    seen = []
    store.connection.set_trace_callback(seen.append)
    definitions = [Definition("b", "{}", 1.0)]
    store.write([Entry.of(commit()) for _ in range(100)], [a_request(requests_limit(5)) for _ in range(5)], definitions)
    assert [s for s in seen if s in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")] == ["BEGIN IMMEDIATE", "COMMIT"]
    kept = [store.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert kept == ["wal", 2]  # 2: FULL


def test_a_batch_that_fails_leaves_nothing(store):
    """Where one entry cannot be stored, none of its batch is, and no balance has changed."""
    bad = commit(http_status="no number")
    with pytest.raises(sqlite3.IntegrityError):
        store.write([Entry.of(commit()), Entry.of(bad)], [a_request(requests_limit(1))])
    assert (rows(store), store.query("SELECT * FROM balance"), store.open_hold_owners()) == ([], [], [])


# ---- holds


def test_a_hold_and_its_settlement_move_the_balance(store):
    """A grant counts as held until an entry releases it, once, however often it is released."""
    request = a_request(requests_limit(1))
    held = store.write(holds=[request])
    assert [answer.amounts for answer in held.answers] == [(1,)]
    assert held.balances == {("b [requests]", "", 0): Balance(0, 1, 0)}
    for _ in range(2):
        store.write([cancel_of(request)])
        assert store.balances([("b [requests]", "", 0)]) == {("b [requests]", "", 0): Balance()}


def test_holds_of_a_batch_see_each_other_and_the_settlements_before_them(store):
    """A batch settles first and then decides in order, each hold against what the ones before it have left."""
    first = a_request(requests_limit(2))
    store.write(holds=[first])
    answers = store.write([cancel_of(first)], [a_request(requests_limit(2)) for _ in range(3)]).answers
    assert [type(answer) for answer in answers] == [Grant, Grant, Refusal]


def test_who_stands_in_line_is_not_overtaken_in_a_batch(store):
    """After a refusal that means waiting, smaller requests for the same balance wait too; others do not."""
    store.write(holds=[a_request(tokens_limit(10), tokens=5)])
    line = [(8, "b"), (1, "b"), (1, "other"), (1, "b")]
    requests = [replace(a_request(tokens_limit(10, name), tokens=n), queued=True) for n, name in line]
    requests[3] = replace(requests[3], queued=False)
    with store.looking() as look:
        answers = [look.answer(request) for request in requests]
    assert [type(answer) for answer in answers] == [Refusal, Refusal, Grant, Grant]
    assert answers[1].busy
    assert store.write(holds=requests).answers == answers


def test_a_hold_id_is_taken_once(store):
    """A second hold with the id of an earlier one is an error: granted, it would hold nothing."""
    request = a_request(requests_limit(5))
    store.write(holds=[request])
    with pytest.raises(LedgerConflict, match="its own id"):
        store.write(holds=[request])
    assert store.balances([("b [requests]", "", 0)]) == {("b [requests]", "", 0): Balance(0, 1, 0)}


def test_looking_changes_nothing(store):
    """A look at what would be granted counts the grants for itself, and leaves the store as it is."""
    with store.looking() as look:
        answers = [look.answer(a_request(requests_limit(1))) for _ in range(2)]
    assert [type(answer) for answer in answers] == [Grant, Refusal]
    assert (rows(store), store.balances([("b [requests]", "", 0)])) == ([], {("b [requests]", "", 0): Balance()})


# ---- files that cannot be used


def foreign(path, version):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipe (name)")
        other.execute(f"PRAGMA user_version = {version}")


def newer(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE open_hold (hold_id)")
        other.execute("PRAGMA user_version = 99")


UNUSABLE = {
    "garbage": (lambda path: path.write_bytes(b"no database at all. " * 500), "damaged or no ledger"),
    "a directory": (lambda path: path.mkdir(), "it is a directory"),
    "a newer schema": (newer, "newer tollspan .schema 99.*upgrade tollspan"),
    "another program, version 0": (lambda path: foreign(path, 0), "another program; set TOLLSPAN_LEDGER"),
    "another program, version 1": (lambda path: foreign(path, 1), "another program; set TOLLSPAN_LEDGER"),
    "another program, version 7": (lambda path: foreign(path, 7), "another program; set TOLLSPAN_LEDGER"),
}


@pytest.mark.parametrize(("spoil", "text"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_is_no_ledger_is_named_and_left_alone(store, spoil, text):
    """The error says what the file is and what to do, and not a byte of the file has changed."""
    spoil(store.path)
    before = None if store.path.is_dir() else store.path.read_bytes()
    for use in (lambda: store.write([Entry.of(commit())]), lambda: store.query("SELECT 1")):
        with pytest.raises(LedgerUnavailable, match=text) as caught:
            use()
        assert str(store.path) in str(caught.value)
    if before is not None:
        assert store.path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A ledger below a file instead of a folder is an error that says which place to make writable."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnavailable, match="or set TOLLSPAN_LEDGER"):
        SQLiteStore(tmp_path / "file" / "ledger.db").write([Entry.of(commit())])


def test_a_full_disk_is_named(store):
    """Where the file may not grow, the error says to free space, and the store works once there is some."""
    store.write([Entry.of(commit())])
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerUnavailable, match="free some disk space"):
        store.write([Entry.of(commit(model="m" * 100_000))])
    store.write([Entry.of(commit(model="m" * 100_000))])
    assert len(rows(store)) == 2


def test_a_file_that_is_moved_away_is_made_anew(store):
    """After a damaged file was moved away, the next write makes a new one without a restart."""
    store.write([Entry.of(commit())])
    with store.path.open("r+b") as file:
        file.write(b"x" * 4096)
    store.close()
    with pytest.raises(LedgerUnavailable, match="damaged"):
        store.write([Entry.of(commit())])
    for path in store.path.parent.glob("store.db*"):
        path.rename(path.with_name("old-" + path.name))
    store.write([Entry.of(commit())])
    assert len(rows(store)) == 1


# ---- others at the same file


def test_a_locked_ledger_is_an_error_within_the_busy_timeout(store):
    """A writer gives up after the busy timeout, says that the file is locked, and works again afterwards."""
    store.write([Entry.of(commit())])
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=r"locked.*TOLLSPAN_BUSY_TIMEOUT_MS"):
            store.write([Entry.of(commit())])
        assert 0.1 < time.monotonic() - began < 2
    store.write([Entry.of(commit())])
    assert len(rows(store)) == 2


def test_many_may_open_a_new_file_at_once(tmp_path):
    """The first connections to a file that is not there yet agree on one schema."""
    stores, start = [SQLiteStore(tmp_path / "new.db") for _ in range(8)], threading.Barrier(8)
    in_threads(*[lambda s=store: (start.wait(), s.write([Entry.of(commit())])) for store in stores])
    assert len(rows(stores[0])) == 8
    for store in stores:
        store.close()


def test_one_store_may_be_opened_by_many_threads_at_once(tmp_path):
    """Threads that read from a store which nobody has opened yet open it once, and close it while others read."""
    store, start = SQLiteStore(tmp_path / "new.db"), threading.Barrier(8)

    def read():
        start.wait()
        return [store.query("SELECT count(*) FROM event")[0][0] for _ in range(50)]

    counts = in_threads(*[read] * 7, lambda: (start.wait(), [store.close() for _ in range(20)]))[:7]
    assert counts == [[0] * 50] * 7
    store.close()


def test_a_ledger_in_memory_can_be_read_while_it_is_written(tmp_path):
    """Readers, copies and the writer of a ledger in memory wait for each other instead of failing."""
    store = SQLiteStore(None)
    done = threading.Event()

    def write():
        for _ in range(200):
            store.write([Entry.of(commit())])
        done.set()

    def read():
        seen = [0]
        while not done.is_set():
            seen.append(store.query("SELECT count(*) FROM event")[0][0])
        assert seen == sorted(seen)

    store.write()
    in_threads(write, read, read, lambda: [store.copy_to(tmp_path / f"copy-{i}.db") for i in range(3)])
    assert len(rows(store)) == 200
