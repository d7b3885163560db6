"""The metrics of the ledger, read with the real SDK."""

import os
import threading
from decimal import Decimal

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from records import a_record

from tollspan.exporter import Pipeline
from tollspan.exporter._translate import settlement
from tollspan.ledger import Entry, Ledger, LedgerEvent, load_settings


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def line(tmp_path, reader):
    """A pipeline whose metrics are read by `reader`."""
    line = Pipeline(load_settings(), Ledger(tmp_path / "measured.db"))
    provider = MeterProvider([reader])
    line.measure(provider)
    yield line
    line.close()
    provider.shutdown()


def points(reader):
    """The data points of each instrument, by name."""
    data = reader.get_metrics_data()
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
    return {metric.name: list(metric.data.data_points) for metric in found}


def value(reader, name, **labels):
    """The value of the one data point that has these labels."""
    found = [p for p in points(reader).get(name, []) if labels.items() <= dict(p.attributes).items()]
    assert len(found) == 1, found
    return found[0].value


def flush(line):
    """Have all written and told."""
    assert line.ledger.flush()
    line.ledger.writer.listeners.drain(5)


def test_spend_is_counted_after_its_commit(line, reader):
    """Cost by provider and model, estimates apart; what is not committed is not counted."""
    with line.ledger.writer.store_lock:
        for _ in range(3):
            line.ledger.writer.put(settlement(a_record(cost=2 * 10**9)))
        line.ledger.writer.put(settlement(a_record(cost=None, estimate=10**9)))
        assert "tollspan.cost" not in points(reader)
        assert value(reader, "tollspan.ledger.queue") == 4
    flush(line)
    assert value(reader, "tollspan.cost", **{"tollspan.cost.estimated": False, "gen_ai.provider.name": "openai"}) == 6
    assert value(reader, "tollspan.cost", **{"tollspan.cost.estimated": True, "gen_ai.response.model": "gpt-4o"}) == 1
    assert value(reader, "tollspan.ledger.events") == 4
    assert value(reader, "tollspan.ledger.queue") == 0
    assert value(reader, "tollspan.ledger.lag") > 0


def test_calls_above_their_hold_are_counted(line, reader):
    """A call that cost more than was held for it is an underhold; one that cost less is none."""
    for cost in ("0.5", "2"):
        event = LedgerEvent(event_type="commit", cost_est_usd=Decimal(1), cost_actual_usd=Decimal(cost))
        line.ledger.writer.put(Entry.of(event))
    flush(line)
    assert value(reader, "tollspan.underhold") == 1


def test_what_goes_wrong_is_counted_by_its_kind(line, reader):
    """Ids with other content, and events that cannot be stored, each under its `error.type`."""
    event = settlement(a_record()).event
    line.ledger.write_event(event)
    line.ledger.write_event(LedgerEvent(event_type="commit", event_id=event.event_id, call_id=event.call_id))
    line.ledger.write_event(LedgerEvent(event_type="commit", user_id="\ud800"))
    flush(line)
    kinds = ("conflicts", "rejected", "failures", "lost", "journal")
    assert [value(reader, "tollspan.ledger.errors", **{"error.type": kind}) for kind in kinds] == [1, 1, 0, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed process is a fork")
def test_what_killed_processes_left_is_counted(line, reader):
    """Events of a dead process's journal, and calls that had begun, once they are made good."""
    child = os.fork()
    if child == 0:
        ledger = Ledger(line.ledger.path)
        with ledger.writer.store_lock:
            ledger.writer.put(settlement(a_record()))
            os._exit(0)
    os.waitpid(child, 0)
    line.ledger.recover()
    assert value(reader, "tollspan.ledger.replays") == 1
    assert value(reader, "tollspan.orphan_holds") == 0


def test_a_balance_in_memory_that_is_behind_shows(line, reader):
    """The difference between the balances of this process and those on disk: 0 at rest, else how much."""
    line.ledger.writer.put(settlement(a_record(cost=3000)))
    flush(line)
    assert value(reader, "tollspan.balance.difference") == 0
    with line.ledger.writer.store_lock, Ledger(line.ledger.path) as other:
        other.append(settlement(a_record(started=a_record().started, cost=500)).event)
        assert value(reader, "tollspan.balance.difference") == 500


def test_those_who_wait_for_what_another_one_loads_are_counted(line, reader):
    """Two threads that want the same balance for the first time: one reads it, the other waits, and that is counted."""
    before, loading = value(reader, "tollspan.balance.warm_races"), line.ledger._loading
    with loading._lock:
        other = threading.Thread(target=line.ledger.cached_balance, args=(("", "", 0),))
        other.start()
        other.join(0.2)  # it stands at the lock
    other.join(5)
    assert value(reader, "tollspan.balance.warm_races") == before + 1


def test_nobody_listens_where_nobody_collects(tmp_path):
    """Without a meter provider no listener runs, so that a process without metrics pays nothing for them."""
    line = Pipeline(load_settings(), Ledger(tmp_path / "own.db"))
    line.measure(NoOpMeterProvider())
    line.ledger.writer.put(settlement(a_record()))
    line.ledger.flush()
    assert line.ledger.writer.listeners._thread is None
    line.close()
