"""Forks: parent and child each keep what is theirs, and neither hangs."""

import os
import threading
import time

import pytest
from samples import a_request, commit, in_threads, requests_limit, until

from tollspan.ledger import Grant, Ledger, Refusal

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

B = ("b [requests]", "", 0)


def fork(child, timeout_s=20):
    """Run something in a forked child; gives back whether it ended well, and kills it if it hangs."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    give_up_at = time.monotonic() + timeout_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > give_up_at:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.001)


def write(ledger, count, run_id):
    for _ in range(count):
        ledger.write_event(commit(run_id=run_id))


def count(ledger, run_id):
    return len(ledger.events_for_run(run_id))


def test_a_fork_while_the_writer_is_busy_loses_nothing(ledger):
    """Children forked in the middle of a transaction write all of their events, and so does the parent."""
    for number in range(5):
        write(ledger, 300, f"parent-{number}")
        ledger.writer._nudge()
        until(lambda: ledger.writer._queue._in_flight or not ledger.writer.pending)

        def child(number=number):
            write(ledger, 300, f"child-{number}")
            ledger.close()

        assert fork(child)
    assert [count(ledger, f"{who}-{n}") for who in ("parent", "child") for n in range(5)] == [300] * 10


def test_the_queue_stays_with_the_parent(ledger):
    """What was queued before the fork is written by the parent alone."""
    write(ledger, 3, "queued")

    def child():
        assert ledger.writer.pending == 0
        write(ledger, 2, "child")
        assert ledger.flush()

    assert fork(child)
    assert (count(ledger, "queued"), count(ledger, "child")) == (3, 2)


def test_a_parent_that_ends_first_takes_nothing_from_its_child(ledger):
    """A child's events survive the parent's closing of a ledger that was open at the fork, and its own sudden end."""
    ledger.append(commit())
    ledger.runs()
    closed, close_now = os.pipe(), os.pipe()

    def child():
        write(ledger, 150, "child")
        ledger.flush()
        os.write(close_now[1], b"x")
        os.read(closed[0], 1)
        write(ledger, 150, "child")
        assert ledger.flush()

    def parent():
        os.read(close_now[0], 1)
        ledger.close()
        os.write(closed[1], b"x")

    closing = threading.Thread(target=parent)
    closing.start()
    assert fork(child)
    closing.join()
    assert count(ledger, "child") == 300


def test_a_child_is_an_owner_of_its_own(ledger):
    """A child takes holds under its own name: its death frees them, and not those of its parent."""
    ledger.writer.ask(a_request(requests_limit(5))).wait(5)
    assert fork(lambda: ledger.writer.ask(a_request(requests_limit(5))).wait(5))
    assert ledger.store.balances([B])[B].held == 2
    assert ledger.recover().estimated == 1
    assert ledger.balance(B).held == 1


def test_a_parents_holds_outlive_a_child_that_lives_longer(ledger):
    """The copy of the parent's lock in a child does not make a dead parent look alive."""
    over, born = os.pipe(), os.pipe()

    def parent():
        own = Ledger(ledger.path)
        own.writer.ask(a_request(requests_limit(5))).wait(5)
        if os.fork() == 0:
            os.close(over[1])
            os.write(born[1], b"x")
            os.read(over[0], 1)  # until the test is over
        os._exit(0)

    assert fork(parent)
    os.read(born[0], 1)
    try:
        assert ledger.recover().estimated == 1
    finally:
        os.close(over[1])


def test_a_child_forked_while_threads_read_and_copy_can_read(ledger, tmp_path):
    """No lock of a thread that the child does not have keeps the child from using the ledger."""
    write(ledger, 500, "parent")
    ledger.flush()
    done = threading.Event()

    def read():
        while not done.is_set():
            ledger.runs()

    def copy():
        number = 0
        while not done.is_set():
            number += 1
            ledger.snapshot_to(tmp_path / f"copy-{number}.db")

    def forks():
        try:
            return [fork(lambda: (ledger.append(commit(run_id="child")), ledger.runs())) for _ in range(10)]
        finally:
            done.set()

    assert in_threads(forks, read, read, copy)[0] == [True] * 10
    assert count(ledger, "child") == 10


def test_a_ledger_in_memory_survives_a_fork_in_both():
    """A child has its own copy of a ledger in memory; what the two write afterwards stays apart."""
    with Ledger(None) as ledger:
        ledger.append(commit())

        def child():
            assert isinstance(ledger.writer.ask(a_request(requests_limit(1))).wait(5), Grant)
            assert ledger.latest_offset() == 2

        assert fork(child)
        assert ledger.append(commit()) == 2
        assert isinstance(ledger.writer.ask(a_request(requests_limit(0))).wait(5), Refusal)
