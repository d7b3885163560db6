"""SIGKILL at random moments: what was acknowledged is in the ledger once, and no limit was exceeded.

TOLLSPAN_TEST_KILLS is the number of rounds for each way to write, of four killed processes each; TOLLSPAN_TEST_SEED
chooses other moments.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from crash_samples import BILLED, until
from victims import INPUT_TOKENS, OUTPUT_TOKENS

from tollspan.console._provider import Answer, LocalProvider
from tollspan.ledger import Ledger, Window, account_of, to_nano
from tollspan.ledger._journal_format import framed
from tollspan.ledger._owners import ASIDE_SUFFIX

KILLS = int(os.environ.get("TOLLSPAN_TEST_KILLS", "6"))
SEED = os.environ.get("TOLLSPAN_TEST_SEED", "tollspan")
VICTIMS = 4
ROUNDS_OF_A_LEDGER = 10
GPT_4O = (Decimal("2.5"), Decimal(10))
CALL_USD = (GPT_4O[0] * INPUT_TOKENS + GPT_4O[1] * OUTPUT_TOKENS).scaleb(-6)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork, and no SIGKILL"),
    pytest.mark.timeout(60 + 10 * KILLS),
]


class Nursery:
    """A process that forks victims which write in one mode, and what they have acknowledged."""

    def __init__(self, mode, folder):
        self._folder = folder
        self._born = 0
        self.mode = mode
        command = [sys.executable, Path(__file__).with_name("victims.py"), mode]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, ledger, seeds, **options):
        """Start one victim for each seed; gives back their process ids and the files in which they acknowledge."""
        files = []
        for _ in seeds:
            self._born += 1
            files.append(self._folder / f"acknowledged-{self._born}")
        jobs = [
            {"ledger": str(ledger), "acknowledged": str(file), "seed": seed, **options}
            for seed, file in zip(seeds, files, strict=True)
        ]
        print(json.dumps(jobs), file=self._process.stdin, flush=True)
        return list(zip(json.loads(self._process.stdout.readline()), files, strict=True))

    def reap(self):
        """Wait until those of this round are gone, and with them their locks; gives back their exit codes."""
        print(file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def end(self):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture
def nursery(tmp_path):
    """Start a nursery: `nursery("plain")`."""
    started = []

    def start(mode):
        started.append(Nursery(mode, tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def dice(request):
    """Random moments, the same ones for the same test and seed."""
    return random.Random(f"{SEED}-{request.node.name}")


def words(file):
    """What a victim acknowledged, line by line; a line that the kill cut short was not acknowledged."""
    text = file.read_text() if file.exists() else ""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def kill_at_random(nursery, ledger, dice, number, *, at_most, **options):
    """One round: four victims write, and each is killed after so many acknowledgements and a moment more.

    Gives back the acknowledgements of all of them, by their first word.
    """
    seeds = [f"{nursery.mode}-{number}-{place}" for place in range(VICTIMS)]
    brood = nursery.start(ledger, seeds, **options)
    for pid, file in dice.sample(brood, VICTIMS):
        least = dice.randint(0, at_most)
        until(lambda file=file, least=least: len(words(file)) >= least)
        time.sleep(dice.random() * 0.01)
        os.kill(pid, signal.SIGKILL)
    assert nursery.reap() == [-signal.SIGKILL] * VICTIMS, "a victim has met an error of its own"
    kill_the_next_process(nursery, ledger, dice)
    acknowledged = {}
    for _, file in brood:
        for word, *rest in words(file):
            acknowledged.setdefault(word, []).append(rest)
    return acknowledged


def kill_the_next_process(nursery, ledger, dice):
    """Kill the one that takes over what the dead have left, somewhere on its way: the one after it does it all."""
    ((pid, _),) = nursery.start(ledger, ["next"], act="opens")
    time.sleep(dice.random() * 0.03)
    os.kill(pid, signal.SIGKILL)
    assert nursery.reap() in ([0], [-signal.SIGKILL])


def taken_over(path):
    """The events of a ledger as the next process has them, which finds nothing wrong in it."""
    with Ledger(path) as ledger:
        ledger.recover()
        events = list(ledger.events)
        assert ledger.verify() == []
        assert ledger.open_holds().calls == 0
        assert ledger.writer.counts.conflicts == 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    left = [one for one in path.with_name(path.name + "-owners").iterdir() if not only_torn(one)]
    assert not left, "somebody who is gone has left something that nobody took over"
    return events


def only_torn(file):
    """Whether a file is a journal kept aside for lines that a kill cut short.

    Linux gives up a write between two pages when its process is killed: 21 of 300 did that wrote all the time. Nobody
    was told that such a line is written, so nothing acknowledged is missing with it.
    """
    if not file.name.endswith(ASIDE_SUFFIX):
        return False
    lines = filter(None, file.read_bytes().split(b"\n"))
    unsound = [line for line in lines if line != framed(line[18:]).strip(b"\n")]
    return bool(unsound) and all(len(line) < 18 or int(line[:8], 16) > len(line) - 18 for line in unsound)


def assert_kept(acknowledged, events):
    """Every acknowledged event is there, and none is there twice."""
    stored = Counter(event.event_id for event in events)
    assert set(stored.values()) <= {1}
    assert [event_id for (event_id,) in acknowledged.get("stored", ()) if event_id not in stored] == []


def ledger_of(tmp_path, number):
    """The ledger of a round: one lives through many rounds, but does not grow for ever."""
    return tmp_path / f"ledger-{number // ROUNDS_OF_A_LEDGER}.db"


# ---- events


@pytest.mark.parametrize("mode", ["plain", "durable"])
def test_no_acknowledged_event_is_lost_by_a_kill(nursery, tmp_path, dice, mode):
    """What `write_event` or `append` has returned for is in the ledger of the next process, once."""
    young, acknowledged = nursery(mode), {}
    for number in range(KILLS):
        path = ledger_of(tmp_path, number)
        most = 400 if mode == "plain" else 60
        found = kill_at_random(young, path, dice, number, at_most=most).get("stored", ())
        acknowledged.setdefault(path, []).extend(found)
        assert_kept({"stored": acknowledged[path]}, taken_over(path))
    assert sum(map(len, acknowledged.values())) > KILLS


# ---- strict


def test_no_held_call_is_lost_by_a_kill(nursery, tmp_path, dice):
    """Each acknowledged hold became spend, once: as settled where that was acknowledged, else at its full amount."""
    young = nursery("holds")
    for number in range(KILLS):
        path, limit = ledger_of(tmp_path, number), dice.randint(1_000, 20_000)
        budget = f"round-{number}"
        acknowledged = kill_at_random(young, path, dice, number, at_most=100, limit=limit, budget=budget)
        events = taken_over(path)
        assert_kept(acknowledged, events)
        settled = {event_id for (event_id,) in acknowledged.get("stored", ())}
        assert not [e for e in events if e.event_id in settled and e.estimated]
        commits = Counter(event.call_id for event in events if event.event_type == "commit")
        assert set(commits.values()) <= {1}
        held = [hold_id[:-4] for (hold_id,) in acknowledged.get("held", ())]
        assert [call_id for call_id in held if call_id not in commits] == []
        with Ledger(path) as ledger:
            balance = ledger.balance((account_of(budget, "tokens"), "", 0))
        assert BILLED * len(held) <= balance.spent <= limit
        assert balance.held == 0


@pytest.fixture
def provider():
    """A provider whose every answer is billed the same."""
    answer = Answer(output_tokens=OUTPUT_TOKENS, input_tokens=INPUT_TOKENS)
    with LocalProvider(answer=lambda _: answer, price=GPT_4O) as running:
        yield running


def billed_in(provider, number):
    """How many calls of a round the provider bills, by their names; a late one may still come in."""
    names = [request.headers["x-local-provider-key"] for request in tuple(provider.requests)]
    return Counter(name for name in names if name.startswith(f"calls-{number}-"))


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_no_call_of_an_sdk_is_lost_by_a_kill(nursery, tmp_path, dice, provider, mode):
    """Whatever the provider bills is spend, once; a call that returned at its cost; strict within the limit."""
    young = nursery("calls")
    for number in range(KILLS):
        path = ledger_of(tmp_path, number)
        limit = dice.randint(20, 200) * CALL_USD if mode == "strict" else Decimal(1000)
        terms = {"limit": str(limit), "budget": f"round-{number}", "mode": mode, "url": provider.openai_url}
        acknowledged = kill_at_random(young, path, dice, number, at_most=15, **terms)
        billed = billed_in(provider, number)
        events = taken_over(path)
        commits = {}
        for event in events:
            if event.event_type == "commit":
                assert commits.setdefault(event.run_id, event) is event
        assert [name for name in billed if name not in commits] == []
        returned = [commits[name] for (name,) in acknowledged.get("called", ())]
        assert {(event.cost_actual_usd, event.estimated) for event in returned} <= {(CALL_USD, False)}
        with Ledger(path) as ledger:
            start = Window("month", "UTC").start(time.time())
            (balance,) = ledger.balances(f"round-{number}", start).values() or [None]
        assert to_nano(CALL_USD) * billed.total() <= balance.spent
        assert mode == "best_effort" or balance.spent <= to_nano(limit)
        assert balance.held == 0
