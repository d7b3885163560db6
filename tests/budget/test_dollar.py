"""The promise: a budget of one dollar lets no more than one dollar be billed, and most of it be used."""

import asyncio
import datetime as dt
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai
import pytest

from tollspan.budget import BudgetExceeded, budget
from tollspan.console._provider import LocalProvider
from tollspan.exporter import Pipeline, pipeline, use_pipeline
from tollspan.instrumentation import instrument
from tollspan.ledger import load_settings

CALLS = 50
PROCESSES, CALLS_EACH = 4, 13
# A window that turned in the middle of a test would rightly let two dollars through.
ZONE = "UTC" if 1 <= dt.datetime.now(dt.UTC).hour < 23 else "Asia/Tokyo"
HELLO = [{"role": "user", "content": "hello"}]


def one_dollar(on_limit):
    return budget("1 USD / day", name="one dollar", on_limit=on_limit, max_wait_timeout_s=20, timezone=ZONE)


def call(client, on_limit, max_tokens):
    """One call; tells whether it was answered, and raises nothing but what is no refusal."""
    options = {} if max_tokens is None else {"max_tokens": max_tokens}
    try:
        with one_dollar(on_limit):
            client.chat.completions.create(model="gpt-4o", messages=HELLO, **options)
    except BudgetExceeded:
        return False
    return True


def client_of(provider_url):
    return openai.OpenAI(base_url=provider_url, api_key="local", max_retries=0)


def sequential(provider, on_limit, max_tokens, _workers):
    with client_of(provider.openai_url) as client:
        return [call(client, on_limit, max_tokens) for _ in range(CALLS)]


def in_threads(provider, on_limit, max_tokens, _workers):
    with client_of(provider.openai_url) as client, ThreadPoolExecutor(CALLS) as pool:
        return list(pool.map(lambda _: call(client, on_limit, max_tokens), range(CALLS)))


def in_tasks(provider, on_limit, max_tokens, _workers):
    options = {} if max_tokens is None else {"max_tokens": max_tokens}

    async def one(client):
        try:
            async with one_dollar(on_limit):
                await client.chat.completions.create(model="gpt-4o", messages=HELLO, **options)
        except BudgetExceeded:
            return False
        return True

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="local", max_retries=0) as client:
            return await asyncio.gather(*(one(client) for _ in range(CALLS)))

    return asyncio.run(all_of_them())


def in_processes(provider, on_limit, max_tokens, workers):
    ledger_url = pipeline().settings.ledger
    for pipe in workers:
        pipe.send((ledger_url, provider.openai_url, on_limit, max_tokens))
    return [answered for pipe in workers for answered in pipe.recv()]


def worker(pipe):
    """A process of its own: makes its calls at once, each time it is told to, in the ledger that it is told of."""
    instrument()
    while (job := pipe.recv()) is not None:
        ledger_url, provider_url, on_limit, max_tokens = job
        use_pipeline(Pipeline(load_settings(ledger=ledger_url)))
        with client_of(provider_url) as client, ThreadPoolExecutor(CALLS_EACH) as pool:
            answered = list(pool.map(lambda _: call(client, on_limit, max_tokens), range(CALLS_EACH)))  # noqa: B023 - the pool ends here
        use_pipeline(None).close()
        pipe.send(answered)


@pytest.fixture(scope="module")
def workers():
    """Processes that share a ledger file."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(PROCESSES):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=worker, args=(theirs,), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    yield pipes
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join(10)


@pytest.fixture
def slow_provider():
    """A provider that takes long enough for calls to be in flight together."""
    with LocalProvider(output_tokens=10_000, delay_s=0.03, price=(Decimal("2.5"), Decimal(10))) as running:
        yield running


@pytest.mark.parametrize("on_limit", ["raise", "wait"])
@pytest.mark.parametrize("max_tokens", [10_000, None], ids=["max_tokens set", "max_tokens unset"])
@pytest.mark.parametrize("how", [sequential, in_threads, in_tasks, in_processes])
@pytest.mark.usefixtures("instrumented")
def test_a_dollar_is_a_dollar(slow_provider, workers, how, max_tokens, on_limit):
    """Fifty calls of 0.10 USD bill at most 1 USD and use most of it; the ledger has the bill to the nano, no hold."""
    answered = how(slow_provider, on_limit, max_tokens, workers)
    billed, book = slow_provider.billed_usd(), pipeline().ledger

    assert billed <= 1
    if max_tokens or on_limit == "wait" or how is sequential:
        assert billed >= Decimal("0.80")
    else:
        assert billed >= Decimal("0.50")  # unset and at once, each call in flight holds what the model gives at most
    assert answered.count(True) == len(slow_provider.billed)
    assert book.flush(60)
    assert sum(event.cost_actual_usd for event in book.events if event.event_type == "commit") == billed
    with one_dollar(on_limit) as handle:
        assert (handle.spent, handle.held, handle.remaining) == (billed, 0, 1 - billed)
    assert book.open_holds().calls == 0
    assert book.verify() == []


if __name__ == "__main__":  # pragma: no cover - spawned processes import this file under its own name
    sys.exit(pytest.main([__file__]))
