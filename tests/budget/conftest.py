"""Stand-ins for the outside: a configuration of the test's own, a provider that bills, calls that ask to be sent."""

import asyncio
import dataclasses
import os
import time
from decimal import Decimal

import openai
import pytest

from tollspan import exporter, ledger
from tollspan.budget import CallIntent, aadmit, admit, reach
from tollspan.console._provider import Answer, LocalProvider
from tollspan.exporter import CallRecord, Pipeline, settlement
from tollspan.instrumentation import instrument, uninstrument

USD = 1_000_000_000
GPT_4O = (Decimal("2.5"), Decimal(10))
"""USD for a million tokens of input and of output: what the provider bills, and what the price list says of gpt-4o."""


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path, monkeypatch):
    """A ledger of the test's own, no other setting, and every bug of ours raised."""
    monkeypatch.setattr(ledger.internal_errors, "raising", True)
    for name in [name for name in os.environ if name.startswith("TOLLSPAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOLLSPAN_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.chdir(tmp_path)
    exporter.use_pipeline(None)
    yield
    assert not reach().entries, "the test has left a budget in force"
    line = exporter.use_pipeline(None)
    if line is not None:
        line.close()


@pytest.fixture
def configure(monkeypatch):
    """Configure the process: `configure(mode="strict", budget="1 USD / day")` is flags, before the first call."""

    def configure(**flags):
        line = Pipeline(ledger.load_settings(**flags))
        old = exporter.use_pipeline(line)
        if old is not None:
            old.close()
        return line

    return configure


@pytest.fixture
def book():
    """The ledger as the test reads it."""
    return exporter.pipeline().ledger


@dataclasses.dataclass
class Calls:
    """Calls without an SDK: each asks for admission and is settled by hand."""

    tokens_in: int = 100
    made: int = 0

    def record(self, **fields):
        self.made += 1
        return CallRecord(
            call_id=ledger.new_call_id(),
            started=time.time(),
            operation="chat",
            provider="openai",
            **{"request_model": "gpt-4o", "dimensions": reach().dimensions} | fields,
        )

    def intent(self, **fields):
        model = fields.pop("model", "gpt-4o")
        price = exporter.pipeline().prices.resolve(provider="openai", model=model, at=time.time())
        given = {"price": price, "input_tokens": self.tokens_in, "max_output_tokens": 10_000}
        return CallIntent(**given | fields)

    def ask(self, **fields):
        """Ask for admission of one call; gives its record and the admission."""
        record = self.record(**{k: fields.pop(k) for k in ("dimensions", "request_model") if k in fields})
        return record, admit(record, self.intent(**fields))

    async def ask_in_task(self, **fields):
        record = self.record()
        return record, await aadmit(record, self.intent(**fields))

    def settle(self, record, tokens_out=10_000, *, outcome="billed", flush=True):
        """End a call: billed for so many tokens of output, or unbilled."""
        record.outcome, record.attempts = outcome, 1
        if outcome == "billed":
            record.usage = {"tokens_in": self.tokens_in, "tokens_out": tokens_out}
            record.cost, record.cost_source = self.tokens_in * 2_500 + tokens_out * 10_000, "test"
        line = exporter.pipeline()
        line.ledger.writer.put(settlement(record))
        if flush:
            assert line.ledger.flush(60)

    def spend(self, tokens_out, **fields):
        """Make a whole call with this output, through whatever budgets are in force."""
        record, _ = self.ask(max_output_tokens=tokens_out, **fields)
        self.settle(record, tokens_out)


@pytest.fixture
def calls():
    """Calls without an SDK; gpt-4o, 100 tokens of input, at most 10,000 of output: 0.10025 USD at the most."""
    return Calls()


@pytest.fixture
def provider():
    """A provider of gpt-4o, whose answers have 10,000 tokens (0.10 USD) unless the request says less."""
    with LocalProvider(output_tokens=10_000, price=GPT_4O) as running:
        yield running


@pytest.fixture
def answering():
    """Start a provider whose answers a function of the request makes: `answering(lambda request: Answer(...))`."""
    running = []

    def start(answer=lambda _: Answer(), **options):
        running.append(LocalProvider(answer=answer, price=GPT_4O, **options).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def instrumented():
    """The SDKs instrumented for the length of a test."""
    instrument()
    yield
    uninstrument()


@pytest.fixture
def chat(provider, instrumented):
    """Make one call of gpt-4o through the OpenAI SDK: `chat(max_tokens=100)`."""
    client = openai.OpenAI(base_url=provider.openai_url, api_key="local", max_retries=0)
    yield lambda **options: _chat(client, **options)
    client.close()


@pytest.fixture
async def achat(provider, instrumented):
    """Make one call from a task."""
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="local", max_retries=0) as client:
        yield lambda **options: _chat(client, **options)


def _chat(client, **options):
    given = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]} | options
    return client.chat.completions.create(**given)


@pytest.fixture
def at_once():
    """Run coroutines at once and give back their results, exceptions included."""

    async def run(*coroutines):
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return run
