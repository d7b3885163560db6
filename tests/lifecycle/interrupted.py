"""SIGTERM at the lines of a round: `interrupted.py STATE COUNT` forks a child for each of so many of them.

In a `cold` child the round is its first one, which opens everything; in a `warm` one it is the second. Prints, as JSON,
by the line of the round, how those children ended that did not die by SIGTERM.
"""

import json
import os
import signal
import sys

from calling import act, instrument

GIVE_UP_S = 5
AT_ONCE = 8
TRACED = ("threading", "tollspan.ledger._writer")


def traced_round(number):
    """A round with SIGTERM at this line of it, ours or the standard library's; gives how many of them there are."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if event == "line" and frame.f_globals.get("__name__") in TRACED:
            lines += 1
            if lines == number:
                signal.raise_signal(signal.SIGTERM)
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
    if lines < number:  # this round was shorter than the first, because nothing had to be waited for
        signal.raise_signal(signal.SIGTERM)
    return lines


def born(state, work):
    """A child that does this in that state; the alarm ends one that hangs."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(GIVE_UP_S)
        try:
            if state == "warm":
                act()
            work()
        finally:
            os._exit(1)
    return pid


def lines_of(state):
    reading, writing = os.pipe()
    born(state, lambda: os.write(writing, str(traced_round(0)).encode()))
    os.close(writing)
    return int(os.read(reading, 20))


def main(state, count):
    instrument()
    lines = lines_of(state)
    os.wait()
    chosen = range(1, lines + 1, max(1, lines // int(count)))
    ends, living = {}, {}
    for number in chosen:
        if len(living) == AT_ONCE:
            reap(living, ends)
        living[born(state, lambda number=number: traced_round(number))] = number
    while living:
        reap(living, ends)
    print(json.dumps({"lines": lines, "ends": ends}))  # noqa: T201 - that is how it answers


def reap(living, ends):
    pid, status = os.wait()
    number, end = living.pop(pid), os.waitstatus_to_exitcode(status)
    if end != -signal.SIGTERM:
        ends[number] = end


if __name__ == "__main__":
    main(*sys.argv[1:])
