"""The progress of work that takes its time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

_BAR_AFTER_S = 1.0

Progress = Callable[[int, int], None]
"""Told how much is done, and how much there is in all (0: not known)."""


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal, for work that is not done within a second."""
    shown = _Bar(what, time.monotonic() + _BAR_AFTER_S)
    try:
        yield shown.update if sys.stderr.isatty() else lambda _done, _total: None
    finally:
        shown.stop()


class _Bar:
    def __init__(self, what: str, since: float) -> None:
        self._what, self._since = what, since
        self._shown: Any = None

    def update(self, done: int, total: int) -> None:
        if self._shown is None and time.monotonic() >= self._since:
            self._start()
        if self._shown is not None:
            self._shown.update(0, completed=done, total=total or None)

    def stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()

    def _start(self) -> None:
        from rich.progress import Progress as Shown  # noqa: PLC0415 - most work is done before

        self._shown = Shown(console=Console(stderr=True), transient=True)
        self._shown.add_task(self._what, total=None)
        self._shown.start()
