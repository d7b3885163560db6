"""Calls at the same moment, in one process or in many, before and after a restart: none gets room that another has."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from scenes import at_once
from sdk_calls import make_client

from tollspan.budget import BudgetExceeded, budget, scope
from tollspan.console import Answer
from tollspan.ledger import Ledger

CROWD = 50
WHO = {"profile": "key-7", "user": "ada", "team": "core", "session": "s1", "run": "r1", "tags": {"feature": "search"}}
SCOPES = ["profile", "user", "team", "session", "run", "model", "provider", "operation", "tag:feature"]
REPLICAS, CALLS_EACH = 4, 5


@pytest.mark.parametrize("each", [None, *SCOPES])
def test_01_calls_at_once_pass_a_limit_together(answering, each):
    """Fifty calls look for room before any of them is counted: here looking and taking are one, for every scope."""
    provider = answering(delay_s=0.02)
    client = make_client(provider, "openai")

    def act(_):
        with scope(**WHO), budget("0.03 USD / total", name="b", each=each), suppress(BudgetExceeded):
            return client.chat.completions.create(model="gpt-4o", max_tokens=1_000, messages=[])

    with client:
        answered = [answer for answer in at_once(CROWD, act) if answer is not None]
    assert len(answered) == len(provider.billed) == 2
    assert provider.billed_usd() <= Decimal("0.03")


def test_02_the_first_calls_of_unknown_users_pass_the_default_limit(chat, provider, ledger_path):
    """Users whom no row names yet meet no limit at first: here the first call of anybody is held like any other."""
    users = ("ada", "bob", "cyd", "dee")

    def act(number):
        user = users[number % len(users)]
        with scope(user=user), budget("0.03 USD / day", name="default", each="user"), suppress(BudgetExceeded):
            chat(max_tokens=1_000, extra_headers={"x-user": user})

    assert not ledger_path.exists()
    at_once(CROWD, act)
    assert Counter(request.headers["x-user"] for request in provider.requests) == dict.fromkeys(users, 2)


def test_06_the_counter_that_is_enforced_runs_ahead_of_the_record(answering, book, ledger_path):
    """A counter that is filled anew while calls count in it ends at twice the spend: here it is the sum of the log."""
    endings = ["ok", "status=400", "reset", "not-json"]
    provider = answering(lambda request: Answer(fault=endings[request.body["seed"] % 4]))
    client, over, differences = make_client(provider, "openai"), threading.Event(), []

    def look():
        while not over.is_set():
            with Ledger(ledger_path) as other:  # another process that opens it, settles what is dead, and counts
                other.recover()
                differences.extend(other.verify())

    def act(number):
        for turn in range(6):
            with budget("1 USD / total", name="b"), suppress(Exception):
                client.chat.completions.create(model="gpt-4o", max_tokens=100, messages=[], seed=number + turn)

    looking = threading.Thread(target=look)
    looking.start()
    at_once(8, act)
    over.set()
    looking.join()
    assert differences == []
    with client, budget("1 USD / total", name="b") as handle:
        with pytest.raises(BudgetExceeded) as refused:
            client.chat.completions.create(model="gpt-4o", max_tokens=200_000, messages=[], seed=0)
        assert refused.value.spent == handle.spent == book.spent >= provider.billed_usd() > 0
        assert refused.value.held == 0
    book.assert_settled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the replicas are forked")
def test_13_a_limit_is_refilled_by_each_deployment_and_each_replica(provider, book, ledger_path):
    """Limits per model kept in memory are as many as there are processes: here four replicas, deployed twice, share."""
    job = {"url": provider.openai_url, "replicas": REPLICAS, "calls": CALLS_EACH, "models": ["gpt-4o", "gpt-4o-mini"]}
    replicas = Path(__file__).with_name("replicas.py")
    command = [sys.executable, replicas, "deployed_twice", json.dumps(job)]
    subprocess.run(command, check=True, timeout=60)
    tokens = Counter()
    for bill in provider.billed:
        tokens[bill.model] += bill.input_tokens + bill.output_tokens
    assert set(tokens) == set(job["models"])
    assert all(3_900 < count <= 5_000 for count in tokens.values()), tokens
    assert len(provider.billed) == len(book.of("commit")) == 8
    book.assert_settled()
