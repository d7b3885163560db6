"""Numbered migrations of the SQLite ledger. `PRAGMA user_version` tells the version of a file."""

import sqlite3
from collections.abc import Callable
from importlib import resources

from ._errors import LedgerUnavailable

LATEST = 3


def migrate(connection: sqlite3.Connection, *, where: str) -> None:
    """Bring the schema up to LATEST; the caller holds the ledger's file lock.

    Raises LedgerUnavailable for a newer schema and for the database of another program; neither is changed.
    """
    version = schema_version(connection)
    if _is_foreign(connection):
        raise LedgerUnavailable(f"{where} is the database of another program; set TOLLSPAN_LEDGER to another file")
    if version > LATEST:
        raise LedgerUnavailable(
            f"{where} was written by a newer tollspan (schema {version}, this one knows {LATEST}); "
            "upgrade tollspan, or set TOLLSPAN_LEDGER to another file"
        )
    if version < LATEST:
        _apply(connection)


def schema_version(connection: sqlite3.Connection) -> int:
    """The schema's version; 0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_foreign(connection: sqlite3.Connection) -> bool:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    # A process that was killed in its first migration leaves the table of the migrations alone.
    return bool(tables - {"_sqlite_migrations"}) and "open_hold" not in tables


def _apply(connection: sqlite3.Connection) -> None:
    # sqlite-utils costs 145 ms to import, so it is met only where there is something to migrate.
    from sqlite_utils import Database  # noqa: PLC0415
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415

    migrations = Migrations("tollspan")
    for number in range(1, LATEST + 1):
        migrations(name=f"{number:04}")(_step(number))
    migrations.apply(Database(connection, execute_plugins=False))


def _step(number: int) -> Callable[[object], None]:
    folder = resources.files("tollspan.ledger").joinpath("sql")
    script = next(f for f in folder.iterdir() if f.name.startswith(f"{number:04}_")).read_text(encoding="utf-8")

    def step(database: object) -> None:
        # executescript would commit the transaction that the migration runs in.
        for statement in _statements(script):
            database.execute(statement)  # type: ignore[attr-defined]
        database.execute(f"PRAGMA user_version = {number}")  # type: ignore[attr-defined]

    step.__name__ = f"step_{number:04}"
    return step


def _statements(script: str) -> list[str]:
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
