"""An advisory lock on a file beside the ledger.

SQLite's own busy handler sleeps and looks again, which starved one of four processes for two seconds; the kernel's
queue on a locked file is fair. Where there is no flock (Windows) SQLite's handler does the work alone.
"""

import os
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """`with FileLock(path):` holds an exclusive lock on the file. One thread at a time may use an instance."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; False where another open file holds it, or has just removed it."""
        return self._acquire(wait=False)

    def release(self) -> None:
        """Let go of the lock; harmless when it is not held."""
        # Once it is closed another thread may take it: nothing of this instance may be touched after that.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        while not self._acquire(wait=True):
            pass  # removed while we waited for it: take the new one
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _acquire(self, *, wait: bool) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        taken = False
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            taken = os.fstat(descriptor).st_nlink > 0
        except BlockingIOError:
            return False
        finally:
            if taken:
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        return taken
