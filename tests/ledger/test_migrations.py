"""Migrations: a file of an older tollspan is brought up to date once, whole, whoever opens it and however it ends."""

import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from decimal import Decimal

import pytest
from samples import commit, script

from tollspan.ledger import Charge, Ledger, LedgerEvent, LedgerUnavailable, new_call_id
from tollspan.ledger import _migrations as migrations_module
from tollspan.ledger._migrations import LATEST, migrate, schema_version
from tollspan.ledger._owners import owners_folder
from tollspan.ledger._postings import posting_of
from tollspan.ledger._rows import COLUMNS, to_row


def events_of_the_first_version():
    """Events as the first version wrote them: costs that are alike and costs that are not, all kinds, odd texts."""
    rates = [None, {"input": "2.5 USD / 1M"}, {"input": "2.5 USD / 1M"}, {"output": "10 USD / 1M"}]
    charge = Charge(budget="b", scope="user=ü", window_start=3600, amount=12)
    priced = [
        commit(
            "0.01", model=f"m{n}", cost_source="prices", cost_rates=rates[n % 4], charges=(charge,), tags={"n": "a\n'"}
        )
        for n in range(40)
    ]
    call_id = new_call_id().hex()
    held = LedgerEvent(event_type="precheck_hold", call_id=call_id, cost_est_usd=Decimal("0.5"), run_id="r")
    others = [LedgerEvent(event_type=kind, call_id=call_id, trace_id="ab" * 16) for kind in ("cancel", "wait", "retry")]
    return [*priced, commit(None, reason="no price"), held, *others]


@pytest.fixture(name="old")
def _old(tmp_path, monkeypatch):
    """A file of the first version with events, a hidden part, and balances; and the events, by offset."""
    path, events = tmp_path / "old.db", events_of_the_first_version()
    columns = [name for name in COLUMNS if name != "response_id"]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations_module, "LATEST", 1)
        migrate(connection, where="here")
        connection.execute("PRAGMA journal_mode = WAL")
        for event in events:
            row = dict(zip(COLUMNS, to_row(posting_of(event)), strict=True))
            marks = ", ".join("?" * len(columns))
            values = [row[name] for name in columns]
            connection.execute(f"INSERT INTO event ({', '.join(columns)}) VALUES ({marks})", values)
        connection.execute("INSERT INTO balance VALUES ('b', 'user=ü', 3600, 480, 0, 0)")
        day = int(events[0].timestamp) // 86_400 * 86_400
        connection.execute("INSERT INTO balance VALUES ('', '', ?, 400000000, 0, 0)", (day,))
        assert schema_version(connection) == 1
    return path, [replace(event, offset=n) for n, event in enumerate(events, start=1)]


def columns_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return schema_version(connection), [row[1] for row in connection.execute("PRAGMA table_info(event)")]


def applied(path):
    """The migrations that a file says were done to it."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM _sqlite_migrations ORDER BY name")]


def test_a_file_of_the_first_version_keeps_every_event_as_it_was(old):
    """After the migration every event is equal in every field, at its offset, and balances still equal the log."""
    path, events = old
    with Ledger(path) as ledger:
        assert list(ledger.events) == events
        assert ledger.verify() == []
        assert len(ledger.store.query("SELECT * FROM pricing")) == 4
        assert ledger.append(events[3]) == 4
        assert ledger.append(commit(response_id="resp_1")) == len(events) + 1
        assert ledger.tail(len(events))[0].response_id == "resp_1"
    version, columns = columns_of(path)
    assert (version, sorted(columns)) == (LATEST, columns_of_a_new_file(path.with_name("new.db")))


def columns_of_a_new_file(path):
    with Ledger(path) as ledger:
        ledger.latest_offset()
    return sorted(columns_of(path)[1])


OPEN = """
import sys
from tollspan.ledger import Ledger, _migrations
step, done = _migrations._step, []
def counted(number):
    inner = step(number)
    def run(database):
        done.append(number)
        inner(database)
    run.__name__ = inner.__name__
    return run
_migrations._step = counted
print("ready", flush=True)
sys.stdin.readline()
with Ledger(sys.argv[1]) as ledger:
    print(len(list(ledger.events)), done, flush=True)
"""


def test_of_many_that_open_an_old_file_at_once_one_migrates_it(old):
    """Eight processes open it at the same moment: each reads every event, and exactly one has migrated it."""
    path, events = old
    processes = [script(OPEN, path) for _ in range(8)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = sorted(process.communicate(timeout=60)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert told == sorted([f"{len(events)} []\n"] * 7 + [f"{len(events)} [2, 3]\n"])
    assert applied(path) == ["0001", "0002", "0003"]


DIE = """
import os, signal, sys
from tollspan.ledger import Ledger, _migrations
count = int(sys.argv[2])
statements = _migrations._statements
def until_death(script):
    yield from statements(script)[:count]
    os.kill(os.getpid(), signal.SIGKILL)
_migrations._statements = until_death
Ledger(sys.argv[1]).latest_offset()
"""


@pytest.mark.parametrize("statements", [0, 1, 4, 6, 99])
def test_a_migration_that_is_killed_is_done_again(old, statements):
    """Wherever its process is killed, the file is as it was before, and the next one who opens it migrates it."""
    path, events = old
    before = columns_of(path)
    with script(DIE, path, statements) as process:
        assert process.wait(60) == -signal.SIGKILL
    assert (columns_of(path), applied(path)) == (before, ["0001"])
    with Ledger(path) as ledger:
        assert list(ledger.events) == events
        assert ledger.verify() == []
    assert applied(path) == ["0001", "0002", "0003"]


@pytest.mark.parametrize("statements", [0, 3, 99])
def test_a_new_file_whose_first_migration_is_killed_is_usable(tmp_path, statements):
    """A process that is killed while it makes a new ledger leaves nothing that keeps the next one from using it."""
    path = tmp_path / "new.db"
    with script(DIE, path, statements) as process:
        assert process.wait(60) == -signal.SIGKILL
    with Ledger(path) as ledger:
        assert ledger.append(commit()) == 1
    assert applied(path) == ["0001", "0002", "0003"]


def test_the_schema_of_a_newer_version_is_refused_and_left_alone(old):
    """A file of a newer tollspan is named with what to do, and not a byte of it changes."""
    path, _ = old
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {LATEST + 1}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(
        LedgerUnavailable, match=f"newer tollspan.*schema {LATEST + 1}, this one knows {LATEST}.*upgrade"
    ):
        Ledger(path).latest_offset()
    assert path.read_bytes() == before
    assert not owners_folder(path).exists()
