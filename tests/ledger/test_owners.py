"""Owners of holds: who lives keeps them, and the holds of who is gone become spend, once."""

import signal
import threading
from decimal import Decimal

import pytest
from samples import a_request, cancel_of, commit, in_threads, requests_limit, script

from tollspan.ledger import Balance, Ledger
from tollspan.ledger._filelock import FileLock

B = ("b [requests]", "", 0)

HOLD = """
import sys
from samples import a_request, requests_limit
from tollspan.ledger import Ledger
ledger = Ledger(sys.argv[1])
for _ in range(int(sys.argv[2])):
    ledger.writer.ask(a_request(requests_limit(100))).wait(10)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(name="holder")
def _holder(ledger):
    """Start processes that take holds and then keep them; they are gone at the end."""
    started = []

    def start(holds):
        process = script(HOLD, ledger.path, holds)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def owner_files(ledger):
    return sorted(path for path in ledger.path.with_name("own.db-owners").glob("*") if path.suffix != ".journal")


def test_the_holds_of_a_killed_process_become_estimated_spend_once(ledger, holder):
    """After SIGKILL each open hold is committed at its amount, as an estimate with a reason, by the next who looks."""
    kill(holder(3))
    assert ledger.store.balances([B])[B].held == 3
    assert [ledger.recover().estimated, ledger.recover().estimated] == [3, 0]
    commits = [event for event in ledger.events if event.event_type == "commit"]
    assert [(e.estimated, e.status, e.spend_usd) for e in commits] == [(True, "error", Decimal("0.5"))] * 3
    assert {event.reason for event in commits} == {"the process that made the call is gone"}
    assert (ledger.balance(B).held, ledger.spend_today()) == (0, 1.5)
    assert owner_files(ledger) == []


def test_the_holds_of_a_living_process_stay(ledger, holder):
    """While their owner lives, holds are left alone, whoever looks, and however the owner came to them."""
    ledger.writer.ask(a_request(requests_limit(100))).wait(5)
    holder(2)
    with Ledger(ledger.path) as other:
        other.writer.ask(a_request(requests_limit(100))).wait(5)
        assert [x.recover().estimated for x in (ledger, other)] == [0, 0]
        assert other.balance(B) == Balance(0, 4, 0)


def test_many_may_settle_the_dead_at_once(ledger, holder):
    """Ledgers that look at the same moment turn each hold into spend once, and each is counted by one of them."""
    for process in [holder(20), holder(20)]:
        kill(process)
    ledgers = [Ledger(ledger.path) for _ in range(4)]
    settled = in_threads(*[one.recover for one in ledgers])
    assert sum(found.estimated for found in settled) == 40
    assert (ledger.balance(B).held, ledger.spend_today()) == (0, 20.0)
    for one in ledgers:
        assert one.writer.counts.conflicts == 0
        one.close()


def test_settled_holds_reach_the_cached_balances(ledger, holder):
    """What was settled for the dead is seen at once by this process's calls in best_effort."""
    process = holder(1)
    assert ledger.cached_balance(B).held == 1
    kill(process)
    ledger.recover()
    assert ledger.cached_balance(B).held == 0


def test_a_ledger_that_is_closed_without_open_holds_leaves_nothing_behind(ledger):
    """An owner's file is there while it may have holds, and goes when it closes and has none."""
    request = a_request(requests_limit(1))
    ledger.writer.ask(request).wait(5)
    assert len(owner_files(ledger)) == 1
    ledger.writer.put(cancel_of(request))
    ledger.close()
    assert owner_files(ledger) == []
    ledger.writer.ask(a_request(requests_limit(1))).wait(5)
    ledger.close()
    assert len(owner_files(ledger)) == 1
    with Ledger(ledger.path) as other:
        assert other.recover().estimated == 0


def test_the_file_of_a_dead_owner_without_holds_is_removed(ledger, holder):
    """A process that was killed between two calls leaves an empty file, which goes with the next look."""
    process = holder(1)
    (hold_id,) = ledger.store.holds_of(owner_files(ledger)[0].name)
    ledger.writer.put_durable(cancel_of(a_request(call_id=hold_id[:-2]))).wait(5)
    ledger.close()
    assert ledger.recover().estimated == 0
    assert len(owner_files(ledger)) == 1
    kill(process)
    assert ledger.recover().estimated == 0
    assert owner_files(ledger) == []


def test_a_lock_is_never_held_on_a_file_that_is_gone(tmp_path, monkeypatch):
    """Who waited for a lock while its file was removed takes it on a new file, where others meet it."""
    fcntl = pytest.importorskip("fcntl", reason="this system has no flock")
    path, flock, waits = tmp_path / "file", fcntl.flock, threading.Event()
    first, second, third = FileLock(path), FileLock(path), FileLock(path)

    def sweep():
        waits.wait(5)
        path.unlink()
        first.release()

    assert first.try_acquire()
    monkeypatch.setattr(fcntl, "flock", lambda *wanted: (waits.set(), flock(*wanted)))
    in_threads(sweep, second.__enter__)
    assert path.exists()
    assert not third.try_acquire()
    second.release()
    assert third.try_acquire()
    third.release()


def test_owners_that_come_while_others_sweep_are_not_taken_for_dead(ledger):
    """A hold taken by a new owner at the moment of a sweep stays its own."""
    ledger.append(commit())
    ledgers = [Ledger(ledger.path) for _ in range(10)]
    sweeps = in_threads(
        *[lambda one=one: one.writer.ask(a_request(requests_limit(100))).wait(10) for one in ledgers],
        *[lambda: sum(ledger.recover().estimated for _ in range(10))] * 2,
    )[10:]
    assert sweeps == [0, 0]
    assert ledger.balance(B) == Balance(0, 10, 0)
    ledger.close()
    assert len(owner_files(ledger)) == 10
    for one in ledgers:
        one.close()
