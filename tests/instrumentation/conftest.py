"""A ledger and a tracer of its own for each test, and one local provider for each module."""

import gc
import os
import tempfile
from pathlib import Path

import pytest
from seeing import instrumenting, restart

from tollspan.console._provider import Answer, LocalProvider
from tollspan.ledger import internal_errors


@pytest.fixture(scope="module")
def provider():
    """A provider whose answers have 90 output tokens, in 8 chunks where they are streamed."""
    parts = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")

    def answer(request):
        return Answer(output_tokens=90, **{part: int(request.headers.get(f"x-{part}", 0)) for part in parts})

    with LocalProvider(answer=answer) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_collections():
    """Leave what is there already out of garbage collections, which would take most of the time otherwise."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory where the system has one: a busy disk may take seconds for an fsync."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def ledger_path(quick_path, monkeypatch):
    """A ledger that nobody else has; nothing stays instrumented."""
    path = quick_path / "ledger.db"
    monkeypatch.setenv("TOLLSPAN_LEDGER", f"sqlite:///{path}")
    monkeypatch.setattr(internal_errors, "count", 0)
    restart()
    yield path
    restart()


@pytest.fixture
def instrumented():
    """Instruments while its block runs, with a TracerProvider of its own."""
    return instrumenting


@pytest.fixture
def seen(instrumented):
    """Instruments for the whole test."""
    with instrumented() as found:
        yield found
