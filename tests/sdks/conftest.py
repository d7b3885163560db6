"""Each SDK against a local server that speaks its provider's wire format; a ledger of its own for each test."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

# What the tests of the instrumentation know of spans and ledger.
sys.path.append(str(Path(__file__).parent.parent / "instrumentation"))

from seeing import instrumenting, restart
from wire_server import WireServer

from tollspan.instrumentation import CALL_SITES
from tollspan.instrumentation._patching import is_out_of_range
from tollspan.ledger import internal_errors

# What httpx and aiohttp leave behind where nobody closes an async stream, without us as well; ours would be told.
_HTTPX = "Response|AsyncClient|BoundAsyncStream|AsyncResponseStream|PoolByteStream|HTTP11Connection(ByteStream)?"
_DISORDER = (
    rf"ignore:Exception ignored in. <\w+ object ({_HTTPX})\.:pytest.PytestUnraisableExceptionWarning",
    "ignore:Exception ignored in. <function ClientResponse.__del__:pytest.PytestUnraisableExceptionWarning",
)


def pytest_configure(config):
    """Let the disorder of others pass."""
    for filtered in _DISORDER:
        config.addinivalue_line("filterwarnings", filtered)


def pytest_generate_tests(metafunc):
    """A test that takes a case runs with each case of its module; but for methods that another version has."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [_param(case) for case in metafunc.module.CASES])


def _param(case):
    row = next((site for site in CALL_SITES if f"{site.module}:{site.name}" == case.site), None)
    gone = row is not None and is_out_of_range(row)
    marks = [pytest.mark.skip(reason=f"this version of {row.sdk} has no {row.name}")] if gone else []
    return pytest.param(case, id=case.id, marks=marks)


@pytest.fixture
def server():
    """A provider that answers what the test tells it to."""
    with WireServer() as running:
        yield running


@pytest.fixture(autouse=True)
def ledger_path(tmp_path, monkeypatch):
    """A ledger that nobody else has, in memory where the system has room there; nothing stays instrumented."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        monkeypatch.setenv("TOLLSPAN_LEDGER", f"sqlite:///{folder}/ledger.db")
        monkeypatch.setattr(internal_errors, "count", 0)
        restart()
        yield Path(folder) / "ledger.db"
        restart()


@pytest.fixture
def instrumented():
    """Instruments while its block runs, with a TracerProvider of its own."""
    return instrumenting
