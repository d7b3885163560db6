"""Who owns an open hold, and whether that process is still there.

An owner is a file beside the ledger on which its process keeps a lock for as long as it lives. The kernel lets go of
the lock when the process ends, however it ends; so nobody has to trust a process id, a clock or a time-to-live.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._filelock import FileLock


class Owner:
    """This process as the owner of holds in one ledger. The file appears with the first use of `name`."""

    def __init__(self, ledger: Path | None) -> None:
        self._folder = owners_folder(ledger) if ledger else None
        self._name = ""
        self._lock: FileLock | None = None

    @property
    def name(self) -> str:
        """The owner's name: the process id, for people, and a random part. Raises OSError where no file can be made."""
        if not self._name:
            name = f"{os.getpid()}-{secrets.token_hex(6)}"
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock = FileLock(self._folder / name)
                self._lock.__enter__()  # a sweeper may find the file before it is locked, and remove it
            self._name = name
        return self._name

    @property
    def known_name(self) -> str:
        """The name if it was used yet, else an empty text."""
        return self._name

    def forget(self) -> None:
        """In a forked child: give up the parent's name, and the copy of its lock that the fork made."""
        if self._lock is not None:
            self._lock.release()
        self._name, self._lock = "", None

    def leave(self) -> None:
        """Remove the owner's file; called when it has no open holds any more."""
        if self._lock is not None:
            self._lock.path.unlink(missing_ok=True)
        self.forget()


def owners_folder(ledger: Path) -> Path:
    """Where the owners of a ledger's holds keep their locks."""
    return ledger.with_name(ledger.name + "-owners")


def owners_with_a_file(ledger: Path) -> list[str]:
    """The owners that came to a ledger and did not leave it, alive or dead."""
    folder = owners_folder(ledger)
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


@contextmanager
def taken_over(owner: str, ledger: Path) -> Iterator[bool]:
    """Whether the process of this owner is gone. If so, nobody else takes it over meanwhile, and then its file goes."""
    folder = owners_folder(ledger)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / owner)
    if not lock.try_acquire():
        yield False
        return
    try:
        yield True
        lock.path.unlink(missing_ok=True)
    finally:
        lock.release()
