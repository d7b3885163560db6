"""Waiting for what another thread or process is about to do."""

import time


def until(condition, seconds=30.0):
    """Wait for a condition; fails where it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.001)
