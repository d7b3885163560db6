"""An application in one process, and how it ends: `endings.py NAME`."""

import atexit
import os
import signal
import sys
import threading
from functools import partial

from calling import ROUNDS, acknowledge, act, act_often, act_until_the_end, instrument, together


def returns():
    instrument()
    act_often()


def exits():
    instrument()
    act_often()
    sys.exit(3)


def fails():
    instrument()
    act_often()
    raise RuntimeError("nobody catches this one")


def vanishes():
    instrument()
    act_often()
    os._exit(7)


def is_ended():
    instrument()
    act_until_the_end()


def is_ended_in_a_thread():
    instrument()
    for _ in range(2):
        threading.Thread(target=act_until_the_end, args=(0.02,), daemon=True).start()
    signal.pause()


def _exit_with_5(number, frame):
    acknowledge("handled")
    sys.exit(5)


def handles_before():
    signal.signal(signal.SIGTERM, _exit_with_5)
    instrument()
    act_until_the_end()


def handles_after():
    instrument()
    signal.signal(signal.SIGTERM, _exit_with_5)
    act_until_the_end()


def stops_when_told(install):
    """A handler that only tells the main loop; the calls go on for a while."""
    told = []
    install(lambda: signal.signal(signal.SIGTERM, lambda number, frame: told.append(acknowledge("handled"))))
    while not told:
        act()
    act_often()


def ignores():
    """SIGTERM is ignored, as by a child of nohup: only its own work ends this process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    instrument()
    act_often()
    os.kill(os.getpid(), signal.SIGTERM)
    act_often()


def closes_its_loop():
    instrument()
    together(ROUNDS)


def leaves_daemons():
    """The main thread is done while others still call."""
    instrument()
    began = threading.Barrier(4)

    def work():
        act_often()
        began.wait()
        act_until_the_end(0.02)

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    began.wait()


def calls_at_exit(when):
    """A thread that calls while the handlers of atexit run: before ours, or after it has written what there was."""
    go = threading.Event()

    def work():
        go.wait()
        act_often()

    thread = threading.Thread(target=work, daemon=True)

    def end():
        go.set()
        thread.join()

    if when == "last":
        atexit.register(end)
    instrument()
    thread.start()
    act_often()
    if when == "first":
        atexit.register(end)


ENDINGS = {
    ending.__name__: ending
    for ending in (
        returns,
        exits,
        fails,
        vanishes,
        is_ended,
        is_ended_in_a_thread,
        handles_before,
        handles_after,
        ignores,
        closes_its_loop,
        leaves_daemons,
    )
} | {
    "stops_when_told_before": partial(stops_when_told, lambda handle: (handle(), instrument())),
    "stops_when_told_after": partial(stops_when_told, lambda handle: (instrument(), handle())),
    "calls_at_exit_first": partial(calls_at_exit, "first"),
    "calls_at_exit_last": partial(calls_at_exit, "last"),
}

if __name__ == "__main__":
    ENDINGS[sys.argv[1]]()
