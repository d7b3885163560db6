"""What the ledger costs: CPU time of the writer, of a producer and of a reader, each beside a floor of the same run.

    python benchmarks/ledger.py [--rows 1000000] [--quick] [--only writer,growth,...] [--json]

A floor is the least that anybody has to do: SQLite alone with ready tuples, a bare queue, a bare `os.write`. Ours and
the floor take turns, so drift of the machine hits both alike. Times are CPU microseconds of the thread named, unless
they say otherwise; goals stand beside the figures, and nothing fails where one is missed. Ten million rows need 4 GB
in the temporary folder and 20 minutes.
"""

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import os
import random
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from tollspan.exporter import CallRecord, Held, beginning, hold_event, settlement, withdrawal
from tollspan.ledger import (
    Demand,
    Entry,
    HoldRequest,
    Ledger,
    Limit,
    Posting,
    PriceBook,
    event_id_for,
    new_call_id,
)

BATCH = 500
SMALL = 100_000
PIECE, CHUNK = 2000, 20_000  # as many events as the lazy index takes in at a time are a chunk
MODELS = (("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"), ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5"))
FEATURES = ("search", "summaries", "chat", "triage")


@dataclass
class Figure:
    """One line of the table: a value for each round, and that of the floor in the same round where there is one.

    `goal` is for the ratio to the floor, or, without a floor, for the value.
    """

    name: str
    unit: str
    ours: list[float]
    floor: list[float] = field(default_factory=list)
    goal: float | None = None

    def summary(self):
        ratios = [ours / floor for ours, floor in zip(self.ours, self.floor, strict=True)] if self.floor else []
        judged = statistics.median(ratios or self.ours)
        return {
            "unit": self.unit,
            "ours": spread(self.ours),
            "floor": spread(self.floor),
            "ratio": spread(ratios),
            "goal": self.goal,
            "met": None if self.goal is None else judged <= self.goal,
        }

    def line(self):
        summary = self.summary()
        by = "x" if self.floor else f" {self.unit}"
        goal = "" if self.goal is None else f"<= {self.goal:g}{by}{'' if summary['met'] else '  missed'}"
        cells = [text(summary[which]) for which in ("ours", "floor", "ratio")]
        return f"{self.name:<52}{self.unit:<10}{cells[0]:<26}{cells[1]:<26}{cells[2]:<22}{goal}".rstrip()


def spread(values):
    """Median and quartiles; None of no values."""
    if not values:
        return None
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "quartiles": [low, high]}


def text(figure):
    if figure is None:
        return ""
    middle, (low, high) = figure["median"], figure["quartiles"]
    return short(middle) if low == high else f"{short(middle)} ({short(low)} to {short(high)})"


def short(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# ---- what is measured


class Calls:
    """Settled calls as the instrumentation hands them over: two models, cached input now and then, a user and a tag."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        book = PriceBook()
        self._started = time.time() - 86_400
        self._cards = [book.resolve(provider=p, model=m, at=self._started) for p, m, _ in MODELS]

    def record(self) -> CallRecord:
        draw = self._random.random
        which = int(draw() * len(MODELS))
        provider, asked, answered = MODELS[which]
        self._started += 0.005
        usage = {"tokens_in": 20 + int(draw() * 5000), "tokens_out": 1 + int(draw() * 800)}
        if draw() < 1 / 3:
            usage["tokens_cache_read"] = usage["tokens_in"] // 2
        return CallRecord(
            call_id=new_call_id(self._started),
            started=self._started,
            operation="chat",
            provider=provider,
            request_model=asked,
            response_model=answered,
            dimensions={"user": f"user-{int(draw() * 500)}", "tag:feature": FEATURES[int(draw() * 4)]},
            trace_id=self._random.getrandbits(128),
            span_id=self._random.getrandbits(64),
            usage=usage,
            cost=self._cards[which].cost(usage),
            cost_source=self._cards[which].source,
            rate_card=self._cards[which],
            http_status=200,
            ttft_ms=100 + draw() * 400,
            total_ms=500 + draw() * 4000,
        )

    def entries(self, count) -> list[Entry]:
        """Ready entries; the collector does not look at them, because no application keeps so many of them."""
        gc.unfreeze()
        made = [settlement(self.record()) for _ in range(count)]
        gc.collect()
        gc.freeze()
        return made

    def demand(self) -> Demand:
        bound = self._cards[0].bound(300)
        return Demand(bound, input_tokens=300, wanted_output=1000, least_output=1000)


class Rows:
    """The floor of the writer: SQLite alone, the same schema without counters, ready tuples, 500 in a transaction."""

    def __init__(self, path: Path) -> None:
        with Ledger(path) as ledger:
            ledger.flush()
            self._marks = len(ledger.store.query("PRAGMA table_info(event)"))
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def copy_last(self, source: Ledger, count: int) -> float:
        """Insert the last events of a ledger; CPU microseconds for each."""
        rows = source.store.query("SELECT * FROM event WHERE offset > ?", (source.latest_offset() - count,))
        ready = [(None, *tuple(row)[1:]) for row in rows]  # with offsets of its own
        statement = f"INSERT INTO event VALUES ({', '.join('?' * self._marks)})"
        before = time.thread_time_ns()
        for start in range(0, len(ready), BATCH):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, ready[start : start + BATCH])
            self._connection.execute("COMMIT")
        return (time.thread_time_ns() - before) / 1000 / len(ready)

    def close(self) -> None:
        self._connection.close()


class NoUpkeep:
    """In place of the writer's upkeep, where only the writing is measured."""

    def turn(self, **_):
        return None


def writer_clock(ledger: Ledger) -> int:
    """The CPU clock of a ledger's writer thread."""
    found: list[int] = []
    ledger.writer.defer(lambda: found.append(time.pthread_getcpuclockid(threading.get_ident())))
    while not found:
        a_turn(ledger)
    return found[0]


def a_turn(ledger: Ledger) -> None:
    """Wait until the writer has done all that came before."""
    ledger.writer.put_durable(None).wait()


def write(ledger: Ledger, clock: int, entries: list[Entry]) -> float:
    """Have the writer write full batches; its CPU microseconds for each event, upkeep included."""
    with ledger.writer.store_lock:
        for entry in entries:
            ledger.writer.put(entry)
        before = time.clock_gettime_ns(clock)
    ledger.flush(600)
    a_turn(ledger)  # the turn of the last batch is over, upkeep and all
    return (time.clock_gettime_ns(clock) - before) / 1000 / len(entries)


def timed(action: Callable[[], object], count: int = 1) -> float:
    """CPU microseconds of this thread for each of so many."""
    before = time.thread_time_ns()
    action()
    return (time.thread_time_ns() - before) / 1000 / count


def each(function: Callable, values: Iterable[object]) -> None:
    for value in values:
        function(value)


# ---- the measurements, by the names of `--only`


def writer(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """The writer's CPU for an event."""
    calls, size = Calls(), 5_000 if options.quick else 10_000
    rows, ours, floor = Rows(folder / "rows.db"), [], []
    with Ledger(folder / "ledger.db") as ledger:
        ledger.writer.upkeep = NoUpkeep()
        clock = writer_clock(ledger)
        for number in range(options.rounds + 1):
            spent = write(ledger, clock, calls.entries(size))
            least = rows.copy_last(ledger, size)
            if number:  # the first one meets cold caches
                ours.append(spent)
                floor.append(least)
    rows.close()
    yield Figure("writer, an event", "us", ours, floor, 2.0)


def growth(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """What becomes of the cost, the file, the memory and the look-ups as the ledger grows."""
    calls, path = Calls(), folder / "large.db"
    sizes = sorted({*(size for size in (1_000_000, 10_000_000) if size < options.rows), options.rows} - {SMALL})
    with Ledger(path) as large, Ledger(folder / "small.db") as small:
        large_clock = writer_clock(large)
        first = grow(large, large_clock, calls, SMALL)
        yield Figure("writer with the lazy index, an event, at 0.1M", "us", first)
        large.snapshot_to(folder / "small.db")
        small_clock = writer_clock(small)
        started = memory_mb()
        for size in sizes:
            grow(large, large_clock, calls, size)
            yield Figure(f"memory, beside that at 0.1M, at {size / 1e6:g}M", "MB", [memory_mb()], [started], 1.2)
            ours, floor = [], []
            for _ in range(options.rounds):
                ours.append(chunk(large, large_clock, calls))
                floor.append(chunk(small, small_clock, calls))
            yield Figure(f"the same beside that at 0.1M, at {size / 1e6:g}M", "us", ours, floor, 1.2)
        whole, index = bytes_of(large)
        yield Figure("file, an event", "B", [whole], goal=380)
        yield Figure("file without the lazy index, an event", "B", [whole - index], goal=380)
        yield from look_ups(large, large_clock, calls, options)


def grow(ledger: Ledger, clock: int, calls: Calls, size: int) -> list[float]:
    """Write until there are so many events; the CPU of the writer for an event, chunk by chunk."""
    figures = []
    while (missing := size - ledger.latest_offset()) > 0:
        figures.append(chunk(ledger, clock, calls, min(CHUNK, missing)))
    return figures


def chunk(ledger: Ledger, clock: int, calls: Calls, size: int = CHUNK) -> float:
    """Write so many events, few at a time so that the memory they take is small beside the ledger's."""
    return statistics.fmean(write(ledger, clock, calls.entries(PIECE)) for _ in range(-(-size // PIECE)))


def memory_mb() -> float:
    gc.unfreeze()
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def bytes_of(ledger: Ledger) -> tuple[float, float]:
    """Bytes of the file for each event; of these, those of the lazy index."""
    connection = sqlite3.connect(ledger.path, isolation_level=None)

    def pragma(name):
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    events, page = ledger.latest_offset(), pragma("page_size")
    whole, free = pragma("page_count") * page, pragma("freelist_count")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM lookup")
    connection.execute("DELETE FROM run")
    index = (pragma("freelist_count") - free) * page
    connection.execute("ROLLBACK")
    connection.close()
    return whole / events, index / events


def look_ups(ledger: Ledger, clock: int, calls: Calls, options: argparse.Namespace) -> Iterator[Figure]:
    """A trace and the tail, with nearly as many events behind the lazy index as there can be."""
    chunk(ledger, clock, calls, CHUNK - PIECE)
    latest = ledger.latest_offset()
    offsets = random.Random(7).sample(range(1, latest), 10 * options.rounds)
    rows = [ledger.store.query("SELECT event_id, trace_id FROM event WHERE offset = ?", (o,))[0] for o in offsets]
    by_id = "SELECT * FROM recorded WHERE event_id = ?"
    floor = [timed(partial(ledger.store.query, by_id, (row["event_id"],))) / 1000 for row in rows]
    ours = [timed(partial(ledger.events_for_trace, row["trace_id"].hex())) / 1000 for row in rows]
    size = f"{latest / 1e6:.2g}M"
    yield Figure(f"an event by its id, at {size}", "ms", floor)
    yield Figure(f"events_for_trace, at {size}", "ms", ours)
    tail = [timed(partial(ledger.tail, latest - 1000)) / 1000 for _ in range(options.rounds)]
    yield Figure(f"tail of 1,000 events, at {size}", "ms", tail)


def put(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """What a producer pays for handing over an event, and with the journal on."""
    calls, size = Calls(), 2000
    figures: dict[str, list[float]] = {name: [] for name in ("made", "put", "queue", "kept", "begun", "written")}
    queue: SimpleQueue[Entry] = SimpleQueue()
    with Ledger(folder / "off.db", journal=False) as off, Ledger(folder / "on.db") as on:
        for number in range(4 * options.rounds + 1):
            records = [calls.record() for _ in range(size)]
            notes = [beginning(record, 1_000_000) for record in records]
            gc.collect()
            gc.disable()
            found = {"begun": timed(partial(begin, on, records, notes), size)}
            found["made"] = timed(lambda made=records: each(settlement, made), size)
            entries = [settlement(record) for record in records]
            found |= {"queue": timed(partial(each, queue.put, entries), size)}
            for name, ledger in (("put", off), ("kept", on)) if number % 2 else (("kept", on), ("put", off)):
                with ledger.writer.store_lock:
                    found[name] = timed(partial(each, ledger.writer.put, entries), size)
                ledger.flush(60)
            found["written"] = bare_writes(folder / "bare.journal", entries)
            gc.enable()
            if number:
                each(lambda name, found=found: figures[name].append(found[name]), figures)
    journal = [kept - without for kept, without in zip(figures["kept"], figures["put"], strict=True)]
    together = [a + b for a, b in zip(journal, figures["begun"], strict=True)]
    yield Figure("an Entry from the record of a call", "us", figures["made"])
    yield Figure("put without a journal / SimpleQueue.put", "us", figures["put"], figures["queue"], 5.0)
    yield Figure("the journal in put / os.write of such a line", "us", journal, figures["written"])
    yield Figure("the journal in begin / os.write of such a line", "us", figures["begun"], figures["written"])
    yield Figure("the journal of a settled call, together", "us", together, goal=8)


def begin(ledger: Ledger, records: list[CallRecord], notes: list) -> None:
    for record, note in zip(records, notes, strict=True):
        record.begun = ledger.writer.begin(note)


def bare_writes(path: Path, entries: list[Entry]) -> float:
    """CPU microseconds of appending a ready line to a file, about as long as that of an event."""
    lines = [repr(entry.row).encode() for entry in entries]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        return timed(lambda: each(partial(os.write, descriptor), lines), len(lines))
    finally:
        os.close(descriptor)
        path.unlink()


def ticker(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """How late a task that wakes every millisecond is, alone, beside a writer at rest, and beside one at work."""
    calls, seconds = Calls(), 1.0 if options.quick else 3.0
    found: dict[str, list[float]] = {"alone": [], "idle": [], "busy": []}
    with Ledger(folder / "ledger.db") as ledger:
        for _ in range(options.rounds):
            ready = iter(calls.entries(int(seconds * 5000) + 5))
            with Ledger(None) as unused:
                found["alone"].append(asyncio.run(lateness_ms(seconds, unused, iter(()))))
            clock = writer_clock(ledger)
            found["idle"].append(asyncio.run(lateness_ms(seconds, ledger, iter(()))))
            before = time.clock_gettime_ns(clock)
            found["busy"].append(asyncio.run(lateness_ms(seconds, ledger, ready)))
            ledger.flush(60)
            found.setdefault("cpu", []).append((time.clock_gettime_ns(clock) - before) / seconds / 5_000_000)
    yield Figure("1 ms ticker, p99 lateness, writer idle / alone", "wall ms", found["idle"], found["alone"])
    yield Figure("1 ms ticker, p99 lateness, 5,000 events/s / alone", "wall ms", found["busy"], found["alone"])
    yield Figure("writer at 5,000 events/s, an event", "us", found["cpu"])


async def lateness_ms(seconds: float, ledger: Ledger, ready: Iterator[Entry]) -> float:
    """The 99th percentile of how late a millisecond's sleep ends; at each tick as many events as are due go out."""
    late, start, given = [], time.perf_counter(), 0
    while (now := time.perf_counter()) - start < seconds:
        due = int((now - start) * 5000)
        for _, entry in zip(range(due - given), ready, strict=False):
            ledger.writer.put(entry)
        given = due
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - before - 0.001) * 1000)
    return statistics.quantiles(late, n=100)[-1]


def holds(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Strict holds: each on disk before its caller goes on, those that come together in one transaction."""
    calls, rows = Calls(), Rows(folder / "rows.db")
    with Ledger(folder / "ledger.db") as ledger:
        clock = writer_clock(ledger)
        for callers, count in ((1, 500), (10, 2000), (100, 5000)):
            rate, syncs, cpu, of_writer, floor = [], [], [], [], []
            for _ in range(options.rounds):
                requests = [hold_request(calls) for _ in range(count)]
                gc.collect()
                syncs.append(syncs_per_s(folder / "synced"))
                used = time.process_time_ns(), time.clock_gettime_ns(clock), time.perf_counter()
                asyncio.run(take(ledger, requests, callers))
                rate.append(count / (time.perf_counter() - used[2]))
                of_writer.append((time.clock_gettime_ns(clock) - used[1]) / 1000 / count)
                cpu.append((time.process_time_ns() - used[0]) / 1000 / count)
                floor.append(rows.copy_last(ledger, count))
            who = f"{callers} async caller{'s' if callers > 1 else ''}"
            yield Figure(f"holds/s, {who} / serial syncs", "1/wall s", rate, syncs)
            yield Figure(f"a hold, whole process, {who} / a row", "us", cpu, floor)
            yield Figure(f"a hold, writer, {who} / a row", "us", of_writer, floor, 2.0 if callers == 100 else None)
    rows.close()


def hold_request(calls: Calls) -> HoldRequest:
    record = calls.record()
    hold_id = event_id_for(record.call_id, "precheck_hold")
    limits = (Limit("daily", "", int(record.started) // 86_400 * 86_400, "USD", 10**18),)

    def describe(grant) -> Posting:
        return hold_event(record, Held(hold_id, limits, grant.amounts, grant.amounts[0]), 0)

    return HoldRequest(hold_id, calls.demand(), limits, describe, partial(withdrawal, record, 0))


async def take(ledger: Ledger, requests: list[HoldRequest], callers: int) -> None:
    loop = asyncio.get_running_loop()
    left = iter(requests)

    async def caller():
        for request in left:
            await ledger.writer.ask(request, loop=loop).wait_async()

    await asyncio.gather(*(caller() for _ in range(callers)))


def syncs_per_s(path: Path, count: int = 300) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    before = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, b"x" * 600)
        os.fdatasync(descriptor)
    os.close(descriptor)
    return count / (time.perf_counter() - before)


def recovery(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """What the next process pays for an event that a killed one left in its journal."""
    logging.getLogger("tollspan.ledger").setLevel(logging.ERROR)  # it warns of what is found, and that is wanted here
    ours, floor, rows = [], [], Rows(folder / "rows.db")
    size = 5_000 if options.quick else 20_000
    for number in range(options.rounds):
        path = folder / f"left-{number}.db"
        process = multiprocessing.get_context("spawn").Process(target=leave_a_journal, args=(path, size))
        process.start()
        process.join()
        with Ledger(path) as ledger:
            ledger.store.query("SELECT 1")
            found = []
            ours.append(timed(lambda ledger=ledger, found=found: found.append(ledger.recover()), size))
            assert found[0].events == size, f"{found[0].events} of {size} events came back"
            floor.append(rows.copy_last(ledger, size))
    rows.close()
    yield Figure("recovery, an event of a journal / a row", "us", ours, floor)


def leave_a_journal(path: Path, size: int) -> None:
    """Be killed before anything is written."""
    ledger = Ledger(path, queue_limit=size)
    with ledger.writer.store_lock:
        for entry in Calls().entries(size):
            ledger.writer.put(entry)
        os._exit(0)


MEASUREMENTS = {
    "growth": growth,  # first: it looks at the memory of the process
    "writer": writer,
    "put": put,
    "ticker": ticker,
    "holds": holds,
    "recovery": recovery,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--quick", action="store_true", help="300,000 rows and few rounds: less than a minute")
    arguments.add_argument("--only", default=",".join(MEASUREMENTS), metavar="NAME,...")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    if unknown := set(options.only.split(",")) - set(MEASUREMENTS):
        arguments.error(f"{', '.join(sorted(unknown))}: there is {', '.join(MEASUREMENTS)}")
    if options.quick:
        options.rows, options.rounds = min(options.rows, 300_000), min(options.rounds, 3)
    if not options.json:
        print(f"{'':<52}{'':<10}{'ours':<26}{'floor':<26}{'ours / floor':<22}goal", flush=True)
    results = {figure.name: figure.summary() for name in options.only.split(",") for figure in measured(name, options)}
    print(json.dumps(results, indent=1) if options.json else "medians of the rounds, quartiles in parentheses")


def measured(name: str, options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="tollspan-benchmark-") as folder:
        for figure in MEASUREMENTS[name](Path(folder), options):
            if not options.json:
                print(figure.line(), flush=True)
            yield figure


if __name__ == "__main__":
    main()
