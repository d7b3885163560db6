"""Pruning: old events go, and every balance, the check of the balances, and the younger events stay as they are."""

import contextlib
import io
import signal
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import a_request, cancel_of, commit, requests_limit, script, until
from test_journal import left_behind

from tollspan.ledger import Balance, Charge, Entry, Ledger, LedgerConflict, LedgerEvent, event_id_for, new_call_id
from tollspan.ledger import _prune as prune_module
from tollspan.ledger import _upkeep as upkeep_module
from tollspan.ledger._index import extend_index

B = ("b [requests]", "", 0)
DAY_S = 86_400


def charge(amount, budget="b [requests]", scope=""):
    return Charge(budget=budget, scope=scope, window_start=0, amount=amount)


def begun(days, salt=b""):
    """The id of a call that began so many days ago; calls with a salt all began in one millisecond."""
    if not salt:
        return new_call_id(time.time() - days * DAY_S)
    return int((NOW - days * DAY_S) * 1000).to_bytes(6, "big") + salt


NOW = time.time()


def aged(days, usd="0.01", **fields):
    """A commit of a call that began so many days ago."""
    return commit(usd, call_id=begun(days).hex(), timestamp=time.time() - days * DAY_S, charges=(charge(3),), **fields)


def balances(ledger):
    """Every balance that is not nothing."""
    ledger.flush()
    rows = ledger.store.query("SELECT * FROM balance ORDER BY budget, scope, window_start")
    return [tuple(row) for row in rows if any(tuple(row)[3:])]


def models(ledger):
    return [event.model for event in ledger.events]


@contextlib.contextmanager
def small_pieces(size):
    """Prune few events in each transaction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune_module, "PIECE", size)
        patch.setitem(prune_module._select.__kwdefaults__, "limit", size)
        yield


# ---- what stays


def test_old_events_go_and_what_they_counted_stays(ledger):
    """Balances, today's spend and the check of the balances are the same before and after; younger events stay."""
    adjusted = aged(40, model="old")
    for event in (
        adjusted,
        aged(31, "2", model="old", profile_id="key-7", estimated=False),
        aged(50, None, model="old", cost_est_usd=Decimal(5), estimated=True),
        LedgerEvent(event_type="retry", call_id=begun(60).hex(), cost_est_usd=Decimal(1), estimated=True, model="old"),
        LedgerEvent(event_type="adjust", call_id=adjusted.call_id, cost_actual_usd=Decimal("-0.005"), model="old"),
        aged(29, model="young"),
        commit("0.25", model="new"),
    ):
        ledger.append(event)
    before, today = balances(ledger), ledger.spend_today()
    assert ledger.prune(30).events == 5
    assert models(ledger) == ["young", "new"]
    assert (balances(ledger), ledger.spend_today(), ledger.verify()) == (before, today, [])
    assert ledger.prune(30).events == 0
    assert ledger.latest_offset() == 7
    assert ledger.prune(1).events == 1
    assert (balances(ledger), ledger.verify(), models(ledger)) == (before, [], ["new"])


def test_a_check_after_pruning_still_finds_what_is_wrong(ledger):
    """A balance that was changed by hand is found, whether its events are there or pruned."""
    ledger.append(aged(40))
    ledger.append(commit(charges=(charge(4),)))
    ledger.prune(30)
    ledger.store.connection.execute("UPDATE balance SET spent = spent + 1 WHERE budget = 'b [requests]'")
    (difference,) = ledger.verify()
    found = (difference.budget, difference.kept, difference.counted)
    assert found == ("b [requests]", Balance(8, 0, 0), Balance(7, 0, 0))


calls = st.tuples(
    st.integers(0, 30),
    st.sampled_from(["commit", "commit", "retry", "adjust", "cancel", "wait", "precheck_hold"]),
    st.none() | st.integers(-(10**12), 10**12),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "user=x"]), st.integers(0, 10**6)), max_size=2),
    st.sampled_from([None, "key-1", "key-2"]),
)


def an_event(number, call):
    """The event of a drawn call; several of one day began in one millisecond."""
    days, kind, nano, estimated, charges, profile = call
    money = {"cost_actual_usd": None if nano is None or estimated else Decimal(nano).scaleb(-9)}
    return LedgerEvent(
        event_type=kind,
        event_id=event_id_for(begun(days + 2, number.to_bytes(8, "big")), kind).hex(),
        call_id=begun(days + 2, number.to_bytes(8, "big")).hex(),
        timestamp=NOW,
        cost_est_usd=None if nano is None else Decimal(nano).scaleb(-9),
        estimated=estimated,
        charges=tuple(charge(amount, budget, scope) for budget, scope, amount in charges),
        profile_id=profile,
        **money,
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(calls, max_size=20), st.lists(st.floats(1.1, 40), min_size=1, max_size=4), st.integers(1, 7))
def test_whatever_is_pruned_the_balances_stay(drawn, cutoffs, piece):
    """For any calls, any cutoffs and any size of a piece: all younger events and no others stay, all balances do."""
    with Ledger(None) as ledger, small_pieces(piece):
        events = [an_event(number, call) for number, call in enumerate(drawn)]
        for event in events:
            ledger.write_event(event)
        before = balances(ledger)
        for days in cutoffs:
            ledger.prune(days)
            assert (ledger.verify(), balances(ledger)) == ([], before)
        cutoff = (time.time() - min(cutoffs) * DAY_S) * 1000
        kept = {event.event_id for event in events if int(event.call_id[:12], 16) >= cutoff}
        assert {event.event_id for event in ledger.events} == kept


# ---- ids that are too old


def test_an_event_of_a_pruned_call_is_never_taken_again(ledger):
    """A replay, a correction and an import of what was pruned are refused loudly: they were counted then."""
    old, corrected, export = aged(40), aged(35), io.BytesIO()
    for event in (old, aged(10), corrected):
        ledger.append(event)
    ledger.export_jsonl(export)
    before = balances(ledger)
    ledger.prune(30)
    late = LedgerEvent(event_type="adjust", call_id=corrected.call_id, cost_actual_usd=Decimal(1))
    for event in (old, late, aged(31)):
        with pytest.raises(LedgerConflict, match="is of a call that was pruned, and was counted then"):
            ledger.append(event)
    ledger.write_event(old)
    ledger.flush()
    assert ledger.writer.counts.conflicts == 4
    told = []
    export.seek(0)
    found = ledger.import_jsonl(export, warn=told.append)
    assert (found.stored, found.known, found.refused) == (0, 1, 2)
    assert sum("pruned" in text for text in told) == 2
    assert (balances(ledger), ledger.verify(), len(list(ledger.events))) == (before, [], 1)


def test_an_event_younger_than_the_last_that_was_pruned_is_taken(ledger):
    """The watermark stands where pruning was asked to stop: who comes late with a younger call is served."""
    ledger.append(aged(40))
    ledger.prune(30)
    ledger.append(aged(29.9))
    assert (len(list(ledger.events)), ledger.verify()) == (1, [])


# ---- calls in flight


def test_calls_in_flight_and_what_began_after_them_stay(ledger):
    """However old a call is: while it holds something its hold can still be settled, and then it goes as well."""
    request = a_request(requests_limit(5), call_id=begun(40))
    ledger.append(aged(50, model="before"))
    assert ledger.writer.ask(request).wait(5)
    ledger.append(aged(35, model="after"))
    assert ledger.prune(30).events == 1
    assert (models(ledger), ledger.balance(B).held, ledger.verify()) == ([None, "after"], 1, [])
    ledger.writer.put(cancel_of(request))
    ledger.flush()
    assert ledger.prune(30).events == 3
    assert (models(ledger), ledger.balance(B), ledger.verify()) == ([], Balance(6, 0, 0), [])


# ---- pieces, processes, kills

WRITE = """
import sys, time
from samples import commit
from tollspan.ledger import Charge, Ledger
ledger = Ledger(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(60):
    charge = Charge(budget="b [requests]", scope="", window_start=0, amount=1)
    ledger.write_event(commit(run_id="young", charges=(charge,)))
    if n % 10 == 9:
        ledger.flush()
ledger.close()
"""

DIE = """
import os, signal, sys
from tollspan.ledger import Ledger, _prune
_prune.PIECE = _prune._select.__kwdefaults__["limit"] = 7
def die(*any):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "between":
    Ledger(sys.argv[1]).prune(30, progress=lambda gone: gone > 20 and die())
write, pieces = _prune._write_openings, []
def write_and_die(connection, rows):
    write(connection, rows)
    pieces.append(rows)
    if len(pieces) == 3:
        die()
_prune._write_openings = write_and_die
Ledger(sys.argv[1]).prune(30)
"""


def seeded(ledger, count):
    """Old events, each of a millisecond of its own, so that a piece is one smaller than it may be."""
    for number in range(count):
        ledger.write_event(aged(40 - number / 1000, run_id="old"))
    ledger.flush()


def test_others_write_while_it_prunes(ledger):
    """Four processes write through many pieces of pruning: nothing of theirs is lost, nothing is counted twice."""
    seeded(ledger, 400)
    writers = [script(WRITE, ledger.path) for _ in range(4)]
    steps = []
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        with small_pieces(5):
            assert ledger.prune(30, progress=steps.append).events == 400
        assert steps == list(range(4, 401, 4))
        for writer in writers:
            assert writer.wait(60) == 0
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert [event.run_id for event in ledger.events] == ["young"] * 240
    assert (ledger.balance(B), ledger.verify()) == (Balance(400 * 3 + 240, 0, 0), [])


@pytest.mark.parametrize("moment", ["between", "inside"])
def test_pruning_that_is_killed_goes_on_later(ledger, moment):
    """Killed between two pieces or in the middle of one: the ledger is right at once, and the rest goes next time."""
    seeded(ledger, 50)
    ledger.append(commit(run_id="young"))
    before = balances(ledger)
    with script(DIE, ledger.path, moment) as process:
        assert process.wait(30) == -signal.SIGKILL
    left = {"between": 26, "inside": 38}[moment]
    assert [event.run_id for event in ledger.events] == ["old"] * left + ["young"]
    assert (balances(ledger), ledger.verify()) == (before, [])
    assert ledger.prune(30).events == left
    assert (balances(ledger), ledger.verify(), len(list(ledger.events))) == (before, [], 1)


def test_a_call_is_pruned_whole(ledger):
    """A piece never parts the events of a call, nor of calls that began in one millisecond."""
    ids = [begun(40, bytes([n] * 8)) for n in range(3)]
    for call_id in ids:
        for kind in ("precheck_hold", "commit", "wait"):
            ledger.write_event(LedgerEvent(event_type=kind, call_id=call_id.hex(), cost_actual_usd=Decimal(1)))
    ledger.flush()
    steps = []
    with small_pieces(4):
        ledger.prune(30, progress=steps.append)
    assert (steps, ledger.verify(), list(ledger.events)) == ([9], [], [])


def test_what_the_index_knows_of_pruned_events_goes_too(ledger):
    """Traces, sessions and runs of pruned events take no room in the index; those of others are found as before."""
    trace = "ab" * 16
    for event in (aged(40, trace_id=trace, run_id="r", session_id="s"), aged(2, trace_id=trace, run_id="r")):
        ledger.append(event)
    assert extend_index(ledger.store, piece=2)
    ledger.prune(30)
    rows = ledger.store.query("SELECT offset FROM lookup ORDER BY key")
    assert [row["offset"] for row in rows] == [2, 2]
    assert [event.offset for event in ledger.events_for_trace(trace)] == [2]
    assert (ledger.events_for_session("s"), ledger.runs()) == ([], ["r"])


# ---- in the background


@pytest.fixture(name="keeping")
def _keeping(tmp_path, monkeypatch):
    """A ledger that keeps events for 30 days, and looks for older ones whenever it has nothing else to do."""
    monkeypatch.setattr(upkeep_module, "_PRUNE_S", 0.0)
    with Ledger(tmp_path / "keeping.db", keep_days=30) as ledger:
        yield ledger


def test_a_ledger_that_keeps_so_many_days_prunes_by_itself(keeping):
    """With `keep_days` old events go in the background, and younger ones stay."""
    keeping.append(aged(29, model="young"))
    for _ in range(5):
        keeping.write_event(aged(40, model="old"))
    keeping.flush()
    before = balances(keeping)
    until(lambda: [row["model"] for row in keeping.store.query("SELECT model FROM event")] == ["young"])
    assert (balances(keeping), keeping.verify()) == (before, [])


def test_what_a_dead_process_left_is_stored_before_anything_is_pruned(keeping):
    """Events that lie in a journal for longer than events are kept are counted before their age is looked at."""
    left_behind(keeping.path, Entry.of(aged(40, "2")))
    with Ledger(keeping.path) as other:
        other.store.write([Entry.of(aged(50, "1"))])
    keeping.write_event(commit("0.5", model="new"))
    until(lambda: [row["model"] for row in keeping.store.query("SELECT model FROM event")] == ["new"])
    assert (keeping.balance(B), keeping.verify()) == (Balance(6, 0, 0), [])


@pytest.mark.parametrize("days", [0, 0.99, -1])
def test_the_last_day_is_never_pruned(ledger, days):
    """Calls that run may have begun within the last day: less than one day is refused, and nothing goes."""
    ledger.append(aged(2))
    with pytest.raises(ValueError, match="too few"):
        ledger.prune(days)
    assert len(list(ledger.events)) == 1
