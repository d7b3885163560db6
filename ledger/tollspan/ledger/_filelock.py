"""An advisory lock on a file beside the ledger.

SQLite's own busy handler sleeps ever longer and looks again, which starved one of four processes for two seconds. Who
wants this lock looks again every 0.2 ms, which is nearly as fair as the kernel's queue; but a wait in that queue has no
end when the holder is stopped, as by a debugger. Without flock (Windows) SQLite's handler does the work alone.
"""

import os
import time
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

_LOOK_AGAIN_S = 0.0002


class FileLock:
    """`with FileLock(path):` holds an exclusive lock on the file. One thread at a time may use an instance.

    Raises TimeoutError where another holds it for longer than `timeout_s` seconds.
    """

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; False where another open file holds it, or has just removed it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed = os.fstat(descriptor).st_nlink == 0
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        if removed:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go of the lock; harmless when it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        give_up_at = time.monotonic() + self._timeout_s
        while not self.try_acquire():
            if time.monotonic() >= give_up_at:
                raise TimeoutError(f"{self.path.name} is locked by another process")
            time.sleep(_LOOK_AGAIN_S)
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
