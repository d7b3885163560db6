"""A provider that keeps books of its own, SDKs that are instrumented, and the ledger as a test reads it."""

import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

# What the tests of the instrumentation know of the SDKs.
sys.path.append(str(Path(__file__).parent.parent / "instrumentation"))

from scenes import GPT_4O, ask, restarted
from sdk_calls import make_client

from tollspan.console import Answer, LocalProvider
from tollspan.exporter import Pipeline, pipeline, use_pipeline
from tollspan.instrumentation import instrument, uncovered, uninstrument
from tollspan.ledger import load_settings


@pytest.fixture
def folder(tmp_path):
    """A folder in memory where the system has one: how fast a disk is, is not tested here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as made:
        yield Path(made)


@pytest.fixture(autouse=True)
def ledger_path(folder, monkeypatch):
    """The ledger of the test, which is not there yet; the SDKs are instrumented."""
    path = folder / "ledger.db"
    monkeypatch.setenv("TOLLSPAN_LEDGER", f"sqlite:///{path}")
    restarted()
    instrument()
    yield path
    uninstrument()
    uncovered.clear()
    restarted()


@pytest.fixture
def interruptible():
    """SIGINT interrupts, also where a shell that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def configure():
    """Configure the process as flags do, before its first call: `configure(hold_usd="0.25")`."""

    def configure(**flags):
        restarted()
        use_pipeline(Pipeline(load_settings(**flags)))

    return configure


@pytest.fixture
def answering():
    """Start a provider whose answers a function of the request makes: `answering(lambda request: Answer(...))`."""
    running = []

    def start(answer=lambda _: Answer(), **options):
        running.append(LocalProvider(answer=answer, **{"price": GPT_4O, "output_tokens": 1_000} | options).start())
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def provider(answering):
    """A provider of gpt-4o, whose answers have 1,000 tokens (0.01 USD) unless the request says less."""
    return answering()


@pytest.fixture
def client(provider):
    """A client of the OpenAI SDK that does not retry."""
    with make_client(provider, "openai") as made:
        yield made


@pytest.fixture
def chat(client):
    """Make one call of gpt-4o: `chat(max_tokens=100)`."""
    return lambda **options: ask(client, **options)


class Book:
    """The ledger of the pipeline that is in place when it is looked at."""

    def __getattr__(self, name):
        return getattr(pipeline().ledger, name)

    def of(self, *kinds):
        """The events of these types; all are on disk."""
        assert self.flush(30)
        return [event for event in self.events if event.event_type in kinds]

    @property
    def commit(self):
        """The only commit."""
        (event,) = self.of("commit")
        return event

    @property
    def spent(self):
        """What the events add to spend, in USD."""
        return sum(event.spend_usd or 0 for event in self.of("commit", "retry"))

    def assert_settled(self):
        """Every hold has ended once, nothing is held, and the counters are what the log says."""
        holds = Counter(event.call_id for event in self.of("precheck_hold"))
        ends = [e for e in self.of("commit", "cancel", "retry") if e.event_type != "retry" or e.estimated]
        assert Counter(event.call_id for event in ends if event.call_id in holds) == holds
        assert self.open_holds().calls == 0
        assert self.verify() == []


@pytest.fixture
def book():
    """The ledger as the test reads it."""
    return Book()
