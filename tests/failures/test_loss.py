"""What was spent is in the ledger once, however the writing of it fails, is cancelled, is killed or is done again."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path

import pytest
from scenes import ask, locked, mock_client, restarted, until
from sdk_calls import make_client

from tollspan.budget import budget
from tollspan.ledger import LedgerEvent

CALLS = 30


@pytest.fixture
def start():
    """Start an application in a process of its own, which does not outlive the test: `start("serves", calls=3)`."""
    with ExitStack() as stack:

        def start(name, **job):
            command = [sys.executable, Path(__file__).with_name("replicas.py"), name, json.dumps(job)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def assert_all_recorded(book, provider):
    """Every bill is one commit, with its cost."""
    commits = book.of("commit")
    assert len({event.event_id for event in commits}) == len(commits) == len(provider.billed) > 0
    assert sum(event.cost_actual_usd for event in commits) == provider.billed_usd()
    assert book.trouble().conflicts == 0
    assert book.verify() == []


def test_10_a_queue_emptied_before_its_commit_is_lost_when_the_commit_fails(chat, provider, configure, book):
    """Spend taken out of the queue, and never put back when the write fails: here it waits, and comes in once."""
    configure(busy_timeout_ms=20)
    chat(max_tokens=5)
    assert book.flush(20)
    with locked(book.path):
        for _ in range(CALLS):
            chat(max_tokens=5)
        until(lambda: book.writer.counts.failures)
        assert not book.flush(0.2)
        assert book.writer.pending == CALLS
    assert_all_recorded(book, provider)


def test_10_a_batch_written_again_after_a_crash_counts_twice(chat, provider, configure, book):
    """A crash between the commit and the end of the queue writes it all again: here a second time changes nothing."""
    configure(busy_timeout_ms=20)
    with budget("1 USD / total", name="b", mode="best_effort"):
        chat(max_tokens=5)
    assert book.flush(20)
    owners = book.path.with_name("ledger.db-owners")
    with locked(book.path), budget("1 USD / total", name="b", mode="best_effort"):
        for _ in range(CALLS):
            chat(max_tokens=5)
        journals = shutil.copytree(owners, owners.with_name("before the commit"))
    assert sum(path.read_bytes().count(b"\n") for path in journals.glob("*")) >= CALLS
    assert_all_recorded(book, provider)
    spent = book.spent
    restarted()
    shutil.copytree(journals, owners, dirs_exist_ok=True)  # as a process leaves them that is killed after the commit
    book.recover()
    assert_all_recorded(book, provider)
    with budget("1 USD / total", name="b") as handle:
        assert (handle.spent, book.spent) == (spent, spent)


@pytest.mark.parametrize("mode", ["best_effort", "strict"])
def test_05_and_10_a_killed_process_takes_its_spend_along_or_leaves_its_hold(start, provider, book, mode):
    """Killed in a call, with others not yet written: here the next process finds each of them, and no hold is left."""
    process = start("killed_in_a_call", url=provider.openai_url, calls=CALLS, mode=mode)
    until(lambda: len(provider.billed) > CALLS or process.poll() is not None)
    process.kill()
    assert process.wait(20) == -signal.SIGKILL, process.stderr.read()
    commits = book.of("commit")
    assert [event.estimated for event in commits].count(True) == 1
    assert len(commits) == len(provider.billed) == CALLS + 1
    with budget("1 USD / total", name="killed") as handle:
        assert (handle.spent, handle.held) == (book.spent, 0)
    assert book.spent >= provider.billed_usd()
    book.assert_settled()


def _is_writing(book):
    """Whether the ledger's writer is in the middle of a batch."""
    lock = book.writer.store_lock
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True


async def test_11_a_write_that_is_cancelled_loses_its_rows(provider, configure, book):
    """Rows taken out for a write that is then cancelled are gone: here a cancelled wait leaves the writing alone."""
    configure(busy_timeout_ms=60_000)
    async with make_client(provider, "openai", asynchronous=True) as client:
        await ask(client, max_tokens=5)
        assert await book.aflush(20)
        with locked(book.path):
            for _ in range(CALLS):
                await ask(client, max_tokens=5)
            by_hand = LedgerEvent(event_type="commit", cost_actual_usd=Decimal(0))
            waits = [asyncio.create_task(book.aflush(20)) for _ in range(3)]
            waits.append(asyncio.create_task(book.awrite_event(by_hand, sync=True)))
            await asyncio.to_thread(until, lambda: book.writer.pending > CALLS and _is_writing(book))
            for wait in waits:
                wait.cancel()
            ends = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(end) for end in ends] == [asyncio.CancelledError] * 4
    commits = book.of("commit")
    assert by_hand.event_id in {event.event_id for event in commits}
    assert sum(event.cost_actual_usd for event in commits) == provider.billed_usd()
    assert len(commits) == len(provider.billed) + 1


def test_11_an_event_loop_that_ends_loses_its_rows(provider, book):
    """Rows that a task of a closed loop was to write are gone: here no loop is needed for it."""

    async def work():
        async with make_client(provider, "openai", asynchronous=True) as client:
            await asyncio.gather(*(ask(client, max_tokens=5) for _ in range(CALLS)))

    asyncio.run(work())
    assert_all_recorded(book, provider)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
def test_12_a_graceful_stop_loses_what_is_queued(start, provider, book, monkeypatch, sent):
    """A stop that does not wait for the queue loses it at each deployment: here it is written first, journal or not."""
    monkeypatch.setenv("TOLLSPAN_JOURNAL", "false")
    book.append(LedgerEvent(event_type="exposure"))
    process = start("serves", url=provider.openai_url, calls=CALLS)
    with locked(book.path):
        assert process.stdout.readline() == "served\n", process.stderr.read()
        process.send_signal(sent)
    assert process.wait(30) == -sent, process.stderr.read()
    assert_all_recorded(book, provider)


STREAM = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": "gpt-4o"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
EVENTS = [
    STREAM | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]},
    STREAM | {"choices": [], "usage": USAGE},
]


def test_14_streams_whose_answers_have_no_id_overwrite_each_other(book):
    """Rows under the provider's id, which may be empty, are one row: here the ids are ours, made before the request."""
    with closing(mock_client(lambda _: EVENTS)) as client, budget("1 USD", name="b") as handle:
        for _ in range(5):
            list(ask(client, max_tokens=20, stream=True, stream_options={"include_usage": True}))
        assert handle.spent == 5 * Decimal("0.000125")
    assert len({event.event_id for event in book.of("commit")}) == 5
    book.assert_settled()
