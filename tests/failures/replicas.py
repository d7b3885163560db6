"""An application as it is deployed: `replicas.py NAME JOB`, with a job in JSON."""

import json
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress

import openai

from tollspan.budget import BudgetExceeded, budget
from tollspan.instrumentation import instrument

HELLO = [{"role": "user", "content": "hello"}]


def _caller(url):
    client = openai.OpenAI(base_url=url, api_key="local", max_retries=0)

    def call(**options):
        return client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO, "max_tokens": 1_000} | options)

    return call


def deployed_twice(url, replicas, calls, models):
    """So many replicas at once, and then so many new ones: each makes so many calls of each model."""
    for _ in range(2):
        brood = [_born(_serve, url, calls, models) for _ in range(replicas)]
        assert [os.waitpid(pid, 0)[1] for pid in brood] == [0] * replicas


def _serve(url, calls, models):
    call = _caller(url)
    for model in models * calls:
        with budget("5000 tokens / total", name="of a model", each="model"), suppress(BudgetExceeded):
            call(model=model)


def _born(act, *arguments):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def killed_in_a_call(url, calls, mode):
    """Make so many calls, and then one that gets no answer, in which somebody kills this process."""
    call = _caller(url)
    with budget("1 USD / total", name="killed", mode=mode):
        for _ in range(calls):
            call(max_tokens=5)
        call(max_tokens=5, extra_headers={"x-local-provider": "hang=30"})


def calls_at(url, replicas):
    """Replicas that stay; each line that is read tells one of them to call, and at which instant."""
    ends = [socket.socketpair() for _ in range(replicas)]
    brood = [_born(_call_when_told, url, ends, number) for number in range(replicas)]
    files = [ours.makefile("rw", buffering=1) for ours, _ in ends]
    for line in sys.stdin:
        number, instant = line.split()
        print(instant, file=files[int(number)])
        print(files[int(number)].readline(), end="", flush=True)  # noqa: T201 - that is how it tells
    for ours, _ in ends:
        ours.shutdown(socket.SHUT_RDWR)
    assert [os.waitpid(pid, 0)[1] for pid in brood] == [0] * replicas


def _call_when_told(url, ends, number):
    call, now = _caller(url), [0.0]
    time.time = lambda: now[0]
    file = ends[number][1].makefile("rw", buffering=1)
    for line in file:
        now[0], admitted = float(line), True
        try:
            with budget("0.0325 USD / day", name="daily", timezone="UTC"):
                call()
        except BudgetExceeded:
            admitted = False
        print(json.dumps(admitted), file=file)


def serves(url, calls):
    """Make so many calls, tell so, and wait for the signal that ends it."""
    call = _caller(url)
    for _ in range(calls):
        call(max_tokens=5)
    print("served", flush=True)  # noqa: T201 - that is how it tells
    signal.pause()


if __name__ == "__main__":
    instrument()
    globals()[sys.argv[1]](**json.loads(sys.argv[2]))
