"""Who owns an open hold or a journal, and whether that process is still there.

An owner is a file beside the ledger on which its process keeps a lock for as long as it lives. The kernel lets go of
the lock when the process ends, however it ends; so nobody has to trust a process id, a clock or a time-to-live.
"""

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._filelock import FileLock

JOURNAL_SUFFIX = ".journal"
ASIDE_SUFFIX = ".aside"


class Owner:
    """This process as the owner of holds and of a journal. The file appears with the first use of `name`."""

    def __init__(self, ledger: Path | None) -> None:
        self._folder = owners_folder(ledger) if ledger else None
        self._naming = threading.RLock()
        self._name = ""
        self._lock: FileLock | None = None

    @property
    def name(self) -> str:
        """The owner's name: the process id, for people, and a random part. Raises OSError where no file can be made."""
        with self._naming:
            if not self._name:
                self._name = self._appear()
            return self._name

    def journal_path(self, number: int) -> Path:
        """Where this process keeps the nth file of its journal. Raises OSError where no file can be made."""
        name = self.name
        assert self._folder is not None, "a ledger in memory has no journal"
        return self._folder / f"{name}.{number:06}{JOURNAL_SUFFIX}"

    def _appear(self) -> str:
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._folder / name)
            self._lock.__enter__()  # a sweeper may find the file before it is locked, and remove it
        return name

    @property
    def known_name(self) -> str:
        """The name if it was used yet, else an empty text."""
        return self._name

    def forget(self) -> None:
        """In a forked child: give up the parent's name, and the copy of its lock that the fork made."""
        if self._lock is not None:
            self._lock.release()
        self._naming = threading.RLock()
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
    """The owners that came to a ledger and did not leave it, alive or dead: all that have a lock or a journal there."""
    folder = owners_folder(ledger)
    if not folder.is_dir():
        return []
    return sorted({path.name.partition(".")[0] for path in folder.iterdir() if not path.name.endswith(ASIDE_SUFFIX)})


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
