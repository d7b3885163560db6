"""What a ledger does while its disk or its clock fails, in a process of its own.

As a script (`afflicted.py NAME ARGUMENT...`) it runs one function, and prints what that saw as JSON. With faults.c
preloaded, `Faults` says what is to fail.
"""

import json
import mmap
import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from crash_samples import HELD, a_hold, a_limit, cancel_of, commit, settlement_of, until

from tollspan.budget import BudgetExceeded, budget
from tollspan.ledger import Grant, Ledger, LedgerUnavailable

FIELDS = (
    "database writes",
    "database syncs",
    "journal writes",
    "error",
    "sync us",
    "sync gate",
    "clock ns",
    "syncs",
    "main syncs",
    "standing",
)
TABLE_BYTES = 8 * len(FIELDS)
HOUR_NS = 3_600 * 10**9


class Faults:
    """The table that faults.c reads, by the names of its fields."""

    def __init__(self):
        with open(os.environ["FAULTS"], "r+b") as file:  # noqa: PTH123 - mmap wants its descriptor
            self._table = memoryview(mmap.mmap(file.fileno(), TABLE_BYTES)).cast("q")

    def __getitem__(self, name):
        return self._table[FIELDS.index(name)]

    def __setitem__(self, name, value):
        self._table[FIELDS.index(name)] = value


def seen(ledger, written):
    """How a ledger stands to the events that were written to it."""
    ids = [event.event_id for event in ledger.events]
    return {
        "lost": len({event.event_id for event in written} - set(ids)),
        "twice": len(ids) - len(set(ids)),
        "differences": len(ledger.verify()),
        "failures": ledger.writer.counts.failures,
        "last_error": ledger.writer.counts.last_error,
        "thread_alive": ledger.writer._thread.is_alive(),
    }


def written(ledger, count):
    events = [commit() for _ in range(count)]
    for event in events:
        ledger.write_event(event)
    return events


def answers(ledger, limit, count):
    """Ask for holds, one after the other: those that were granted, and how often the ledger was out of reach."""
    granted, unreachable = [], 0
    for _ in range(count):
        hold = a_hold(limit)
        try:
            if isinstance(ledger.writer.ask(hold).wait(20), Grant):
                granted.append(hold)
        except LedgerUnavailable:
            unreachable += 1
    return granted, unreachable


def disk_errors(path, field, times, error):
    """Writes or syncs that fail a number of times, or until somebody heals the disk."""
    faults, limit = Faults(), a_limit(10_000)
    with Ledger(path, busy_timeout_ms=100) as ledger:
        ledger.append(commit())
        faults["error"] = int(error)
        faults[field] = int(times)
        events = written(ledger, 300)
        granted, unreachable = answers(ledger, limit, 20)
        events += written(ledger, 300)
        faults[field] = 0
        until(ledger.flush)
        more, still_unreachable = answers(ledger, limit, 1)
        held = ledger.balance(limit.key).held
        for hold in [*granted, *more]:
            ledger.writer.put(settlement_of(hold))
        return {
            "unreachable": unreachable,
            "still_unreachable": still_unreachable,
            "held_too_much": held - HELD * len([*granted, *more]),
            "open_holds": ledger.open_holds().calls,
            **seen(ledger, events),
        }


def standing_disk(path):
    """A sync that does not come back."""
    faults = Faults()
    with Ledger(path) as ledger:
        ledger.append(commit())
        faults["sync gate"] = 1
        hold = ledger.writer.ask(a_hold(a_limit(2 * HELD)))
        until(lambda: faults["standing"])
        events = written(ledger, 1000)
        second = ledger.writer.ask(a_hold(a_limit(2 * HELD)))
        meanwhile = {"standing": faults["standing"], "answered": hold.settled or second.settled}
        faults["sync gate"] = 0
        granted = [isinstance(ticket.wait(20), Grant) for ticket in (hold, second)]
        return {**meanwhile, "granted": granted, "main_syncs": faults["main syncs"], **seen(ledger, events)}


def slow_disk(path, us):
    """Syncs that take longer, while eight threads take holds and settle them."""
    faults, limit = Faults(), a_limit(1_000_000)
    with Ledger(path) as ledger:
        ledger.append(commit())
        faults["sync us"] = int(us)
        before = faults["syncs"]
        with ThreadPoolExecutor(8) as pool:
            granted = [hold for some, _ in pool.map(lambda _: answers(ledger, limit, 20), range(8)) for hold in some]
        syncs = faults["syncs"] - before
        events = [settlement_of(hold) for hold in granted]
        for entry in events:
            ledger.writer.put(entry)
        facts = {"granted": len(granted), "syncs": syncs, "main_syncs": faults["main syncs"]}
        return {**facts, **seen(ledger, [entry.event for entry in events])}


def stepping_clock(path, url, middle_of_an_hour):
    """A clock that goes back an hour and forth again, under a budget per hour that allows three calls."""
    import time  # noqa: PLC0415 - here only, so that nothing else in this module looks at the clock

    import openai  # noqa: PLC0415

    from tollspan.exporter import pipeline  # noqa: PLC0415
    from tollspan.instrumentation import instrument  # noqa: PLC0415

    faults = Faults()
    os.environ["TOLLSPAN_LEDGER"] = f"sqlite:///{path}"
    instrument()
    client = openai.OpenAI(base_url=url, api_key="local", max_retries=0)
    faults["clock ns"] = int(middle_of_an_hour) * 10**9 - time.time_ns()

    def calls():
        admitted, resets = 0, []
        for _ in range(5):
            try:
                with budget("3 requests / hour", name="hourly"):
                    client.chat.completions.create(
                        model="gpt-4o", max_tokens=50, messages=[{"role": "user", "content": "hello"}]
                    )
                admitted += 1
            except BudgetExceeded as refusal:
                resets.append(refusal.reset_at - time.time())
        return {"admitted": admitted, "resets": resets}

    found = []
    for step in (0, -HOUR_NS, HOUR_NS):
        faults["clock ns"] += step
        found.append(calls())
    ledger = pipeline().ledger
    offsets = [event.offset for event in ledger.events]
    stamps = [event.timestamp for event in ledger.events]
    return {
        "calls": found,
        "offsets_grow": offsets == sorted(set(offsets)),
        "stamps_grow": stamps == sorted(stamps),
        **seen(ledger, []),
    }


def file_size_limit(path):
    """Files that may not grow, the journal's among them, until the limit is lifted."""
    with Ledger(path) as ledger:
        ledger.append(commit())
        size = max(os.stat(name).st_size for name in (path, f"{path}-wal"))  # noqa: PTH116
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, hard))
        events = written(ledger, 1000)
        until(lambda: ledger.writer.counts.failures)
        _, unreachable = answers(ledger, a_limit(HELD), 1)
        meanwhile = {"unreachable": unreachable, "journal_failures": ledger.writer.journal.failures}
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        until(ledger.flush)
        return {**meanwhile, **seen(ledger, events)}


def torn_journal(path):
    """A journal whose write is cut short once."""
    faults = Faults()
    with Ledger(path) as ledger:
        ledger.append(commit())
        with ledger.writer.store_lock:  # so that nothing is on its way into the ledger
            events = written(ledger, 10)
            faults["journal writes"] = 1
            events += written(ledger, 10)
            meanwhile = {"journal_failures": ledger.writer.journal.failures, "error": ledger.writer.journal.last_error}
        until(ledger.flush)
        return {**meanwhile, **seen(ledger, events)}


def killed_at_the_lock(path, count, queue_limit):
    """Writes while somebody else keeps the ledger locked, says what was written, and is killed."""
    ledger = Ledger(path, busy_timeout_ms=100, queue_limit=int(queue_limit))
    print(json.dumps([event.event_id for event in written(ledger, int(count))]), flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


def load(path, seconds, threads):
    """Threads that call for so long, some calls held, some plain; how many were billed, by their kind."""
    import time  # noqa: PLC0415

    end, limit = time.monotonic() + float(seconds), a_limit(1 << 60, "load")
    with Ledger(path) as ledger, ThreadPoolExecutor(int(threads)) as pool:

        def calls(_):
            held = cancelled = plain = 0
            while time.monotonic() < end:
                hold = a_hold(limit)
                assert isinstance(ledger.writer.ask(hold).wait(60), Grant)
                if (held + cancelled) % 5 == 4:
                    ledger.writer.put(cancel_of(hold))
                    cancelled += 1
                else:
                    ledger.writer.put(settlement_of(hold))
                    held += 1
                for _ in range(5):
                    ledger.write_event(commit())
                    plain += 1
            return held, cancelled, plain

        done = [sum(counts) for counts in zip(*pool.map(calls, range(int(threads))), strict=True)]
        until(ledger.flush)
    return dict(zip(("held", "cancelled", "plain"), done, strict=True))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))  # noqa: T201 - that is how it reports
