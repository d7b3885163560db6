"""What a strict hold costs on a disk that takes its time: each `fsync` a millisecond longer than on this machine.

    python benchmarks/holds.py [--delay-ms 1] [--rows 1000000] [--quick] [--only alone,together,...] [--json]

`slow_fsync.c` is compiled with cc and preloaded; without a C compiler, or Linux, the benchmark says so and is skipped.
`a sync` is an append of 600 bytes and `fdatasync`, in the same run. Wall times are of use only where nothing else runs.
A hold that comes back sooner than a sync can end was not on disk: then the exit status is 1. Goals stand beside the
figures, and nothing fails where one is missed.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ledger import SMALL, Calls, Figure, Rows, grow, hold_request, take, writer_clock

from tollspan.budget import CallIntent, aadmit, admit, budget
from tollspan.exporter import CallRecord, Pipeline, use_pipeline
from tollspan.ledger import Entry, Ledger, Limit, PriceBook, load_settings, new_call_id

SHIM, DELAY = Path(__file__).with_name("slow_fsync.c"), "SLOW_FSYNC_US"
FEW = 10_000
ONE_AT_A_TIME = (Limit("one at a time", "", 0, "requests", 1, waits=True),)
PATIENCE_S = 60


class NotDurableError(Exception):
    """A hold was there before a sync could end."""


class AtLeast(Figure):
    """A figure whose goal is a lower bound."""

    def summary(self):
        found = super().summary()
        return found | {"met": (found["ratio"] or found["ours"])["median"] >= self.goal}

    def line(self):
        return super().line().replace("<=", ">=")


# ---- what is measured


class Holds:
    """Holds straight from the writer, without the admission before them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._calls = ledger, Calls()

    def requests(self, count):
        return [hold_request(self._calls) for _ in range(count)]

    def from_a_thread(self, count: int) -> list[float]:
        """Milliseconds of each, one after the other."""
        ask = self._ledger.writer.ask
        return [lapse_ms(lambda r=r: ask(r).wait(PATIENCE_S)) for r in self.requests(count)]

    async def from_a_task(self, count: int) -> list[float]:
        loop, found = asyncio.get_running_loop(), []
        for request in self.requests(count):
            before = time.perf_counter()
            await self._ledger.writer.ask(request, loop=loop).wait_async()
            found.append((time.perf_counter() - before) * 1000)
        return found

    def from_tasks(self, count: int, tasks: int) -> None:
        asyncio.run(take(self._ledger, self.requests(count), tasks))


class Admissions:
    """The whole admission of a call: which budgets match it, what it may cost, and its hold."""

    def __init__(self, ledger: Ledger) -> None:
        use_pipeline(Pipeline(load_settings(environ={}, directory=ledger.path.parent), ledger))
        card = PriceBook().resolve(provider="openai", model="gpt-4o-mini", at=time.time())
        self._intent = CallIntent(price=card, input_tokens=300, max_output_tokens=1000)

    def _record(self):
        asked = {"provider": "openai", "request_model": "gpt-4o-mini", "dimensions": {"user": "ada"}}
        return CallRecord(call_id=new_call_id(), started=time.time(), operation="chat", **asked)

    def from_a_thread(self, count: int) -> list[float]:
        with budget("1000000 USD / total", name="holds"):
            return [lapse_ms(lambda: admit(self._record(), self._intent)) for _ in range(count)]

    def from_tasks(self, count: int, tasks: int) -> None:
        async def caller():
            async with budget("1000000 USD / total", name="holds"):
                for _ in left:
                    await aadmit(self._record(), self._intent)

        async def callers():
            await asyncio.gather(*(caller() for _ in range(tasks)))

        left = iter(range(count))
        asyncio.run(callers())


def lapse_ms(action) -> float:
    before = time.perf_counter()
    action()
    return (time.perf_counter() - before) * 1000


def durable(found: list[float]) -> list[float]:
    """Milliseconds of holds, taken one after the other. Raises NotDurableError where one is shorter than the delay."""
    if min(found) < delay_ms():
        raise NotDurableError(f"a hold took {min(found):.3f} ms, and a sync takes {delay_ms():g} ms and more")
    return found


def delay_ms() -> float:
    return int(os.environ[DELAY]) / 1000


def sync_ms(folder: Path, count: int) -> list[float]:
    """Milliseconds of appends that are on disk when they end, one after the other."""
    descriptor = os.open(folder / "synced", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        return [lapse_ms(lambda: (os.write(descriptor, b"x" * 600), os.fdatasync(descriptor))) for _ in range(count)]
    finally:
        os.close(descriptor)


# ---- the measurements, by the names of `--only`


def alone(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """One caller: the time of a hold beside that of a sync."""
    blocks, found = 6 if options.quick else 20, {name: [] for name in ("sync", "thread", "task", "admit", "late")}
    with Ledger(folder / "holds.db") as one, Ledger(folder / "admissions.db") as other:
        holds, admissions = Holds(one), Admissions(other)
        for number in range(options.rounds + 1):
            times: dict[str, list[float]] = {name: [] for name in ("sync", "thread", "task", "admit")}
            for _ in range(blocks):  # in turns, and so all meet what else the machine does
                times["sync"] += sync_ms(folder, 25)
                times["thread"] += holds.from_a_thread(25)
                times["task"] += asyncio.run(holds.from_a_task(25))
                times["admit"] += admissions.from_a_thread(25)
            if number:  # the first round opens what it needs
                for name, lapses in times.items():
                    found[name].append(statistics.median(durable(lapses)))
                found["late"].append(statistics.quantiles(times["thread"], n=100)[-1])
        use_pipeline(None)
    yield Figure("a hold, one thread, p50 / a sync", "wall ms", found["thread"], found["sync"], 1.3)
    yield Figure("a hold, one task, p50 / a sync", "wall ms", found["task"], found["sync"], 1.3)
    yield Figure("an admission, one thread, p50 / a sync", "wall ms", found["admit"], found["sync"], 1.3)
    yield Figure("a hold, one thread, p99", "wall ms", found["late"])


def together(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """A hundred tasks: those that come while a sync runs share the next one."""
    count, rows = 2000 if options.quick else 10_000, Rows(folder / "rows.db")
    with Ledger(folder / "holds.db") as one, Ledger(folder / "admissions.db") as other:
        for what, asking, ledger in (("a hold", Holds(one), one), ("an admission", Admissions(other), other)):
            clock, rounds = writer_clock(ledger), []
            for _ in range(options.rounds + 1):
                gc.collect()
                sync = statistics.median(sync_ms(folder, 100))
                used = time.perf_counter_ns(), time.clock_gettime_ns(clock), time.process_time_ns()
                asking.from_tasks(count, 100)
                now = time.perf_counter_ns(), time.clock_gettime_ns(clock), time.process_time_ns()
                wall, of_writer, of_all = ((b - a) / 1000 / count for a, b in zip(used, now, strict=True))
                rounds.append((1e6 / wall, 1000 / sync, of_writer, of_all, rows.copy_last(ledger, count)))
            rates, syncs, of_writer, of_all, floor = map(list, zip(*rounds[1:], strict=True))
            yield AtLeast(f"100 tasks, rate of {what} / of a sync", "1/wall s", rates, syncs, 40)
            yield Figure(f"100 tasks, {what}, writer / a row", "us", of_writer, floor, 2.0)
            yield Figure(f"100 tasks, {what}, whole process / a row", "us", of_all, floor)
        use_pipeline(None)
    rows.close()


def processes(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Four processes, each with one caller that takes hold after hold: who waits how long, and how fair it is."""
    seconds = 1.0 if options.quick else 5.0
    found: dict[str, list[float]] = {name: [] for name in ("sync", "each", "p50", "p99", "max", "fair")}
    context = multiprocessing.get_context("spawn")
    for number in range(options.rounds):
        path, ready, results = folder / f"shared-{number}.db", context.Barrier(4), context.SimpleQueue()
        found["sync"].append(statistics.median(sync_ms(folder, 200)))
        several = [context.Process(target=hold_on, args=(path, seconds, ready, results)) for _ in range(4)]
        for process in several:
            process.start()
        by_process = [results.get() for _ in several]
        for process in several:
            process.join()
        waits = durable(sorted(wait for waits in by_process for wait in waits))
        found["each"].append(seconds * 1000 / len(waits))
        found["p50"].append(statistics.median(waits))
        found["p99"].append(statistics.quantiles(waits, n=100)[-1])
        found["max"].append(waits[-1])
        found["fair"].append(min(map(len, by_process)) / max(map(len, by_process)))
    yield Figure("4 processes, wall time over holds / a sync", "wall ms", found["each"], found["sync"])
    yield Figure("4 processes, a hold, p50", "wall ms", found["p50"])
    yield Figure("4 processes, a hold, p99", "wall ms", found["p99"], goal=30)
    yield Figure("4 processes, the longest wait of all", "wall ms", [max(found["max"])], goal=100)
    yield Figure("4 processes, least holds / most holds of one", "of 1", found["fair"])


def hold_on(path: Path, seconds: float, ready, results) -> None:
    """One of several processes: take holds for so long, and hand over how long each took."""
    waits: list[float] = []
    try:
        with Ledger(path) as ledger:
            holds = Holds(ledger)
            holds.from_a_thread(20)
            ready.wait(PATIENCE_S)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                waits += holds.from_a_thread(1)
    finally:
        results.put(waits)


def size(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Whether a hold costs more in a large ledger than in a small one."""
    calls, tasks, count = Calls(), 100, 2000
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ("p50", "p99", "cpu")}
    with Ledger(folder / "large.db") as large, Ledger(folder / "small.db") as small:
        grow(large, writer_clock(large), calls, FEW)
        large.snapshot_to(folder / "small.db")
        grow(large, writer_clock(large), calls, options.rows)
        ledgers = [(ledger, Holds(ledger), writer_clock(ledger)) for ledger in (large, small)]
        for number in range(options.rounds + 1):
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(6):  # in turns, and so both meet what else the machine does
                for which, (_, holds, _) in enumerate(ledgers):
                    times[which].extend(durable(holds.from_a_thread(50)))
            for which, (_, holds, clock) in enumerate(ledgers):
                before = time.clock_gettime_ns(clock)
                holds.from_tasks(count, tasks)
                cpu = (time.clock_gettime_ns(clock) - before) / 1000 / count
                if number:
                    found["cpu"][which].append(cpu)
                    found["p50"][which].append(statistics.median(times[which]))
                    found["p99"][which].append(statistics.quantiles(times[which], n=100)[-1])
    at = f"at {options.rows / 1e6:g}M / at {FEW / 1e6:g}M"
    yield Figure(f"a hold, one thread, p50, {at}", "wall ms", *found["p50"], 1.2)
    yield Figure(f"a hold, one thread, p99, {at}", "wall ms", *found["p99"])
    yield Figure(f"a hold of 100 tasks, writer, {at}", "us", *found["cpu"], 1.2)


def waking(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """From the commit that makes room to the caller that stood in line for it, who has a durable hold by then."""
    dice, times = random.Random(7), 10 if options.quick else 40
    context = multiprocessing.get_context("spawn")
    with Ledger(folder / "line.db") as ledger, ThreadPoolExecutor(1) as pool:
        ours, theirs = context.Pipe()
        other = context.Process(target=stand_in_line, args=(folder / "line.db", theirs), daemon=True)
        other.start()
        ours.recv()
        found: dict[str, list[float]] = {}
        for who in ("thread", "task", "another process"):
            for _ in range(times):
                held = hold_one(ledger)
                if who == "another process":
                    ours.send("wait")
                    ours.recv()
                    waiting = ours
                else:
                    waiting = pool.submit(WAITERS[who], ledger)
                time.sleep(0.05 + dice.random() * 0.04)  # it is in line by now, at any point of its own rounds
                given, committed = watched_give_back(ledger, held)
                woken = waiting.recv() if waiting is ours else waiting.result(PATIENCE_S)
                found.setdefault(who, []).append((woken - committed) * 1000)
                found.setdefault("handed over", []).append((committed - given) * 1000)
        ours.send(None)
        other.join()
    to_disk = found.pop("handed over")
    for who, late in found.items():
        yield Figure(f"commit to waiter, {who}, p50", "wall ms", [statistics.median(late)])
        yield Figure(f"commit to waiter, {who}, longest", "wall ms", [max(late)], goal=50)
    yield Figure("settlement handed over to its commit, p50", "wall ms", [statistics.median(to_disk)])


def hold_one(ledger: Ledger, wait_s: float | None = None):
    """Take the only hold there is room for; `wait_s` seconds in line."""
    request = replace(hold_request(Calls()), limits=ONE_AT_A_TIME)
    ledger.writer.ask(request, wait_s=wait_s).wait(PATIENCE_S)
    return request


def give_back(ledger: Ledger, request) -> None:
    """Settle a hold."""
    ledger.writer.put(Entry(request.withdraw(), request.hold_id))
    ledger.flush(PATIENCE_S)


def watched_give_back(ledger: Ledger, request) -> tuple[float, float]:
    """Settle a hold; when that was handed over, and when it was committed (time.monotonic())."""
    commits, write = [], ledger.store.write

    def noted(entries, *more):
        outcome = write(entries, *more)
        if entries:
            commits.append(time.monotonic())
        return outcome

    ledger.store.write = noted
    given = time.monotonic()
    give_back(ledger, request)
    ledger.store.write = write
    return given, commits[0]  # the waiter's own settlement may be among them, and comes later


def wait_in_thread(ledger: Ledger) -> float:
    held = hold_one(ledger, PATIENCE_S)
    woken = time.monotonic()
    give_back(ledger, held)
    return woken


def wait_in_task(ledger: Ledger) -> float:
    async def wait():
        request = replace(hold_request(Calls()), limits=ONE_AT_A_TIME)
        await ledger.writer.ask(request, wait_s=PATIENCE_S, loop=asyncio.get_running_loop()).wait_async()
        return request, time.monotonic()

    held, woken = asyncio.run(wait())
    give_back(ledger, held)
    return woken


WAITERS = {"thread": wait_in_thread, "task": wait_in_task}


def stand_in_line(path: Path, pipe) -> None:
    """Another process: each time that it is told it stands in line, and says when it went on."""
    with Ledger(path) as ledger:
        wait_in_thread(ledger)  # the first time opens what it needs
        pipe.send("ready")
        while pipe.recv() is not None:
            pipe.send("at once")
            pipe.send(wait_in_thread(ledger))


MEASUREMENTS = {"alone": alone, "together": together, "processes": processes, "waking": waking, "size": size}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--delay-ms", type=float, default=1.0)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--quick", action="store_true", help="100,000 rows and few rounds: less than a minute")
    arguments.add_argument("--only", default=",".join(MEASUREMENTS), metavar="NAME,...")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    if unknown := set(options.only.split(",")) - set(MEASUREMENTS):
        arguments.error(f"{', '.join(sorted(unknown))}: there is {', '.join(MEASUREMENTS)}")
    if DELAY not in os.environ:
        return on_a_slow_disk(options)
    if options.quick:
        options.rows, options.rounds = min(options.rows, SMALL), min(options.rounds, 3)
    try:
        report(options)
    except NotDurableError as error:
        print(f"FAILED: {error}")
        return 1
    return 0


def on_a_slow_disk(options: argparse.Namespace) -> int:
    """Run again with the library preloaded; gives the exit status."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        print("skipped: a disk is made slow by a preloaded library, which needs Linux and a C compiler (cc)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "slow_fsync.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SHIM, "-ldl"], check=True)
        slow = {"LD_PRELOAD": str(library), DELAY: str(round(options.delay_ms * 1000)), "TMPDIR": folder}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TOLLSPAN_")} | slow
        return subprocess.run([sys.executable, *sys.argv], env=environ, check=False).returncode


def report(options: argparse.Namespace) -> None:
    if not options.json:
        print(f"{'':<52}{'':<10}{'ours':<26}{'floor':<26}{'ours / floor':<22}goal", flush=True)
    results = {figure.name: figure.summary() for name in options.only.split(",") for figure in measured(name, options)}
    print(json.dumps(results, indent=1) if options.json else "medians of the rounds, quartiles in parentheses")


def measured(name: str, options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="tollspan-benchmark-") as folder:
        durable(sync_ms(Path(folder), 20))  # or the library had no effect
        for figure in MEASUREMENTS[name](Path(folder), options):
            if not options.json:
                print(figure.line(), flush=True)
            yield figure


if __name__ == "__main__":
    sys.exit(main())
