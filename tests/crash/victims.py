"""Processes that write until they are killed.

As a script (`victims.py MODE`) it imports what the mode needs once, and then forks a brood of victims for each job, a
line of JSON on its standard input. A victim acknowledges what the library has acknowledged to it: a line in a file of
its own for each call that has returned.
"""

import importlib
import json
import os
import random
import sys
import threading
import time
import traceback

from crash_samples import a_hold, a_limit, commit, settlement_of

from tollspan.ledger import Grant, Ledger, _journal

_journal._FULL_BYTES = 20_000  # so that one file of a journal follows the other
THREADS = 2
INPUT_TOKENS, OUTPUT_TOKENS, MAX_TOKENS = 20, 30, 50


class Job:
    """What one victim has to do, and the file in which it acknowledges."""

    def __init__(self, ledger, acknowledged, seed, **options):
        self.ledger = ledger
        self.seed = seed
        self.options = options
        self._file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def acknowledge(self, *words):
        os.write(self._file, f"{' '.join(map(str, words))}\n".encode())

    def forever(self, act):
        """Do something in several threads, in bursts, until the end: `act(random, name)`, the name new each time."""

        def work(thread):
            dice, number = random.Random(f"{self.seed}-{thread}"), 0
            while True:
                for _ in range(dice.randint(1, 10)):
                    number += 1
                    act(dice, f"{self.seed}-{thread}-{number}")
                time.sleep(dice.random() * 0.01)

        for thread in range(1, THREADS):
            threading.Thread(target=work, args=(thread,), daemon=True).start()
        work(0)


def plain(job):
    """`write_event`, which returns at once."""
    ledger = Ledger(job.ledger)

    def act(dice, name):
        event = commit()
        ledger.write_event(event)
        job.acknowledge("stored", event.event_id)

    job.forever(act)


def durable(job):
    """`append`, which returns when the event is on disk."""
    ledger = Ledger(job.ledger)

    def act(dice, name):
        event = commit()
        ledger.append(event)
        job.acknowledge("stored", event.event_id)

    job.forever(act)


def holds(job):
    """Strict holds; most are settled, some are not when the end comes."""
    ledger, limit = Ledger(job.ledger), a_limit(job.options["limit"], job.options["budget"])

    def act(dice, name):
        hold = a_hold(limit)
        if not isinstance(ledger.writer.ask(hold).wait(20), Grant):
            job.acknowledge("refused")
            return
        job.acknowledge("held", hold.hold_id.hex())
        if dice.random() < 0.8:
            entry = settlement_of(hold)
            ledger.writer.put(entry)
            job.acknowledge("stored", entry.event.event_id)

    job.forever(act)


def calls(job):
    """Calls of the OpenAI SDK under a budget, plain and streamed."""
    import openai  # noqa: PLC0415 - imported before the fork, and only where it is needed

    from tollspan.budget import BudgetExceeded, budget, scope  # noqa: PLC0415
    from tollspan.exporter import use_pipeline  # noqa: PLC0415

    use_pipeline(None)  # the one from before the fork knows no ledger yet
    client = openai.OpenAI(base_url=job.options["url"], api_key="local", max_retries=0)
    terms = {"name": job.options["budget"], "mode": job.options["mode"]}

    def act(dice, name):
        streamed = dice.random() < 0.5
        fault = {"x-local-provider": "slow=0.002"} if streamed else {}
        try:
            with budget(f"{job.options['limit']} USD / month", **terms), scope(run=name):
                answer = client.chat.completions.create(
                    model="gpt-4o",
                    max_tokens=MAX_TOKENS,
                    messages=[{"role": "user", "content": "hello"}],
                    extra_headers={"x-local-provider-key": name} | fault,
                    stream=streamed,
                )
                for _ in answer if streamed else ():
                    pass
        except BudgetExceeded:
            job.acknowledge("refused")
        else:
            job.acknowledge("called", name)

    job.forever(act)


def opens(job):
    """The next process: it takes over what dead ones have left."""
    with Ledger(job.ledger) as ledger:
        ledger.recover()
    job.acknowledge("opened")


ACTS = {"plain": plain, "durable": durable, "holds": holds, "calls": calls, "opens": opens}


def prepare(mode):
    """Import, before the first fork, what the victims are going to use."""
    if mode == "calls":
        importlib.import_module("openai")
        importlib.import_module("tollspan.instrumentation").instrument()


def main(mode):
    prepare(mode)
    for line in sys.stdin:
        brood = [born(ACTS[job.pop("act", mode)], job) for job in json.loads(line)]
        print(json.dumps(brood), flush=True)  # noqa: T201 - that is how it answers
        sys.stdin.readline()  # until then the process ids of the dead stay theirs
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in brood]
        print(json.dumps(ends), flush=True)  # noqa: T201


def born(act, job):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ |= {"TOLLSPAN_LEDGER": f"sqlite:///{job['ledger']}"}
        act(Job(**job))
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
