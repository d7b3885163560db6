"""The pipeline: one ledger whatever the provider does, and nothing lost when a process ends."""

import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, TraceIdRatioBased
from records import a_record

from tollspan.exporter import LedgerSpanProcessor, Pipeline, pipeline, use_pipeline
from tollspan.ledger import Ledger, load_settings

CALL_IDS = [bytes([0, 0, 0, 0, 0, number]) + bytes(8) for number in range(8)]


def providers():
    """Every kind of provider that an application may have, by name."""
    yield "none", trace.ProxyTracerProvider()
    yield "no-op", trace.NoOpTracerProvider()
    for name, sampler in [("0 %", ALWAYS_OFF), ("50 %", TraceIdRatioBased(0.5)), ("100 %", ALWAYS_ON)]:
        yield name, TracerProvider(sampler=sampler, shutdown_on_exit=False)
    os.environ["OTEL_SDK_DISABLED"] = "true"
    try:
        yield "disabled", TracerProvider(shutdown_on_exit=False)
    finally:
        del os.environ["OTEL_SDK_DISABLED"]


def settle(line, provider, record):
    line.attach(provider)
    line.settle(record, provider.get_tracer("test").start_span("chat"))


@pytest.mark.parametrize(("name", "provider"), list(providers()), ids=[name for name, _ in providers()])
def test_the_ledger_does_not_depend_on_the_provider(ledger, name, provider):
    """Sampled or not, with a provider, without one, or with the SDK disabled: the same calls make the same events."""
    line = Pipeline(load_settings(), ledger)
    for call_id in CALL_IDS:
        settle(line, provider, a_record(call_id=call_id))
    with Ledger(None) as other:
        plain = Pipeline(load_settings(), other)
        for call_id in CALL_IDS:
            plain.settle(a_record(call_id=call_id), trace.INVALID_SPAN)
        assert [replace(e, offset=0) for e in ledger.events] == [replace(e, offset=0) for e in other.events]
    assert ledger.latest_offset() == len(CALL_IDS), name


def test_a_provider_is_attached_to_once(ledger):
    """However often and in whatever order providers come, each gets one processor of a pipeline."""
    line = Pipeline(load_settings(), ledger)
    one, two = TracerProvider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)
    for provider in (one, two, one, trace.NoOpTracerProvider(), one, two):
        line.attach(provider)
    for provider in (one, two):
        processors = provider._active_span_processor._span_processors
        assert sum(isinstance(processor, LedgerSpanProcessor) for processor in processors) == 1


def test_pipelines_that_share_a_provider_keep_their_ledgers_apart(ledger, tmp_path):
    """A record goes into the ledger of the pipeline that it was settled by, whoever attached to the provider first."""
    provider = TracerProvider(shutdown_on_exit=False)
    with Ledger(tmp_path / "other.db") as other:
        lines = [Pipeline(load_settings(), one) for one in (other, ledger)]
        for line in (*lines, lines[1]):
            settle(line, provider, a_record())
        assert (len(other.tail()), len(ledger.tail())) == (1, 2)


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
def test_a_providers_flush_writes_the_calls_that_it_did_not_see_too(ledger, sampler):
    """What was settled before `force_flush` is on disk after it, sampled or not."""
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    settle(Pipeline(load_settings(), ledger), provider, a_record())
    assert provider.force_flush()
    assert ledger.writer.pending == 0


def test_nothing_is_opened_before_it_is_needed(tmp_path):
    """Making a pipeline and attaching it leaves no file; the first call opens the configured ledger."""
    provider = TracerProvider(shutdown_on_exit=False)
    line = pipeline()
    line.attach(provider)
    provider.shutdown()
    line.close()
    assert not line.is_open
    assert list(tmp_path.iterdir()) == []
    settle(line, trace.NoOpTracerProvider(), a_record())
    assert line.ledger.path == tmp_path / "ledger.db"
    assert len(line.ledger.tail()) == 1


def test_a_wrong_setting_is_logged_and_stops_nothing(monkeypatch, tmp_path, caplog):
    """A typing error in the configuration, or a price file that is none, leaves the defaults in force, with a word."""
    monkeypatch.setenv("TOLLSPAN_MODE", "strikt")
    monkeypatch.setenv("TOLLSPAN_PRICES", str(tmp_path / "no such file.toml"))
    assert pipeline().settings.mode == "best_effort"
    assert pipeline().prices is pipeline().prices
    assert "strikt" in caplog.text
    assert caplog.text.count("no such file.toml") == 1


def test_one_pipeline_is_shared_by_all_threads():
    """Threads that ask for the first time at once get the same pipeline and the same ledger; it can be replaced."""
    start, seen = threading.Barrier(8), []

    def ask():
        start.wait()
        seen.append((pipeline(), pipeline().ledger))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    mine = Pipeline(load_settings())
    assert use_pipeline(mine) is seen[0][0]
    assert pipeline() is mine
    seen[0][0].close()


def test_an_open_pipeline_settles_what_the_dead_have_left(tmp_path, caplog):
    """The holds of a process that was killed are estimated spend as soon as the next one uses the ledger."""
    run(KILLED, "killed", expect=-9)
    with caplog.at_level(logging.WARNING):
        assert pipeline().ledger.spend_today() == float(Decimal("0.000009"))
    assert "processes that are gone left 0 events, now stored, and 1 calls" in caplog.text


def test_a_ledger_that_cannot_be_opened_is_reported_and_stops_nothing(tmp_path, caplog):
    """With a file that is no ledger calls go on, their events wait, and the log says what to do, once."""
    (tmp_path / "ledger.db").mkdir()
    line = pipeline()
    settle(line, trace.NoOpTracerProvider(), a_record())
    assert not line.ledger.flush()
    assert caplog.text.count("is a directory") == 1
    (tmp_path / "ledger.db").rmdir()
    assert line.ledger.flush()
    assert len(line.ledger.tail()) == 1


# ---- the end of a process

PRELUDE = """
import multiprocessing, os, signal, sys, threading
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from records import a_record, held_by, USD
from tollspan.exporter import hold_event, pipeline, withdrawal
from tollspan.ledger import Demand, HoldRequest

def calls(count=15):
    for _ in range(count):
        pipeline().settle(a_record(), trace.INVALID_SPAN)

def deferred():
    pipeline().ledger.writer.defer(calls)

def children(method, target=calls):
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=target) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)

if __name__ == "__main__":
"""
KILLED = """
    class Free:
        def nano(self, output_tokens): return 9000
        def affordable_tokens(self, nano): return 1
    record = a_record()
    held = held_by(record)
    request = HoldRequest(
        held.hold_id, Demand(Free(), 0, 1, 1), (USD,), lambda grant: hold_event(record, held, 0), lambda: None
    )
    pipeline().ledger.writer.ask(request).wait(5)
    os.kill(os.getpid(), signal.SIGKILL)
"""
ENDS = {
    "normally": ("    calls()", 15),
    "with sys.exit": ("    calls(); sys.exit(0)", 15),
    "with an error": ("    calls(); 1 / 0", 15),
    "with a provider that shuts down": (
        "    provider = TracerProvider(); pipeline().attach(provider); calls()", 15,
    ),
    "with a thread that still runs": (
        "    calls(); threading.Thread(target=threading.Event().wait, daemon=True).start()", 15,
    ),
    "with calls that were only deferred": ("    deferred()", 15),
    "after multiprocessing children with calls that were only deferred": (
        '    deferred(); children("fork", deferred)', 60,
    ),
    "after a fork, in parent and child": (
        "    calls()\n    if os.fork() == 0:\n        calls()\n    else:\n        os.wait(); calls()", 45,
    ),
    "after multiprocessing children by fork": ('    calls(); children("fork"); calls()', 75),
    "after multiprocessing children by fork alone": ('    children("fork")', 45),
    "after multiprocessing children by spawn": ('    calls(); children("spawn"); calls()', 75),
}  # fmt: skip


def run(text, name, *, expect=0):
    """Run a script, as a file so that children by spawn can import it, until it ends."""
    file = Path(f"{name}.py")
    file.write_text(PRELUDE + text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run([sys.executable, file], env=environment, timeout=30, capture_output=True, check=False)
    assert ended.returncode == expect, ended.stderr.decode()


@pytest.mark.parametrize("end", ENDS, ids=ENDS)
def test_what_was_settled_is_in_the_ledger_when_a_process_has_ended(tmp_path, end):
    """However a process ends in order, with children or without, the events of all its calls are on disk."""
    text, count = ENDS[end]
    run(text, "ending", expect=1 if "error" in end else 0)
    with Ledger.from_file(tmp_path / "ledger.db") as ledger:
        assert ledger.latest_offset() == count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_makes_the_pipeline_does_not_hang_the_child():
    """A child never inherits the pipeline's lock from a thread that it does not have."""
    from tollspan.exporter import _pipeline  # noqa: PLC0415 - only here is it about the inside

    locked = threading.Event()

    def keep():
        with _pipeline._lock:
            locked.set()
            time.sleep(0.05)

    thread = threading.Thread(target=keep)
    thread.start()
    locked.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _pipeline._lock.acquire(timeout=5) else 1)
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
