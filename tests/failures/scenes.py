"""What happens in many of these tests: a call, a crowd of calls at once, a restart, a ledger that cannot be written."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from decimal import Decimal

import orjson
from sdk_calls import make_client, mocked

from tollspan.exporter import use_pipeline

GPT_4O = (Decimal("2.5"), Decimal(10))
"""USD for a million tokens of input and of output: what the provider bills, and what the price list says of gpt-4o."""
HELLO = [{"role": "user", "content": "hello"}]


class _Elsewhere:
    """Where the vendors' own APIs are; nothing is ever sent there, because a transport answers by itself."""

    openai_url = "https://api.openai.com/v1"
    anthropic_url = "https://api.anthropic.com"


def mock_client(answer, sdk="openai", **options):
    """A client of an SDK for its vendor's API, whose answers `answer(body)` makes: JSON, or the events of a stream.

    The requests so far are its `sent`.
    """
    sent = []

    def respond(request):
        sent.append(request)
        made = answer(orjson.loads(request.content) if request.headers["content-type"] == "application/json" else {})
        if not isinstance(made, list):
            return {"status_code": 200, "json": made}
        content = b"".join(b"event: %b\ndata: %b\n\n" % (e.get("type", "x").encode(), orjson.dumps(e)) for e in made)
        return {"status_code": 200, "content": content, "headers": {"content-type": "text/event-stream"}}

    client = make_client(_Elsewhere, sdk, http_client=mocked(sdk, respond, asynchronous=False), **options)
    client.sent = sent
    return client


def chat_answer(usage, **more):
    """A whole answer of OpenAI's chat completions with this usage."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice]}
    return whole | {"usage": usage} | more


def ask(client, **options):
    """Make one call of gpt-4o with this client of the OpenAI SDK, or of what the options say."""
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO} | options)


def at_once(count, act):
    """What `act(number)` gives in so many threads, all of which begin at the same moment."""
    gate = threading.Barrier(count)

    def one(number):
        gate.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def restarted():
    """What a new process would have in memory: nothing."""
    old = use_pipeline(None)
    if old is not None:
        old.close()


@contextmanager
def locked(path):
    """While another program keeps everybody from writing to this ledger."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def reopened(ledger):
    """Have the ledger's file opened anew by its next use."""
    with ledger.writer.store_lock:  # not in the middle of a statement of the writer's
        ledger.store.close()


def full(ledger, monkeypatch, pragma):
    """Have this pragma set on the ledger's connection, whenever it is opened."""
    opened = ledger.store._open

    def limited():
        connection = opened()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA {pragma.format(pages=pages)}")
        return connection

    monkeypatch.setattr(ledger.store, "_open", limited)
    reopened(ledger)


def until(condition, timeout_s=20):
    """Wait for what another thread or process is about to do."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.002)
