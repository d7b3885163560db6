"""What SQLite and the file system raise, turned into errors that say what to do."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ._errors import LedgerUnavailable


@contextlib.contextmanager
def explained(path: Path | None) -> Iterator[None]:
    """Turn what goes wrong with the file inside the block into LedgerUnavailable; None is the ledger in memory."""
    where = path or "the ledger in memory"
    try:
        yield
    except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # it is about one entry, not about the file
    except sqlite3.OperationalError as error:
        raise LedgerUnavailable(f"{where}: {error}; {_advice(error, path)}") from error
    except sqlite3.DatabaseError as error:
        advice = (
            "it is damaged or no ledger: move it away or restore a snapshot, or set TOLLSPAN_LEDGER to another file"
        )
        raise LedgerUnavailable(f"{where}: {error}; {advice}") from error
    except OSError as error:
        raise LedgerUnavailable(f"{where}: {error}; {_advice(error, path)}") from error


def _advice(error: Exception, path: Path | None) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return "another program keeps it locked: close that program, or raise TOLLSPAN_BUSY_TIMEOUT_MS"
    if "full" in text or "No space" in text:
        return "free some disk space"
    if path is not None and path.is_dir():
        return "it is a directory: set TOLLSPAN_LEDGER to a file in it"
    if path is not None and "no such" in text:
        return "it is not a tollspan ledger: set TOLLSPAN_LEDGER to another file"
    folder = path.parent if path is not None else Path.cwd()
    return f"make {folder} and the file writable, or set TOLLSPAN_LEDGER to a file that you may write"
