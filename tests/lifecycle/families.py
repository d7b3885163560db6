"""A family: an application's process and all that come of it, in a folder of their own, and what the ledger kept."""

import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from calling import BUDGET

from tollspan.ledger import Ledger, to_nano

HERE = Path(__file__).parent
PROC = Path("/proc")
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Mode:
    """What the application's rounds consist of, and the settings it runs with; `str` is the test's id."""

    name: str
    kinds: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()

    def __str__(self):
        return self.name

    @property
    def has_journal(self):
        """Whether what is written survives any end."""
        return ("TOLLSPAN_JOURNAL", "false") not in self.settings


EVENTS = Mode("journal", ("event",))
WITHOUT_JOURNAL = Mode("no-journal", ("event",), (("TOLLSPAN_JOURNAL", "false"),))
STRICT = Mode("strict", ("strict",))
UNGUARDED = Mode("unguarded", ("event",), (("TOLLSPAN_FLUSH_ON_SIGTERM", "false"),))
SERVED = Mode("journal", ("call", "event"))
SERVED_WITHOUT_JOURNAL = Mode("no-journal", ("call", "event"), (("TOLLSPAN_JOURNAL", "false"),))
SERVED_STRICT = Mode("strict", ("strict", "event"))
WITHOUT_US = Mode("without-us", ())


def until(condition, what):
    """Wait for what another process is about to do."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"it did not happen: {what}"
        time.sleep(0.002)
    return found


def _stat(path):
    """State, parent and group of a process. One that is dead stays in its group until its new parent looks."""
    with suppress(OSError):
        return path.read_text().rpartition(")")[2].split()[:3]
    return "Z", "", ""


class Family:
    """An application and its children, a process group of their own. Their ledger is opened when they are gone."""

    def __init__(self, folder, provider, mode):
        folder.mkdir()
        self.mode = mode
        self._name = secrets.token_hex(6)
        self._provider = provider
        self._folder = folder
        self._acknowledged = folder / "acknowledged"
        self.ledger_path = folder / "ledger.db"
        self.process = None

    def start(self, *command, pass_fds=(), **environment):
        """Start `python COMMAND`."""
        environment = {
            **os.environ,
            "APP_FAMILY": self._name,
            "APP_KINDS": ",".join(self.mode.kinds),
            "APP_ACKNOWLEDGED": str(self._acknowledged),
            "APP_PROVIDER": self._provider.openai_url,
            "TOLLSPAN_LEDGER": f"sqlite:///{self.ledger_path}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
            "HOME": str(self._folder),
            **dict(self.mode.settings),
            **environment,
        }
        with (self._folder / "stdout").open("wb") as output, (self._folder / "stderr").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                env=environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                pass_fds=pass_fds,
                start_new_session=True,
            )

    def run(self, *command, send=None, after=0, **environment):
        """Start it, send a signal after so many acknowledgements, and wait for the end; gives its exit status."""
        self.start(*command, **environment)
        if send is not None:
            until(lambda: len(self.acknowledged) >= after or self.process.poll() is not None, f"{after} calls")
            self.process.send_signal(send)
        return self.ended()

    def ended(self):
        """Wait until the whole family is gone; gives the exit status of its first process."""
        try:
            status = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end:\n{self.errors}")
        until(lambda: not self._is_alive(), "the end of the last child")
        return status

    def kill(self):
        """End what a failed test has left."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE_S)

    @property
    def acknowledged(self):
        """What has returned to the application, in that order; a line that is cut short is none."""
        text = self._acknowledged.read_text() if self._acknowledged.exists() else ""
        return [line.strip() for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def printed(self):
        """What the family has written to its standard output."""
        return (self._folder / "stdout").read_text()

    @property
    def errors(self):
        """What the family has written to its standard error."""
        return (self._folder / "stderr").read_text()

    def _is_alive(self):
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        states = [state for state, _, group in map(_stat, PROC.glob("[0-9]*/stat")) if group == str(self.process.pid)]
        return not PROC.is_dir() or bool(set(states) - {"Z"})

    def assert_kept(self, at_least):
        """The next process that opens the ledger finds each acknowledged call once, and nothing wrong."""
        names = [name for name in self.acknowledged if name != "handled"]
        assert len(names) >= at_least, self.errors
        with Ledger(self.ledger_path) as ledger:
            commits = [event for event in ledger.events if event.event_type == "commit"]
            assert ledger.verify() == []
            assert ledger.open_holds().calls == 0
            assert ledger.trouble().conflicts == 0
            balance = ledger.balance((BUDGET, "", 0))
        stored = Counter(event.run_id for event in commits)
        lost = [name for name in names if name not in stored]
        assert not lost, f"{len(lost)} of {len(names)} are lost, as {lost[:3]}\n{self.errors}"
        assert {run: times for run, times in stored.items() if times > 1} == {}
        assert [event.run_id for event in commits if event.estimated and event.run_id in names] == []
        self._assert_bills_are_paid(commits, balance)
        with closing(sqlite3.connect(self.ledger_path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        left = [path.name for path in self.ledger_path.with_name("ledger.db-owners").glob("*")]
        assert not left, "somebody who is gone has left something that nobody took over"

    def _assert_bills_are_paid(self, commits, balance):
        """What was billed is there, acknowledged or not; what the budget has spent is what its calls cost."""
        strict = [event for event in commits if event.run_id.startswith("strict-")]
        assert bool(strict) == ("strict" in self.mode.kinds)
        assert (balance.spent, balance.held) == (sum(to_nano(event.spend_usd) for event in strict), 0)
        if self.mode.has_journal:
            runs = {event.run_id for event in commits}
            sent = [request.headers["x-local-provider-key"] for request in tuple(self._provider.requests)]
            assert [name for name in sent if self._name in name and name not in runs] == []
