"""Writing what is queued when a process ends in order."""

import atexit
import multiprocessing.process
import sys
import weakref
from typing import Protocol


class Closing(Protocol):
    """Something that has a queue to write."""

    def close(self) -> None:
        """Write it."""
        ...


def flush_at_exit(pipeline: Closing) -> None:
    """Close the pipeline at the end of this process; call it once in each process that uses one.

    A child of multiprocessing ends with os._exit, which runs no atexit handler but does run its own finalizers.
    """
    atexit.register(_close, weakref.ref(pipeline))
    if multiprocessing.process.parent_process() is not None:
        from multiprocessing.util import Finalize  # noqa: PLC0415 - only ever needed inside a child of multiprocessing

        Finalize(None, _close, args=(weakref.ref(pipeline),), exitpriority=0)


def _close(reference: "weakref.ref[Closing]") -> None:
    pipeline = reference()
    if pipeline is not None and not sys.is_finalizing():
        pipeline.close()
