"""Who owns an open hold, and whether that process is still there.

An owner is a file beside the ledger on which its process keeps a lock for as long as it lives. The kernel lets go of the
lock when the process ends, however it ends; so nobody has to trust a process id, a clock or a time-to-live.
"""

import os
import secrets
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
                self._lock.__enter__()  # waits out a sweeper that found the file before it was locked
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


def is_dead(owner: str, ledger: Path) -> bool:
    """Whether the process that owned these holds is gone."""
    path = owners_folder(ledger) / owner
    if not path.exists():
        return True
    lock = FileLock(path)
    if not lock.try_acquire():
        return False
    lock.release()
    return True


def remove(owner: str, ledger: Path) -> None:
    """Remove what a dead owner left behind."""
    (owners_folder(ledger) / owner).unlink(missing_ok=True)
