"""Events and holds for the tests of the ledger; the scripts that they run in other processes use them too."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal

from tollspan.ledger import Demand, Entry, Grant, HoldRequest, LedgerEvent, Limit, event_id_for, new_call_id
from tollspan.ledger._postings import posting_of


@dataclass(frozen=True)
class Linear:
    """A cost in nano-USD: so much for the input, so much for each output token."""

    fixed: int
    per_token: int

    def nano(self, output_tokens):
        return self.fixed + self.per_token * output_tokens

    def affordable_tokens(self, nano):
        if not self.per_token:
            return 1 << 62 if nano >= self.fixed else -1
        return (nano - self.fixed) // self.per_token


def until(condition, timeout_s=5.0):
    """Wait for what another thread or process is about to do."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.001)


def in_threads(*targets, timeout_s=20):
    """Run each in a thread of its own, all at once; gives back what they return, and raises what one of them raises."""
    with ThreadPoolExecutor(len(targets)) as pool:
        return [running.result(timeout_s) for running in [pool.submit(target) for target in targets]]


def script(text, *arguments):
    """Start a script in a process that can import what this one can; its standard input and output are pipes."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def commit(usd="0.01", **fields):
    """A commit that cost so much; None is unpriced."""
    return LedgerEvent(**{"event_type": "commit", "cost_actual_usd": usd and Decimal(usd), **fields})


def requests_limit(limit, budget="b"):
    """A limit in requests, of the window `total`."""
    return Limit(budget, "", 0, "requests", limit, waits=True)


def tokens_limit(limit, budget="b"):
    """A limit in tokens, of the window `total`."""
    return Limit(budget, "", 0, "tokens", limit, waits=True)


def a_request(*limits, tokens=0, call_id=None):
    """A hold of one request, and of so many tokens that cannot be clamped, in each of the limits."""
    call_id = call_id or new_call_id()
    ids = {"call_id": call_id.hex(), "run_id": f"run-{call_id.hex()}"}

    def describe(grant: Grant):
        return posting_of(LedgerEvent(event_type="precheck_hold", cost_est_usd=Decimal("0.5"), **ids))

    def withdraw():
        event_id = event_id_for(call_id, "cancel", 1).hex()
        return posting_of(LedgerEvent(event_type="cancel", event_id=event_id, status="cancelled", **ids))

    demand = Demand(None, 0, tokens, tokens)
    hold_id = event_id_for(call_id, "precheck_hold")
    return HoldRequest(hold_id, demand, limits, describe, withdraw)


def cancel_of(request):
    """What gives a hold back."""
    call_id = request.hold_id[:-2]
    return Entry.of(LedgerEvent(event_type="cancel", call_id=call_id.hex()), request.hold_id)
