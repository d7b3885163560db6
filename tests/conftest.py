"""What every test stands on: a bug of ours fails it, and nothing outside its own folder is read or written."""

import os

import pytest

from tollspan import exporter, ledger


@pytest.fixture(autouse=True)
def _own_world(tmp_path, monkeypatch):
    """Raise our own errors, see no configuration but the test's, and share no pipeline with another test."""
    monkeypatch.setattr(ledger.internal_errors, "raising", True)
    for name in [name for name in os.environ if name.startswith(("TOLLSPAN_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOLLSPAN_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.chdir(tmp_path)
    _close(exporter.use_pipeline(None))
    yield
    _close(exporter.use_pipeline(None))


@pytest.fixture(name="ledger")
def _ledger(tmp_path):
    """A ledger in a file of its own; what a test leaves in its queue is written, and must be writable, at the end."""
    with ledger.Ledger(tmp_path / "own.db") as own:
        yield own


def _close(pipeline):
    if pipeline is not None:
        pipeline.close()
