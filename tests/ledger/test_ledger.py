"""The ledger as its users see it: durable writes, reads, and holds that are exact whoever asks for them."""

import asyncio
import random
import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from itertools import chain

import pytest
from samples import a_request, cancel_of, commit, in_threads, requests_limit, script, tokens_limit, until

from tollspan.ledger import (
    Balance,
    ConfigurationError,
    Grant,
    Ledger,
    LedgerConflict,
    LedgerUnavailable,
    Refusal,
    new_call_id,
    open_ledger,
)

B = ("b [requests]", "", 0)
SECONDS_A_DAY = 86_400


def on_disk(path):
    """How many events another connection sees."""
    with closing(sqlite3.connect(path)) as other:
        return other.execute("SELECT count(*) FROM event").fetchone()[0]


# ---- writing

APPEND_AND_DIE = """
import os, signal, sys
from samples import commit
from tollspan.ledger import Ledger
ledger = Ledger(sys.argv[1])
print(ledger.append(commit("0.25")), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_appended_event_survives_what_comes_next(tmp_path):
    """What `append` has returned an offset for is in the ledger of the next process, even after SIGKILL."""
    with script(APPEND_AND_DIE, tmp_path / "own.db") as process:
        assert process.stdout.readline() == "1\n"
    with Ledger(tmp_path / "own.db") as ledger:
        assert ledger.spend_today() == 0.25


async def test_a_sync_event_is_on_disk_when_its_await_returns(ledger):
    """`awrite_event(sync=True)` returns after the commit, many at once too, and `sync=False` does not wait."""
    for written in range(1, 4):
        await ledger.awrite_event(commit(), sync=True)
        assert on_disk(ledger.path) == written
    await asyncio.gather(*[ledger.awrite_event(commit(), sync=True) for _ in range(50)])
    assert on_disk(ledger.path) == 53
    with ledger.writer.store_lock:
        await ledger.awrite_event(commit())
    assert await ledger.aflush()
    assert on_disk(ledger.path) == 54


async def test_a_conflict_is_raised_where_it_is_waited_for(ledger):
    """An event whose id is stored with other content raises LedgerConflict from `append` and from a sync write."""
    event = commit("1")
    ledger.append(event)
    other = commit("2", call_id=event.call_id, timestamp=event.timestamp)
    with pytest.raises(LedgerConflict, match=event.event_id):
        ledger.append(other)
    with pytest.raises(LedgerConflict, match=event.event_id):
        await ledger.awrite_event(other, sync=True)
    assert ledger.spend_today() == 1


FORGET_TO_CLOSE = """
import sys
from samples import commit
from tollspan.ledger import Ledger
ledger = Ledger(sys.argv[1])
for _ in range(10):
    ledger.write_event(commit())
"""


def test_a_process_that_forgets_to_close_loses_nothing(tmp_path):
    """What is queued when a process ends in order is written all the same."""
    assert script(FORGET_TO_CLOSE, tmp_path / "own.db").wait(20) == 0
    assert on_disk(tmp_path / "own.db") == 10


@pytest.mark.parametrize("how", ["close", "aclose", "with", "async with"])
def test_closing_writes_what_is_queued(tmp_path, how):
    """Every way to close a ledger writes its queue first; a closed ledger opens again when it is used."""
    ledger = Ledger(tmp_path / "own.db")

    async def use():
        if how == "async with":
            async with ledger:
                ledger.write_event(commit())
        else:
            ledger.write_event(commit())
            await ledger.aclose()

    if how == "with":
        with ledger:
            ledger.write_event(commit())
    elif how == "close":
        ledger.write_event(commit())
        ledger.close()
    else:
        asyncio.run(use())
    assert on_disk(tmp_path / "own.db") == 1
    ledger.append(commit())
    ledger.close()
    ledger.close()
    assert on_disk(tmp_path / "own.db") == 2


# ---- reading


def test_reads_see_what_this_process_has_queued(ledger):
    """Events, tail and the latest offset include what was enqueued a moment ago."""
    events = [commit() for _ in range(5)]
    for number, event in enumerate(events, start=1):
        ledger.write_event(event)
        assert ledger.latest_offset() == number
    assert [event.event_id for event in ledger.events] == [event.event_id for event in events]
    assert [event.offset for event in ledger.tail(from_offset=2, limit=2)] == [3, 4]
    assert ledger.tail(from_offset=5) == []


def test_a_tail_gives_each_event_exactly_once(ledger):
    """A reader that goes on from the last offset it has seen meets every event once, while two processes write."""
    writer = "import sys; from samples import commit; from tollspan.ledger import Ledger\n"
    writer += "with Ledger(sys.argv[1]) as ledger:\n    for _ in range(300): ledger.write_event(commit())"
    processes = [script(writer, ledger.path) for _ in range(2)]
    seen = []
    give_up_at = time.monotonic() + 20
    while len(seen) < 600 and time.monotonic() < give_up_at:
        seen += [event.offset for event in ledger.tail(seen[-1] if seen else 0, limit=70)]
    for process in processes:
        process.communicate()
    assert seen == [event.offset for event in ledger.events]
    assert len(seen) == 600


def test_runs_and_their_events_come_in_order(ledger):
    """Runs are listed as they were first seen, with their events in order of offset."""
    for run_id in ["b", None, "a", "b"]:
        ledger.write_event(commit(run_id=run_id))
    assert ledger.runs() == ["b", "a"]
    assert [event.offset for event in ledger.events_for_run("b")] == [1, 4]
    assert ledger.events_for_run("none") == []


def test_reset_hides_the_events_so_far_and_changes_no_balance(ledger):
    """After a reset the old events are out of sight, spend and holds are as they were, and new events are seen."""
    ledger.write_event(commit("2", run_id="old"))
    ledger.writer.ask(a_request(requests_limit(3))).wait(5)
    ledger.reset()
    assert (list(ledger.events), ledger.tail(), ledger.runs(), ledger.events_for_run("old")) == ([], [], [], [])
    assert (ledger.spend_today(), ledger.balance(B), ledger.latest_offset()) == (2.0, Balance(0, 1, 0), 2)
    ledger.write_event(commit("1", run_id="new"))
    assert (ledger.runs(), ledger.spend_today(), len(ledger.tail())) == (["new"], 3.0, 1)


async def test_spend_today_is_the_sum_of_what_was_spent_today(tmp_path):
    """Spend of the UTC day counts commits, adjusts and estimates by when their calls began, for all and by profile."""
    now = time.time()
    yesterday = new_call_id(now - SECONDS_A_DAY).hex()
    events = [
        commit("0.1", profile_id="p"),
        commit("0.2", profile_id="q"),
        commit("0.000000001"),
        commit(None, cost_est_usd=None, reason="no price"),
        commit("-0.05", event_type="adjust", profile_id="p"),
        commit("9", call_id=yesterday, profile_id="p"),
        commit("9", event_type="precheck_hold", profile_id="p"),
    ]
    with Ledger(tmp_path / "own.db") as ledger:
        for event in events:
            ledger.write_event(event)
        assert ledger.spend_today() == 0.250000001
    with Ledger(tmp_path / "own.db") as again:
        assert again.spend_today() == 0.250000001
        assert again.spend_today(scope="profile", profile_id="p") == 0.05
        assert await again.aspend_today("profile", "q") == 0.2
        assert again.spend_today("profile", "nobody") == 0
        with pytest.raises(ValueError, match="needs a profile_id"):
            again.spend_today("profile")


# ---- the whole


def test_a_snapshot_taken_while_others_write_is_whole(ledger, tmp_path):
    """A copy made under load is an intact ledger: its events have no gap, and its balance is the sum of its log."""
    done = threading.Event()

    def write():
        while not done.is_set():
            ledger.append(commit("0.5"))

    def copy():
        try:
            until(lambda: ledger.store.query("SELECT count(*) FROM event")[0][0] > 20)
            ledger.snapshot_to(tmp_path / "copy.db")
        finally:
            done.set()

    in_threads(write, write, copy)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with Ledger.from_file(tmp_path / "copy.db") as copied:
        events = list(copied.events)
        assert [event.offset for event in events] == list(range(1, len(events) + 1))
        assert copied.spend_today() == len(events) / 2
        assert 20 < len(events) <= ledger.latest_offset()


def test_a_snapshot_is_never_written_over_something(ledger, tmp_path):
    """A file that is there is left alone, and a copy of what cannot be read makes none."""
    (tmp_path / "taken.db").write_text("mine")
    with pytest.raises(FileExistsError, match=r"taken\.db"):
        ledger.snapshot_to(tmp_path / "taken.db")
    assert (tmp_path / "taken.db").read_text() == "mine"
    with pytest.raises(LedgerUnavailable, match="no folder"):
        ledger.snapshot_to(tmp_path / "no folder" / "copy.db")
    with Ledger(tmp_path / "taken.db") as spoilt, pytest.raises(LedgerUnavailable, match="damaged or no ledger"):
        spoilt.snapshot_to(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_file_that_is_not_there_is_not_made_for_reading(tmp_path):
    """`from_file` opens what exists, and makes nothing."""
    with pytest.raises(FileNotFoundError, match="none"):
        Ledger.from_file(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_in_memory_does_what_one_in_a_file_does(tmp_path):
    """A ledger in memory writes, reads, holds and copies, and leaves no file."""
    with Ledger(None) as ledger:
        assert ledger.append(commit("0.5")) == 1
        request = a_request(requests_limit(1))
        assert isinstance(ledger.writer.ask(request).wait(5), Grant)
        assert isinstance(ledger.writer.ask(a_request(requests_limit(1))).wait(5), Refusal)
        ledger.writer.put(cancel_of(request))
        assert (ledger.balance(B), ledger.spend_today(), ledger.recover().estimated) == (Balance(), 0.5, 0)
        assert list(tmp_path.iterdir()) == []
        ledger.snapshot_to(tmp_path / "copy.db")
    with Ledger.from_file(tmp_path / "copy.db") as copied:
        assert len(copied.tail()) == 3


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:///{tmp}/absolute.db", "absolute.db"),
        ("plain.db", "plain.db"),
        ("sqlite:///:memory:", None),
        (None, "ledger.db"),
    ],
)
def test_a_url_names_the_ledger(tmp_path, url, path):
    """A URL opens its file, relative to the working directory, or memory; none is the configured one."""
    with open_ledger(url and url.format(tmp=tmp_path)) as ledger:
        ledger.append(commit())
        assert ledger.path == (tmp_path / path if path else None)


def test_a_url_of_another_kind_is_refused():
    """The error for a store that does not exist yet says what can be used."""
    with pytest.raises(ConfigurationError, match="sqlite:///path"):
        open_ledger("redis://localhost")


# ---- holds: exact, whoever asks

HOLD_MANY = """
import os, sys
from samples import a_request, cancel_of, requests_limit
from tollspan.ledger import Grant, Ledger

def many(ledger):
    print("ready", flush=True)
    sys.stdin.readline()
    answers = [ledger.writer.ask(a_request(requests_limit(70))).wait(20) for _ in range(40)]
    print(sum(isinstance(answer, Grant) for answer in answers), flush=True)
    sys.stdin.readline()
    ledger.close()

ledger = Ledger(sys.argv[1])
if sys.argv[2] == "fork":
    ledger.spend_today()  # a ledger that was open before the fork
    if os.fork():
        os.wait()
        os._exit(0)
many(ledger)
"""


@pytest.mark.parametrize("how", ["fork", "fresh"])
def test_processes_never_hold_more_than_the_limit_together(ledger, how):
    """Four processes that ask for 160 holds of one budget get exactly the 70 that it has room for."""
    processes = [script(HOLD_MANY, ledger.path, how) for _ in range(4)]
    for step in ("ready", None):
        lines = [process.stdout.readline().strip() for process in processes]
        assert step is None or lines == [step] * 4
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
    assert sum(map(int, lines)) == 70
    assert ledger.store.query("SELECT count(*) FROM open_hold")[0][0] == 70
    assert ledger.balance(B) == Balance(0, 70, 0)
    for process in processes:
        process.communicate(timeout=20)


def test_threads_never_hold_more_than_the_limit_together(ledger):
    """Fifty threads that ask for 200 holds of one budget get exactly the 70 that it has room for."""

    def ask():
        return [ledger.writer.ask(a_request(requests_limit(70))).wait(20) for _ in range(4)]

    answers = [*chain(*in_threads(*[ask] * 50))]
    assert sum(isinstance(answer, Grant) for answer in answers) == 70
    assert all(isinstance(answer, Grant | Refusal) for answer in answers)
    assert ledger.balance(B) == Balance(0, 70, 0)


async def test_tasks_never_hold_more_than_the_limit_together(ledger):
    """A hundred tasks that ask for 200 holds of one budget get exactly the 70 that it has room for."""
    loop = asyncio.get_running_loop()

    async def ask():
        return [await ledger.writer.ask(a_request(requests_limit(70)), loop=loop).wait_async(20) for _ in range(2)]

    answers = [*chain(*await asyncio.gather(*[ask() for _ in range(100)]))]
    assert sum(isinstance(answer, Grant) for answer in answers) == 70
    assert ledger.balance(B) == Balance(0, 70, 0)


# ---- standing in line


def waiting(ledger, *limits, tokens=0, wait_s=10.0, loop=None):
    """A request that stands in line; gives back the request and its ticket."""
    request = a_request(*limits, tokens=tokens)
    return request, ledger.writer.ask(request, wait_s=wait_s, loop=loop)


def test_those_in_line_are_served_in_order(ledger):
    """Each waiter is served when its turn comes, a small one not before a large one that came first."""
    limit = tokens_limit(10)
    holder = a_request(limit, tokens=10)
    ledger.writer.ask(holder).wait(5)
    line = [waiting(ledger, limit, tokens=tokens) for tokens in (6, 7, 1, 9, 2, 10, 1, 1)]

    def serve(request, ticket):
        assert isinstance(ticket.wait(10), Grant)
        ledger.writer.put(cancel_of(request))

    ledger.writer.put(cancel_of(holder))
    in_threads(*[partial(serve, *place) for place in line])
    served = [event.event_id for event in ledger.events if event.event_type == "precheck_hold"]
    assert served == [request.hold_id.hex() for request in (holder, *[request for request, _ in line])]
    assert ledger.balance(B) == Balance()


def test_a_newcomer_stands_behind_those_in_line(ledger):
    """Who asks later and is ready to wait does not overtake a larger request; who does not wait, may."""
    limit = tokens_limit(10)
    ledger.writer.ask(a_request(limit, tokens=5)).wait(5)
    waiting(ledger, limit, tokens=8)
    ledger.writer.put_durable(None).wait(5)
    _, newcomer = waiting(ledger, limit, tokens=1)
    assert isinstance(ledger.writer.ask(a_request(limit, tokens=1)).wait(5), Grant)
    ledger.writer.put_durable(None).wait(5)
    assert not newcomer.settled


def test_those_who_ask_at_once_stand_in_line_in_the_order_of_asking(ledger):
    """Of requests in one batch a small one does not overtake a large one that has to wait."""
    limit = tokens_limit(10)
    holder = a_request(limit, tokens=5)
    with ledger.writer.store_lock:
        first = ledger.writer.ask(holder)
        line = [waiting(ledger, limit, tokens=tokens) for tokens in (8, 1, 1)]
    first.wait(5)
    ledger.writer.put_durable(None).wait(5)
    assert [ticket.settled for _, ticket in line] == [False] * 3
    ledger.writer.put(cancel_of(holder))
    assert [type(ticket.wait(5)) for _, ticket in line] == [Grant] * 3


def test_many_in_line_are_served_without_a_pause_for_each(ledger):
    """When room for all appears, a hundred waiters are served together, and not one at each look."""
    holder = a_request(requests_limit(100))
    ledger.writer.ask(holder).wait(5)
    ledger.writer.put_durable(None).wait(5)
    full = [a_request(requests_limit(100)) for _ in range(99)]
    for request in full:
        ledger.writer.ask(request)
    line = [waiting(ledger, requests_limit(100))[1] for _ in range(100)]
    ledger.writer.put_durable(None).wait(5)
    began = time.monotonic()
    for request in [holder, *full]:
        ledger.writer.put(cancel_of(request))
    assert all(isinstance(ticket.wait(5), Grant) for ticket in line)
    assert time.monotonic() - began < 1


def test_a_line_for_one_budget_holds_up_no_other(ledger):
    """Who waits for a full budget does not block a call to another; who needs both waits for both."""
    ledger.writer.ask(a_request(requests_limit(1, "full"))).wait(5)
    _, blocked = waiting(ledger, requests_limit(1, "full"))
    _, both = waiting(ledger, requests_limit(1, "free"), requests_limit(1, "full"))
    _, free = waiting(ledger, requests_limit(2, "other"))
    assert isinstance(free.wait(5), Grant)
    assert not blocked.settled
    assert not both.settled
    assert ledger.balance(("free", "", 0)) == Balance()


def test_a_wait_that_is_over_is_answered_with_the_refusal(ledger):
    """Who has waited long enough gets a busy refusal that names the limit; who waits in vain gets it at once."""
    ledger.writer.ask(a_request(requests_limit(1))).wait(5)
    began = time.monotonic()
    answers = [waiting(ledger, requests_limit(1), wait_s=wait_s)[1].wait(5) for wait_s in (0, 0.1)]
    assert 0.1 <= time.monotonic() - began < 1
    assert answers == [Refusal(requests_limit(1), Balance(0, 1, 0), 1, busy=True)] * 2
    assert waiting(ledger, requests_limit(0))[1].wait(5) == Refusal(requests_limit(0), Balance(0, 1, 0), 1, busy=False)


def test_closing_answers_those_in_line(ledger):
    """A ledger that is closed does not leave a waiter standing."""
    ledger.writer.ask(a_request(requests_limit(1))).wait(5)
    tickets = [waiting(ledger, requests_limit(1))[1] for _ in range(3)]
    ledger.close()
    assert [ticket.wait(1).busy for ticket in tickets] == [True] * 3


WAIT = """
import sys, time
from samples import a_request, requests_limit
from tollspan.ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    ticket = ledger.writer.ask(a_request(requests_limit(1)), wait_s=20)
    ledger.writer.put_durable(None).wait(5)
    print("in line", flush=True)
    print(type(ticket.wait(20)).__name__, time.monotonic(), flush=True)
    sys.stdin.readline()
"""


def test_a_settlement_wakes_waiters_of_other_processes(ledger):
    """A waiter in another process has its grant within 100 ms after the room that it waits for is on disk."""
    delays = []
    for _ in range(3):
        holder = a_request(requests_limit(1))
        assert isinstance(ledger.writer.ask(holder).wait(5), Grant)
        with script(WAIT, ledger.path) as process:
            assert process.stdout.readline() == "in line\n"
            ledger.writer.put_durable(cancel_of(holder)).wait(5)
            settled = time.monotonic()
            kind, at = process.stdout.readline().split()
            assert kind == "Grant"
            delays.append(float(at) - settled)
            process.kill()
        assert ledger.recover().estimated == 1
    assert min(delays) < 0.1


# ---- giving up


async def test_a_cancelled_waiter_leaks_nothing(ledger):
    """Tasks that are cancelled in line, or at the moment of their grant, leave no hold and block nobody."""
    loop, limit = asyncio.get_running_loop(), requests_limit(3)
    chance = random.Random(7)

    async def use():
        request, ticket = waiting(ledger, limit, loop=loop)
        try:
            answer = await ticket.wait_async()
            await asyncio.sleep(chance.uniform(0, 0.004))
        except asyncio.CancelledError:
            if not ticket.give_up() and isinstance(ticket.result(), Grant):
                ledger.writer.put(cancel_of(request))
            raise
        assert isinstance(answer, Grant)
        ledger.writer.put(cancel_of(request))

    tasks = [asyncio.create_task(use()) for _ in range(120)]
    for task in chance.sample(tasks, 60):
        await asyncio.sleep(chance.uniform(0, 0.004))
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
    await asyncio.to_thread(until, lambda: ledger.balance(B) == Balance())
    assert ledger.store.open_hold_owners() == []


def test_a_grant_for_somebody_who_has_given_up_is_returned(ledger):
    """A hold that is granted to nobody any more is withdrawn, and the log says so."""
    with ledger.writer.store_lock:
        ticket = ledger.writer.ask(a_request(requests_limit(1)))
        until(lambda: not ledger.writer._line.asking)  # it is on its way to the store
        assert ticket.give_up()
    until(lambda: [event.event_type for event in ledger.events] == ["precheck_hold", "cancel"])
    assert ledger.balance(B) == Balance()


def test_a_grant_for_a_loop_that_is_closed_is_returned(ledger):
    """A hold for a task whose event loop is gone is withdrawn; the loop's end leaks nothing."""
    loop = asyncio.new_event_loop()
    with ledger.writer.store_lock:
        ledger.writer.ask(a_request(requests_limit(1)), loop=loop)
        loop.close()
    until(lambda: [event.event_type for event in ledger.events] == ["precheck_hold", "cancel"])
    assert ledger.balance(B) == Balance()


def test_threads_and_tasks_that_wait_and_give_up_never_exceed_the_limit(ledger):
    """Under random sizes and time-outs the sum in use never exceeds the limit, and all of it is free at the end."""
    limit, in_use, lock, peaks = tokens_limit(10), [], threading.Lock(), []

    def work(number):
        chance, grants = random.Random(number), 0
        for _ in range(8):
            tokens = chance.randint(1, 10)
            request, ticket = waiting(ledger, limit, tokens=tokens, wait_s=chance.choice([0, 0.01, 0.1, 10]))
            answer = ticket.wait(20)
            if isinstance(answer, Grant):
                grants += 1
                with lock:
                    in_use.append(tokens)
                    peaks.append(sum(in_use))
                time.sleep(chance.uniform(0, 0.001))
                with lock:
                    in_use.remove(tokens)
                ledger.writer.put(cancel_of(request))
            else:
                assert answer.busy
        return grants

    grants = in_threads(*[partial(work, number) for number in range(25)])
    assert sum(grants) > 25
    assert max(peaks) <= 10
    assert ledger.balance(B) == Balance()
