"""Disks that are full, slow, read-only or broken, files that somebody keeps locked or takes away, clocks that step.

Whatever happens, no producer is held up, the writer's thread goes on, failures are counted, and every event is in the
ledger once the fault is over. TOLLSPAN_TEST_LOAD_S is how many seconds the test under load takes.
"""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from errno import EIO, ENOSPC, EROFS
from pathlib import Path

import openai
import pytest
from afflicted import TABLE_BYTES, load, written
from crash_samples import BILLED, a_hold, a_limit, commit, until

from tollspan.budget import BudgetExceeded, budget
from tollspan.console._provider import Answer, LocalProvider
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument, uninstrument
from tollspan.ledger import Ledger, LedgerError, LedgerUnavailable, to_nano
from tollspan.ledger._filelock import FileLock

LOAD_S = float(os.environ.get("TOLLSPAN_TEST_LOAD_S", "3"))
SCRIPT = Path(__file__).with_name("afflicted.py")
SHIM = Path(__file__).with_name("faults.c")
WELL = {"lost": 0, "twice": 0, "differences": 0, "last_error": None, "thread_alive": True}


def started(name, *arguments, **environ):
    """A process that runs one function of afflicted.py."""
    command = [sys.executable, SCRIPT, name, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environ)


def report(process):
    """What a function of afflicted.py saw."""
    text, _ = process.communicate(timeout=100 + LOAD_S)
    assert process.returncode == 0
    return json.loads(text)


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The library that makes disk and clock fail."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler (cc): system calls are made to fail by a preloaded library")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return library


@pytest.fixture
def afflicted(shim, tmp_path):
    """Run a function of afflicted.py on a new ledger, with the library preloaded; gives back what it saw."""

    def run(name, *arguments):
        table = tmp_path / "faults"
        table.write_bytes(bytes(TABLE_BYTES))
        return report(started(name, tmp_path / "ledger.db", *arguments, LD_PRELOAD=str(shim), FAULTS=str(table)))

    return run


@pytest.fixture(name="brief")
def _brief(tmp_path):
    """A ledger that gives up on a locked file after 100 ms."""
    with Ledger(tmp_path / "brief.db", busy_timeout_ms=100) as ledger:
        ledger.append(commit())
        yield ledger


def ids(ledger):
    return [event.event_id for event in ledger.events]


def assert_all_there(ledger, events):
    """Each event is in the ledger once, and its balances are what the log says."""
    assert ledger.flush(20)
    stored = ids(ledger)
    assert [event.event_id for event in events if stored.count(event.event_id) != 1] == []
    assert ledger.verify() == []
    assert ledger.writer.counts.last_error is None


# ---- disks


@pytest.mark.parametrize("error", [EIO, EROFS, ENOSPC], ids=["broken", "read-only", "full"])
@pytest.mark.parametrize("field", ["database writes", "database syncs"])
@pytest.mark.parametrize("times", [1, 2, 5, 1 << 40])
def test_events_outlast_a_disk_that_fails(afflicted, field, times, error):
    """However often the disk refuses to write or to sync, all events arrive, and no hold is left that was refused."""
    found = afflicted("disk_errors", field, times, error)
    assert found.pop("failures") >= 1
    assert (found.pop("unreachable") == 20) == (times > 20)
    assert found == WELL | {"still_unreachable": 0, "held_too_much": 0, "open_holds": 0}


def test_a_disk_that_stands_still_holds_up_no_producer(afflicted):
    """While a sync does not come back a thousand events are enqueued, no hold is granted, and later all is there."""
    found = afflicted("standing_disk")
    assert found == WELL | {"standing": 1, "answered": False, "granted": [True, True], "main_syncs": 0, "failures": 0}


def test_a_slow_disk_is_shared_by_the_holds_that_wait_for_it(afflicted):
    """With syncs that take 5 ms more, holds asked for at once share them, and no caller's thread does any."""
    found = afflicted("slow_disk", 5000)
    assert 0 < found.pop("syncs") < 160 / 2
    assert found == WELL | {"granted": 160, "main_syncs": 0, "failures": 0}


def test_events_outlast_files_that_may_not_grow(tmp_path):
    """Where neither the ledger nor the journal can grow events wait in memory, which is counted, and then arrive."""
    found = report(started("file_size_limit", tmp_path / "ledger.db"))
    assert found.pop("failures") >= 1
    assert found.pop("journal_failures") >= 1
    assert found == WELL | {"unreachable": 1}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB of the test's own, mounted at this folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("needs Linux and root: a file system is mounted")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("this system does not let us mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def filled(folder):
    """A file that takes all the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def test_events_outlast_a_full_disk(small_disk):
    """On a full disk holds are refused and events wait; when there is room again they arrive, in order."""
    with Ledger(small_disk / "ledger.db") as ledger:
        ledger.append(commit())
        ballast = filled(small_disk)
        events = written(ledger, 3000)
        until(lambda: ledger.writer.counts.failures)
        with pytest.raises(LedgerUnavailable, match="disk"):
            ledger.writer.ask(a_hold(a_limit(1000))).wait(20)
        assert ledger.writer.pending >= 3000
        ballast.unlink()
        assert_all_there(ledger, events)
        commits = [event.event_id for event in ledger.events if event.event_type == "commit"]
        assert commits[1:] == [event.event_id for event in events]


def test_events_outlast_a_disk_that_is_read_only(small_disk):
    """While the file system is mounted read-only events wait in memory; when it is writable again they arrive."""
    with Ledger(small_disk / "ledger.db") as ledger:
        ledger.append(commit())
        ledger.close()  # no system lets go of a disk on which a file is open for writing
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        events = written(ledger, 1000)
        until(lambda: ledger.writer.counts.failures)
        with pytest.raises(LedgerUnavailable, match="writable"):
            ledger.append(commit())
        assert ledger.writer.journal.failures
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert_all_there(ledger, events)


# ---- files that somebody else keeps, takes away or spoils


@contextmanager
def database_locked(path):
    """Another program that keeps everyone from writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def sidecar_locked(path):
    """Somebody of ours who stands still in the middle of a write."""
    with FileLock(path.with_name(path.name + "-lock")):
        yield


LOCKS = pytest.mark.parametrize("locked", [database_locked, sidecar_locked], ids=["database", "sidecar"])


@LOCKS
def test_producers_go_on_while_the_ledger_is_locked(brief, locked):
    """A thousand events are enqueued while somebody keeps the ledger locked; none is in it before, all are after."""
    thread = brief.writer._thread
    with locked(brief.path):
        events = written(brief, 1000)
        assert brief.writer.pending == 1000
        with closing(sqlite3.connect(brief.path)) as other:
            assert other.execute("SELECT count(*) FROM event").fetchone() == (1,)
    assert_all_there(brief, events)
    assert brief.writer._thread is thread


@LOCKS
@pytest.mark.parametrize("queue_limit", [100_000, 10], ids=["roomy", "narrow"])
def test_what_was_written_at_a_locked_ledger_outlasts_a_kill(tmp_path, locked, queue_limit):
    """A process that is killed while it cannot write leaves its events to the next one, had memory room or not."""
    with Ledger(tmp_path / "ledger.db", busy_timeout_ms=100) as ledger:
        ledger.append(commit())
        with locked(ledger.path):
            process = started("killed_at_the_lock", ledger.path, 3000, queue_limit)
            text, _ = process.communicate(timeout=60)
        left = json.loads(text)
        assert len(left) == 3000
        assert ledger.recover().events == 3000
        assert sorted(ids(ledger)[1:]) == sorted(left)
        assert ledger.verify() == []


def test_events_beyond_the_queue_limit_wait_in_the_journal(tmp_path):
    """Where memory has no room events wait on disk, are counted, and are read back when the ledger can be written."""
    with Ledger(tmp_path / "ledger.db", busy_timeout_ms=100, queue_limit=50) as ledger:
        ledger.append(commit())
        with database_locked(ledger.path):
            events = written(ledger, 1000)
            assert ledger.writer.pending == 1000
            assert ledger.writer.counts.spilled >= 500
        assert_all_there(ledger, events)
        assert ledger.writer.counts.lost == 0


def test_events_beyond_the_queue_limit_are_counted_as_lost_without_a_journal(tmp_path, caplog):
    """Without a journal there is a limit to what can wait; what is beyond it is lost loudly, to the last one."""
    with Ledger(tmp_path / "ledger.db", busy_timeout_ms=100, queue_limit=50, journal=False) as ledger:
        ledger.append(commit())
        with database_locked(ledger.path):
            events = written(ledger, 1000)
            lost = ledger.writer.counts.lost
            assert lost >= 500
        assert ledger.flush(20)
        assert len(ids(ledger)) == 1 + len(events) - lost
    assert "events are lost" in caplog.text


def test_a_reader_who_never_ends_keeps_nobody_from_writing(brief):
    """Another program's long read sees its old state, and everything is written meanwhile."""
    with closing(sqlite3.connect(brief.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM event").fetchone() == (1,)
        events = written(brief, 1000)
        assert brief.flush(20)
        assert reader.execute("SELECT count(*) FROM event").fetchone() == (1,)
    assert_all_there(brief, events)
    assert brief.writer.counts.failures == 0


def removed(path):
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)


def replaced(path):
    removed(path)
    with Ledger(path) as another:
        another.append(commit())


@pytest.mark.parametrize("happens", [removed, lambda path: path.unlink(), replaced], ids=["all", "one", "replaced"])
def test_events_go_to_the_file_of_that_name(brief, happens):
    """When somebody deletes or replaces the ledger under us, what is written then is in the file of that name."""
    happens(brief.path)
    events = written(brief, 10)
    assert brief.flush(20)
    last = commit()
    brief.append(last)
    with Ledger(brief.path) as other:
        assert_all_there(other, [*events, last])


def test_events_outlast_a_ledger_that_is_damaged(brief, caplog):
    """Where pages of the file are garbage events wait, with the reason in the log; in a new file all arrive."""
    for _ in range(20):
        brief.append(commit(reason="x" * 3000))
    brief.close()
    with brief.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"garbage " * ((brief.path.stat().st_size - 4096) // 8))
    events = written(brief, 300)
    until(lambda: brief.writer.counts.failures)
    with pytest.raises(LedgerUnavailable, match="damaged"):
        brief.append(commit())
    with pytest.raises(LedgerError, match="damaged"):
        brief.close()
    brief.path.rename(brief.path.with_name("away"))
    assert_all_there(brief, events)
    assert "damaged" in caplog.text


# ---- journals


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """The owners of a ledger, one of them killed before any event of its journal was stored; and the ids of those."""
    path = tmp_path_factory.mktemp("left") / "ledger.db"
    with sidecar_locked(path):
        text, _ = started("killed_at_the_lock", path, 50, 100_000).communicate(timeout=60)
    return path.with_name("ledger.db-owners"), json.loads(text)


@pytest.fixture
def damaged(left_behind, tmp_path):
    """A copy of that ledger whose journal somebody has changed: `damaged(change)` opens it; a change gets its lines.

    The first line is the header. The lines come and go without their line breaks.
    """

    def damage(change, name="damaged.db"):
        folder = tmp_path / f"{name}-owners"
        shutil.copytree(left_behind[0], folder)
        (journal,) = folder.glob("*.journal")
        lines = [line for line in journal.read_bytes().split(b"\n") if line]
        assert len(lines) == 1 + len(left_behind[1])
        journal.write_bytes(b"".join(b"\n%b\n" % line for line in change(lines)))
        return Ledger(tmp_path / name), left_behind[1]

    return damage


def framed(body):
    return b"%08x %08x %b" % (len(body), zlib.crc32(body), body)


def flipped(line, place):
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


DAMAGES = {
    "nothing": (lambda lines: lines, 0, 0),
    "torn last line": (lambda lines: [*lines[:-1], lines[-1][:-9]], 1, 1),
    "flipped bit": (lambda lines: [*lines[:9], flipped(lines[9], 40), *lines[10:]], 1, 1),
    "flipped bit in the header": (lambda lines: [flipped(lines[0], 30), *lines[1:]], 0, 1),
    "flipped line break": (lambda lines: [*lines[:9], lines[9] + b"\x0b" + lines[10], *lines[11:]], 2, 1),
    "malformed lines": (lambda lines: [*lines[:9], b"no frame", b"\xff", b"", *lines[9:]], 0, 2),
    "sound frame, no JSON": (lambda lines: [*lines[:9], framed(b"{"), *lines[9:]], 0, 1),
    "sound frame, no event": (lambda lines: [*lines[:9], framed(b"7"), framed(b"[]"), framed(b"{}"), *lines[9:]], 0, 3),
    "no line at all": (lambda lines: [], 50, 0),
    "a zeroed block": (lambda lines: [*lines[:-1], bytes(4096)], 1, 1),
}


@pytest.mark.parametrize(("change", "lost", "wrong"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_journal_loses_only_its_damaged_lines(damaged, caplog, change, lost, wrong):
    """All sound lines are stored; the damaged ones are counted and logged, and their file is kept for people."""
    ledger, left = damaged(change)
    with ledger:
        found = ledger.recover()
        assert (found.events, found.damaged) == (50 - lost, wrong)
        assert set(ids(ledger)) <= set(left)
        assert ledger.verify() == []
        aside = list(ledger.path.with_name("damaged.db-owners").glob("*.aside"))
    assert len(aside) == bool(wrong)
    assert all(path.name in caplog.text for path in aside)


def test_a_journal_of_a_foreign_version_is_kept(damaged, caplog):
    """Lines that a version to come has written are not guessed at: their file is set aside, and the log names it."""
    ledger, _ = damaged(lambda lines: [framed(b'{"tollspan_journal":99,"columns":[]}'), *lines[1:]])
    with ledger:
        assert ledger.recover().events == 0
        (aside,) = ledger.path.with_name("damaged.db-owners").glob("*.aside")
    assert aside.name in caplog.text
    assert len([line for line in aside.read_bytes().split(b"\n") if line]) == 51


def test_no_single_damaged_bit_passes_for_another_event(damaged):
    """Whichever bit is flipped, at most two lines are lost, and what is stored is as it was written."""
    ledger, left = damaged(lambda lines: lines)
    with ledger:
        sound = {event.event_id: replace(event, offset=None) for event in ledger.events}
    assert set(sound) == set(left)
    dice = random.Random("bits")

    def flip(lines):
        data = b"\n".join(lines)
        place = dice.randrange(len(lines[0]), len(data))
        return [data[:place] + bytes([data[place] ^ (1 << dice.randrange(8))]) + data[place + 1 :]]

    for number in range(20):
        ledger, _ = damaged(flip, f"flip-{number}.db")
        with ledger:
            found = ledger.recover()
            assert found.events >= 48
            assert found.damaged or found.events == 50, "a lost line has to be counted"
            stored = [replace(event, offset=None) for event in ledger.events]
            assert stored == [sound[event.event_id] for event in stored]


def test_a_damaged_line_of_its_own_journal_is_reported(tmp_path, caplog):
    """Where an event waited in the journal alone and its line is damaged, the others arrive and the file is kept."""
    with Ledger(tmp_path / "ledger.db", busy_timeout_ms=100, queue_limit=50) as ledger:
        ledger.append(commit())
        with database_locked(ledger.path):
            written(ledger, 1000)
            (journal,) = ledger.path.with_name("ledger.db-owners").glob("*.journal")
            text = journal.read_bytes()
            journal.write_bytes(flipped(text, len(text) - 200))
        assert ledger.flush(20)
        assert len(ids(ledger)) == 1000
        assert ledger.verify() == []
    (aside,) = ledger.path.with_name("ledger.db-owners").glob("*.aside")
    assert aside.name.removesuffix(".aside") in caplog.text


def test_a_journal_that_cannot_be_written_is_counted(afflicted):
    """A write that the disk cuts short is counted with its reason; its event waits in memory, and all arrive."""
    found = afflicted("torn_journal")
    assert "the journal cannot be written" in found.pop("error")
    assert found == WELL | {"journal_failures": 1, "failures": 0}


# ---- clocks


@pytest.fixture
def provider():
    """A provider whose every answer is billed the same."""
    answer = Answer(output_tokens=30, input_tokens=20)
    with LocalProvider(answer=lambda _: answer, price=(Decimal("2.5"), Decimal(10))) as running:
        yield running


def test_a_clock_that_steps_back_mixes_up_nothing(afflicted, provider):
    """Offsets grow all the same, each hour keeps the spend of its own calls, and a reset is never in the past."""
    found = afflicted("stepping_clock", provider.openai_url, 1_900_000_800 + 1800)
    assert found.pop("stamps_grow") is False, "the clock did not step"
    calls = found.pop("calls")
    assert [some["admitted"] for some in calls] == [3, 3, 0]
    assert all(0 < left <= 3600 for some in calls for left in some["resets"])
    assert found == WELL | {"offsets_grow": True, "failures": 0}


# ---- load


@pytest.mark.timeout(120 + 3 * LOAD_S)
def test_under_load_check_balance_and_log_stay_equal(tmp_path):
    """While eight threads here and two other processes call, what was admitted, counted and logged is the same."""
    path = tmp_path / "ledger.db"
    others = [started("load", path, LOAD_S, 2) for _ in range(2)]
    done = [load(path, LOAD_S, 8), *map(report, others)]
    held, cancelled, plain = (sum(one[kind] for one in done) for kind in ("held", "cancelled", "plain"))
    with Ledger(path) as ledger:
        types = [event.event_type for event in ledger.events]
        assert types.count("commit") == held + plain
        assert types.count("cancel") == cancelled
        assert types.count("precheck_hold") == held + cancelled
        balance = ledger.balance(("load [tokens]", "", 0))
        assert (balance.spent, balance.held) == (BILLED * held, 0)
        assert ledger.verify() == []
        assert held > LOAD_S


async def test_a_hundred_calls_at_once_leave_check_balance_and_log_equal(provider):
    """Of a hundred calls at once under a tight limit, those that were let through are what was billed and counted."""
    instrument()
    try:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="local", max_retries=0) as client:

            async def call(number):
                async with budget("0.02 USD / month", name="tight"):
                    return await client.chat.completions.create(
                        model="gpt-4o", max_tokens=50, messages=[{"role": "user", "content": f"hello {number}"}]
                    )

            answers = await asyncio.gather(*map(call, range(100)), return_exceptions=True)
    finally:
        uninstrument()
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(error, BudgetExceeded) for error in refused)
    admitted = 100 - len(refused)
    bill = to_nano(provider.billed_usd())
    ledger = pipeline().ledger
    commits = [event for event in ledger.events if event.event_type == "commit"]
    assert 0 < admitted < 100
    assert len(provider.billed) == len(commits) == admitted
    assert sum(to_nano(event.cost_actual_usd) for event in commits) == bill
    (key,) = {(c.budget, c.scope, c.window_start) for event in commits for c in event.charges}
    balance = ledger.balance(key)
    assert (balance.spent, balance.held) == (bill, 0)
    assert ledger.verify() == []
