"""Following a ledger with `tail` while others write to it."""

import threading

from samples import commit, script

from tollspan.ledger import Ledger

PROCESSES, EACH = 4, 400
WRITE = """
import random, sys
from samples import commit
from tollspan.ledger import Ledger

dice = random.Random(sys.argv[2])
sys.stdin.readline()
with Ledger(sys.argv[1]) as ledger:
    for number in range(int(sys.argv[3])):
        event = commit(run_id=f"{sys.argv[2]}-{number}")
        if dice.random() < 0.1:
            ledger.append(event)
        else:
            ledger.write_event(event)
"""


def followed(ledger, done, limit):
    """What one sees who asks for the events after the last one seen, again and again, until the writers are done."""
    seen = []
    while True:
        last_look = done.is_set()
        page = ledger.tail(seen[-1].offset if seen else 0, limit)
        seen += page
        if last_look and not page:
            return seen


def test_a_follower_sees_every_event_once_and_in_order(ledger):
    """While four processes write, a loop over `tail` misses no event, sees none twice, and offsets only grow."""
    ledger.append(commit(run_id="first"))
    writers = [script(WRITE, ledger.path, name, EACH) for name in range(PROCESSES)]
    done, found = threading.Event(), {}

    def follow(limit):
        with Ledger(ledger.path) as follower:
            found[limit] = followed(follower, done, limit)

    followers = [threading.Thread(target=follow, args=(limit,), daemon=True) for limit in (None, 7)]
    for follower in followers:
        follower.start()
    for writer in writers:  # all at once, now that they are ready
        writer.stdin.write("\n")
        writer.stdin.flush()
    codes = [writer.wait(60) for writer in writers]
    done.set()
    for follower in followers:
        follower.join()
    for writer in writers:
        writer.communicate()
    assert codes == [0] * PROCESSES
    expected = ["first", *(f"{name}-{number}" for name in range(PROCESSES) for number in range(EACH))]
    for seen in found.values():
        offsets = [event.offset for event in seen]
        assert offsets == sorted(set(offsets))
        assert sorted(event.run_id for event in seen) == sorted(expected)
    for name in range(PROCESSES):
        numbers = [int(e.run_id.split("-")[1]) for e in found[None] if e.run_id.startswith(f"{name}-")]
        assert numbers == sorted(numbers), "a process's events are in the order in which it wrote them"
