"""The ledger that a command reads, which it must never make: only applications do."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tollspan.ledger import Ledger, LedgerError, Settings, load_settings, open_ledger

_MEMORY = ":memory:"


class NoLedger(LedgerError):  # noqa: N818 - named for the state, as its kin are
    """There is no ledger to read."""


def settings_for(url: str | None) -> Settings:
    """The settings, with the ledger of `--ledger` where it was given. Raises ConfigurationError."""
    return load_settings(ledger=url)


def ledger_path(settings: Settings) -> Path | None:
    """The absolute path of the configured ledger; None for one in memory."""
    location = settings.ledger.removeprefix("sqlite:///")
    return None if location == _MEMORY else Path(location).absolute()


def existing_ledger(settings: Settings) -> Ledger:
    """The configured ledger, opened. Raises NoLedger where there is none; a file of another kind is left untouched."""
    path = ledger_path(settings)
    if path is None:
        raise NoLedger("the configured ledger is in memory, where no other process can read it: name a file")
    try:
        there = path.exists()
    except OSError as error:
        raise NoLedger(f"{path} cannot be reached: {error.strerror}") from error
    tables = _tables(path) if there else set()
    if not tables:
        raise NoLedger(
            f"no ledger at {path} yet: run an application under `opentelemetry-instrument` first, or `tollspan demo`"
        )
    if not {"event", "ledger_fact"} <= tables:
        raise NoLedger(f"{path} is a database, but no ledger: set TOLLSPAN_LEDGER to another file")
    return open_ledger(settings=settings)


def _tables(path: Path) -> set[str]:
    """The tables of a database; looked at without opening it as a ledger, because that would make the missing ones."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise NoLedger(f"{path} cannot be read as a ledger: {error}; set TOLLSPAN_LEDGER to another file") from error
